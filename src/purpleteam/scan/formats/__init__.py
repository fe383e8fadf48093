"""What model files are made of, read without trusting them: nothing here unpickles.

- `problem`         what can be wrong with a model file: one table of rules
- `sniff`           what a file is, by content
- `mapped`          a file as bytes
- `zip_layout`      an archive on which no two readers can disagree; `zip_end`: its last records
- `pickle_globals`  what a pickle would import, found by walking its opcodes
- `pickle_reader`   pickles interpreted over plain values; `pickle_opcodes`: by which opcodes
- `allow_list`      every name that a torch state dict may hold
- `state_pickle`    the pickle of a torch state dict
- `array_pickle`    pickled NumPy arrays;  `arrays`: `read_arrays`, for data sets
- `pickled`         files that pickles hide in, looked at for findings
- `torch_zip`       the .pt archive: its exact entry set, its storages
- `tensors`         number formats, strides, finite values
- `safetensors`, `onnx`, `npy`   one format each
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
