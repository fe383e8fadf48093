"""What model files are made of, read without trusting them: nothing here unpickles.

- `problem`         what can be wrong with a model file: one table of rules
- `sniff`           a file as bytes, and what it is, by content
- `zip_layout`      an archive on which no two readers can disagree
- `pickles`         what a pickle would import, and plain values interpreted opcode by opcode
- `torch_file`      the torch state dict: its names, its pickle, its archive and storages
- `arrays`          `read_arrays`, for data sets: pickled NumPy arrays, .npy and .npz
- `tensors`         number formats, strides, finite values, and the .npy header
- `safetensors`, `onnx`   one format each
"""

from purpleteam.scan.formats.arrays import read_arrays

__all__ = ["read_arrays"]
