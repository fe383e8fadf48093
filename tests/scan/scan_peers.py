"""What torch, safetensors, NumPy and zipfile read of a file that we accept.

The readers of others may crash on such files, so they run in a process of their own, which says
file by file whether it reads the same (`differences`).
"""

from __future__ import annotations

import ast
import json
import pickle
import re
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from purpleteam.core.errors import PurpleError
from purpleteam.scan.formats import read_arrays
from purpleteam.scan.formats.problem import Problem
from purpleteam.scan.formats.sniff import mapped
from purpleteam.scan.formats.zip_layout import read_layout
from purpleteam.scan.gate import read_state_dict


def accepted(path: Path) -> bool:
    """Return whether we read the file, in any of the ways in which we read its kind."""
    if path.suffix in (".pt", ".safetensors"):
        if read_state_dict(path).verdict == "accepted":
            return True
        return path.suffix == ".pt" and _layout(path) is not None
    try:
        read_arrays(path)
    except PurpleError:
        return path.suffix == ".npz" and _layout(path) is not None
    return True


def _layout(path: Path) -> dict[str, bytes] | None:
    try:
        archive = read_layout(mapped(path))
        return {name: bytes(archive.read(name)) for name in archive.members}
    except Problem:
        return None


def differences(paths: list[Path]) -> dict[str, str]:
    """Return the accepted files that others cannot read, or read as something else, and how."""
    left, found = [str(path) for path in paths], {}
    while left:
        child = subprocess.run(
            [sys.executable, __file__],
            input=json.dumps(left),
            capture_output=True,
            text=True,
            check=False,
        )
        told = dict(json.loads(line) for line in child.stdout.splitlines())
        found |= {name: why for name, why in told.items() if why}
        left = left[len(told) :]
        if left:  # it died on the next one
            found[left.pop(0)] = f"the reader died: {child.stderr[-300:]}"
    return found


def _compared(path: Path) -> str:
    """Return how another library reads the file differently from us, or nothing."""
    if path.suffix in (".pt", ".npz") and (ours := _layout(path)) is not None:
        with zipfile.ZipFile(path) as archive:
            theirs = {
                one.filename: archive.read(one) for one in archive.infolist() if not one.is_dir()
            }
        if ours != theirs:
            return f"zipfile reads {sorted(theirs)} of {sorted(ours)}, or other bytes"
    if path.suffix in (".pt", ".safetensors"):
        return _compared_weights(path)
    try:
        ours = read_arrays(path)
    except PurpleError:
        return ""
    return _unequal(ours, _arrays(path))


def _compared_weights(path: Path) -> str:
    import torch
    from safetensors.torch import load_file

    if path.suffix == ".pt" and (layout := _layout(path)) is not None:
        tops = {name.partition("/")[0] for name in layout}
        if len(tops) == 1 and all(name in layout for name in (f"{min(tops)}/version",)):
            try:
                reader = torch._C.PyTorchFileReader(str(path))
            except (RuntimeError, UnicodeDecodeError):  # with what is no version in its words
                layout = {}  # what torch refuses we may not accept: `load` below tells
            for name, content in layout.items():
                if bytes(reader.get_record(name.partition("/")[2])) != content:
                    return f"torch reads {name!r} as other bytes"
    verdict = read_state_dict(path)
    if verdict.verdict == "refused":
        return ""
    zipped = path.read_bytes()[:2] == b"PK"  # of others torch makes no map
    for options in ({}, {"mmap": True})[: 1 + zipped]:
        if path.suffix == ".safetensors":
            found = load_file(path)
        else:
            found = torch.load(path, weights_only=True, map_location="cpu", **options)
            way = re.search(r"taken from key (.+); the rest", " ".join(verdict.reasons))
            for key in way[1].split(" and then ") if way else ():
                found = found[ast.literal_eval(key)]
            found = {name: one for name, one in found.items() if isinstance(one, torch.Tensor)}
        theirs = {
            name: (one.detach().float() if one.is_floating_point() else one.detach()).numpy()
            for name, one in found.items()
        }
        if why := _unequal(verdict.tensors, theirs):
            return why
    return ""


def _unequal(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    if set(ours) != set(theirs):
        return f"names {sorted(set(ours) ^ set(theirs))[:4]} are read by one alone"
    for name, array in ours.items():
        other = theirs[name]
        if array.dtype != other.dtype.newbyteorder("=") or array.shape != other.shape:
            return f"{name!r} is {array.dtype} {array.shape} or {other.dtype} {other.shape}"
        if not np.array_equal(array, other, equal_nan=array.dtype.kind == "f"):
            return f"{name!r} has other values"
    return ""


class _NumpyOnly(pickle.Unpickler):
    """Python's own reader, which may import what NumPy's arrays need and nothing else."""

    def find_class(self, module: str, name: str) -> object:
        if module.partition(".")[0] in ("numpy", "_codecs", "collections") or name == "bytes":
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name}")


def _arrays(path: Path) -> dict[str, np.ndarray]:
    if path.suffix == ".npy":
        return {"array": np.load(path, allow_pickle=False)}
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    with path.open("rb") as file:
        return dict(_named(_NumpyOnly(file, encoding="bytes").load(), ""))


def _named(value: object, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, bytes):
        value = value.decode()
    if isinstance(value, dict):
        parts = [
            (key.decode() if isinstance(key, bytes) else str(key), one)
            for key, one in value.items()
        ]
    elif isinstance(value, (list, tuple)) and _has_arrays(value):
        parts = [(str(place), one) for place, one in enumerate(value)]
    else:
        if value is not None:
            yield name or "array", np.array(_decoded(value))
        return
    for key, one in parts:
        yield from _named(one, f"{name}/{key}" if name else key)


def _has_arrays(value: object) -> bool:
    parts = isinstance(value, (list, tuple)) and any(map(_has_arrays, value))
    return parts or isinstance(value, (dict, np.ndarray))


def _decoded(value: object) -> object:
    if isinstance(value, (list, tuple)):
        return [_decoded(one) for one in value]
    return (
        value.decode() if isinstance(value, bytes) and not isinstance(value, np.generic) else value
    )


def main() -> None:
    """Read the paths that stand on the input and say of each how it differs, if it does."""
    warnings.simplefilter("ignore")
    for path in json.load(sys.stdin):
        try:
            why = _compared(Path(path))
        except Exception as error:
            why = f"{type(error).__name__}: {error}"[:300]
        sys.stdout.write(json.dumps([path, why]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
