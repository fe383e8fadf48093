"""Model files that run code, crash or mislead whoever loads them, made anew for each test.

The payload touches a marker file, so a test can prove that nothing ran, and that the samples
are live.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np

FLOATS = np.arange(4, dtype="<f4").tobytes()
BENIGN = (
    b"\x80\x02}q\x00X\x01\x00\x00\x00wq\x01ctorch._utils\n_rebuild_tensor_v2\nq\x02((X\x07\x00\x00\x00storage"
    b"q\x03ctorch\nFloatStorage\nq\x04X\x01\x00\x00\x000q\x05X\x03\x00\x00\x00cpuq\x06K\x04tq\x07QK\x00%sq\x08"
    b"%sq\x09\x89ccollections\nOrderedDict\nq\x0a)Rq\x0btq\x0cRq\x0ds."
)
"""A state dict of one tensor 'w' over data/0, with room for its size and its stride."""


HOOKS = b"ccollections\nOrderedDict\nq\x0a)Rq\x0btq"
ATTRIBUTES = b"ccollections\nOrderedDict\n)R}X\x01\x00\x00\x00aK\x01sb0."
DIRECTORY = b"PK\x01\x02\x14\x03\x14\x00\x00"
DIRECTORY_ENCRYPTED = DIRECTORY[:-1] + b"\x01"


class Call:
    """Pickles as a call of a function; unpickling it calls it."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.parts = (function, arguments)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.parts


def benign_pickle(size: bytes = b"K\x04\x85", stride: bytes = b"K\x01\x85") -> bytes:
    return BENIGN % (size, stride)


def archive(path: Path, data: bytes, **extra: bytes) -> Path:
    """Write a torch archive with `data` as its pickle and four floats as data/0."""
    entries = {"data.pkl": data, "byteorder": b"little", "data/0": FLOATS, "version": b"3\n"}
    with zipfile.ZipFile(path, "w") as target:
        for name, content in (entries | extra).items():
            target.writestr(f"model/{name}", content)
    return path


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def pickles(marker: Path) -> dict[str, bytes]:
    """Return raw pickles, each of which touches the marker when it is loaded."""
    import os
    import timeit

    command = f"touch '{marker}'"
    system = pickle.dumps(Call(os.system, command), protocol=2)
    statement = f"import pathlib; pathlib.Path({str(marker)!r}).touch()"
    shuffled = (
        b"\x80\x04\x8c\x06systemq\x09"
        + b"\x8c\x05posixq\x07"
        + b"00"
        + b"h\x07h\x09\x93"
        + text(command)
        + b"\x85R."
    )
    getattr_import = (
        b"\x80\x02cbuiltins\ngetattr\n(cbuiltins\n__import__\n"
        + text("os")
        + b"\x85R"
        + text("system")
        + b"tR"
        + text(command)
        + b"\x85R."
    )
    return {
        "os_system": system,
        "protocol_0": pickle.dumps(Call(os.system, command), protocol=0),
        "stack_global_by_memo": shuffled,
        "getattr_of_import": getattr_import,
        "timeit": pickle.dumps(Call(timeit.timeit, "pass", statement), protocol=4),
        "runpy": b"\x80\x02crunpy\n_run_code\n" + text(statement) + b"}\x86R.",
        "urlopen": b"\x80\x02curllib.request\nurlopen\n" + text("http://127.0.0.1:9/") + b"\x85R.",
        "payload_then_broken": system[:-1] + b"0\xff\xff",
        "second_stacked": pickle.dumps({"w": 1}, protocol=2) + system,
        "inst": b"(" + b"S'" + command.replace("'", "").encode() + b"'\niposix\nsystem\n.",
    }


def live(marker: Path) -> tuple[str, ...]:
    """Return the names of the raw pickles that do touch the marker."""
    return tuple(
        name for name in pickles(marker) if name not in ("urlopen", "runpy", "second_stacked")
    )


