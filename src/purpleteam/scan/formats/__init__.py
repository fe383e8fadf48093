"""What model files are made of, read without trusting them: nothing here unpickles.

- `problem`         what can be wrong with a model file: one table of rules
- `sniff`           what a file is, by content
- `zip_layout`      an archive on which no two readers can disagree
- `pickle_globals`  what a pickle would import, found by walking its opcodes
- `allow_list`      every name that a torch state dict may hold
- `state_pickle`    the few opcodes that a torch state dict needs, understood; others refused
- `pickled`         files that pickles hide in, looked at for findings
- `torch_zip`       the .pt archive: its exact entry set, its storages
- `tensors`         number formats, strides, finite values
- `safetensors`, `onnx`, `npy`   one format each
"""
