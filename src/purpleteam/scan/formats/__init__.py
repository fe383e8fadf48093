"""What model files are made of, read without trusting them: nothing here unpickles.

- `sniff`        a file as bytes, and what it is;  `problem`: one table of what can be wrong
- `zip_layout`, `containers`, `pickles`, `names`, `tensors`   what several formats are made of
- `torch_file` (and `state_dict` in it), `safetensors`, `onnx`, `arrays`   one format each
"""

from purpleteam.scan.formats.arrays import read_arrays

__all__ = ["read_arrays"]