def safetensors(header: bytes, data: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def good_header() -> dict[str, object]:
    return {"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}


def safetensors_files() -> dict[str, bytes]:
    """Return malformed safetensors files, one for each way to hide something."""
    header = json.dumps(good_header()).encode()
    two = {"data_offsets": [8, 24], "dtype": "F32", "shape": [4]}
    twice = header[:-1] + b"," + header[1:]
    gap = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}}
    kind = {"w": {"dtype": ["F32"], "shape": [4], "data_offsets": [0, 16]}}
    # of 2**66 bytes, which is 0 in 64 bits; and of none, of which NumPy makes no array
    wrap = {"w": {"dtype": "F32", "shape": [1 << 31, 1 << 31, 4], "data_offsets": [0, 0]}}
    none = {"w": {"dtype": "F64", "shape": [1 << 31, 1 << 31, 0], "data_offsets": [0, 0]}}
    return {
        "huge_header": struct.pack("<Q", 1 << 40) + header + FLOATS,
        "overlap": safetensors(json.dumps(good_header() | {"v": two}).encode(), FLOATS + b"\0" * 8),
        "duplicate_key": safetensors(twice, FLOATS),
        "trailing_pickle": safetensors(header, FLOATS + b"\x80\x02cposix\nsystem\n."),
        "out_of_range": safetensors(header, FLOATS[:8]),
        "gap": safetensors(json.dumps(gap).encode(), FLOATS),
        "kind_in_a_list": safetensors(json.dumps(kind).encode(), FLOATS),
        "size_over_64_bits": safetensors(json.dumps(wrap).encode(), b""),
        "empty_over_63_bits": safetensors(json.dumps(none).encode(), b""),
        "offsets_over_63_bits": safetensors(header.replace(b"16]", b"%d]" % (1 << 64)), FLOATS),
    }


