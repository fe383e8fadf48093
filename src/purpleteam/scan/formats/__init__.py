"""What model files are made of, read without trusting them: nothing here unpickles.

- `problem`         what can be wrong with a model file: one table of rules
- `sniff`           a file as bytes, and what it is, by content
- `zip_layout`      an archive on which no two readers can disagree
- `pickle_walk`     what a pickle would import, found by walking its opcodes
- `pickle_reader`   pickles interpreted over plain values, opcode by opcode
- `torch_file`      the torch state dict: its names, its pickle, its archive and storages
- `arrays`          `read_arrays`, for data sets: pickled NumPy arrays, .npy and .npz
- `tensors`         number formats, strides, finite values, and the .npy header
- `safetensors`, `onnx`   one format each
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from purpleteam.scan.formats.arrays import read_arrays

__all__ = ["read_arrays"]


def __getattr__(name: str) -> Any:
    if name == "read_arrays":
        from purpleteam.scan.formats.arrays import read_arrays

        return read_arrays
    raise AttributeError(f"module 'purpleteam.scan.formats' has no attribute {name!r}")