def archives(folder: Path, marker: Path) -> dict[str, Path]:
    """Write archives that torch would load, or that readers disagree about."""
    system = pickles(marker)["os_system"]
    good = benign_pickle()
    found = {
        "payload_in_pt": archive(folder / "payload_in_pt.pt", system),
        "hidden_second_pickle": archive(folder / "hidden.pt", good, **{"data.config": system}),
        "unnamed_storage": archive(folder / "unnamed.pt", good, **{"data/1": system}),
        "stride_zero": archive(
            folder / "stride.pt", benign_pickle(b"\x8a\x04\0\0\0\x40\x85", b"K\x00\x85")
        ),
        "beyond_storage": archive(folder / "beyond.pt", benign_pickle(b"K\x05\x85")),
        "leads_out": archive(folder / "leads_out.pt", good, **{"../../evil": b"1"}),
        "big_endian": archive(folder / "big_endian.pt", good, byteorder=b"big"),
        "torchscript": archive(folder / "script.pt", good, **{"code/net.py": b"pass"}),
        "beyond_by_stride": archive(folder / "steps.pt", benign_pickle(b"K\x03\x85", b"K\x02\x85")),
        "hooks": archive(folder / "hooks.pt", good.replace(HOOKS, b"}K\x01K\x02sq\x0btq")),
        "bytes_behind_pickle": archive(folder / "behind.pt", good + b"N."),
        "attributes": archive(folder / "attributes.pt", good[:-1] + ATTRIBUTES),
        "storage_too_long": archive(folder / "long.pt", good, **{"data/0": FLOATS * 2}),
        "not_a_number": archive(
            folder / "nan.pt", good, **{"data/0": np.full(4, np.nan, "<f4").tobytes()}
        ),
    }
    found["zip_bomb"] = folder / "bomb.pt"
    with zipfile.ZipFile(found["zip_bomb"], "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("model/data.pkl", good)
        target.writestr("model/data/0", bytes(8 << 20))
        target.writestr("model/version", b"3\n")
    whole = archive(folder / "whole.pt", good).read_bytes()
    for name, content in broken_archives(whole).items():
        found[name] = folder / f"{name}.pt"
        found[name].write_bytes(content)
    return found


def broken_archives(whole: bytes) -> dict[str, bytes]:
    """Return an archive with one thing changed that some readers ignore."""
    at, directory = whole.index(FLOATS), whole.index(b"PK\x01\x02")
    crc = whole[:at] + b"\x01" + whole[at + 1 :]
    flags = whole[:6] + b"\x01" + whole[7:]
    name = whole.replace(b"model/data.pkl", b"model/data.pk2", 1)
    twice = io.BytesIO(whole)
    with zipfile.ZipFile(twice, "a") as target:
        target.writestr("model/DATA.pkl", b"N.")
    return {
        "wrong_crc": crc,
        "other_flags": flags,
        "other_local_name": name,
        "two_of_one_name": twice.getvalue(),
        "bytes_in_front": b"#!/bin/sh\n" + whole,
        "bytes_behind": whole + b"#!/bin/sh\n",
        "bytes_between": whole[:directory] + b"hidden" + whole[directory:],
        "bytes_between_and_said": _shifted(whole[:directory] + b"hidden" + whole[directory:], 6),
        "encrypted": whole[:6] + b"\x01" + whole[7:].replace(DIRECTORY, DIRECTORY_ENCRYPTED, 1),
        "other_local_crc": whole[:14] + bytes(4) + whole[18:],
        "comment": whole[:-2] + b"\x02\x00hi",
        "cut_short": whole[:-30],
    }


def _shifted(archive_bytes: bytes, step: int) -> bytes:
    """Return the archive with its directory said to be `step` bytes further on."""
    place = len(archive_bytes) - 6
    offset = int.from_bytes(archive_bytes[place : place + 4], "little") + step
    return archive_bytes[:place] + offset.to_bytes(4, "little") + archive_bytes[place + 4 :]


def onnx_file(*, domain: str = "", location: str | None = None) -> bytes:
    """Return the smallest ONNX file: one operator, one weight, maybe in another file."""

    def field(number: int, value: bytes | str) -> bytes:
        value = value.encode() if isinstance(value, str) else value
        return bytes([number << 3 | 2 if number < 16 else 0]) + bytes([len(value)]) + value

    weight = b"\x08\x04\x10\x01" + field(8, "w")
    if location is None:
        weight += field(9, FLOATS)
    else:
        weight += field(13, field(1, "location") + field(2, location)) + b"\x70\x01"
    node = field(1, "w") + field(2, "y") + field(4, "Relu") + (field(7, domain) if domain else b"")
    graph = field(1, node) + field(2, "g") + field(5, weight)
    return b"\x08\x08" + field(7, graph) + field(8, b"\x0a\x00\x10\x12")


def malicious_files(folder: Path, marker: Path) -> dict[str, Path]:
    """Write the whole corpus; return the file of each sample."""
    found = archives(folder, marker)
    raw = {f"{name}.pkl": data for name, data in pickles(marker).items()}
    raw |= {f"{name}.bin": data for name, data in pickles(marker).items()}
    raw |= {"pickle_named.safetensors": pickles(marker)["os_system"]}
    raw |= {"pickle_named.h5": pickles(marker)["os_system"]}
    raw |= {f"{name}.safetensors": data for name, data in safetensors_files().items()}
    raw["traversal.onnx"] = onnx_file(location="../../etc/passwd")
    raw["absolute.onnx"] = onnx_file(location="/etc/passwd")
    raw["custom.onnx"] = onnx_file(domain="evil.ops")
    raw["seven.pt"] = b"7z\xbc\xaf\x27\x1c" + bytes(40)
    for name, data in raw.items():
        found[name] = folder / name
        found[name].write_bytes(data)
    found["objects.npy"] = folder / "objects.npy"
    call = Call(exec, f"open({str(marker)!r}, 'w').close()")
    np.save(found["objects.npy"], np.array([call], dtype=object), allow_pickle=True)
    return found
