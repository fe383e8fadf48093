"""Files changed at random, with knowledge of their format; `scan_peers` reads what is accepted."""

from __future__ import annotations

import contextlib
import io
import pickle
import pickletools
import random
import re
import struct
import warnings
import zipfile
import zlib
from collections import OrderedDict

import numpy as np

RECORDS = {  # magic: fields of the record, as (offset, size)
    b"PK\x03\x04": [(4, 2), (6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2), (30, 2)],
    b"PK\x01\x02": [
        *((at, 2) for at in (4, 6, 8, 10, 28, 30, 32, 34, 36)),
        *((at, 4) for at in (16, 20, 24, 38, 42)),
        (38, 1),
    ],
    b"PK\x05\x06": [*((at, 2) for at in (4, 6, 8, 10, 20)), (12, 4), (16, 4)],
    b"PK\x06\x06": [
        (4, 8),
        (12, 2),
        (14, 2),
        (16, 4),
        (20, 4),
        *((at, 8) for at in (24, 32, 40, 48)),
    ],
    b"PK\x06\x07": [(4, 4), (8, 8), (16, 4)],
    b"PK\x07\x08": [(4, 4), (8, 4), (12, 4)],
}
OPCODES = [ord(one.code) for one in pickletools.opcodes]


def originals() -> dict[str, bytes]:
    """Return whole files of every kind, small, by their names."""
    import torch
    from safetensors.numpy import save

    torch.manual_seed(0)
    base = torch.arange(24.0).reshape(4, 6)
    state = OrderedDict(
        [("weight", torch.rand(3, 2)), ("t", base.T), ("part", base[1:3, ::2]), ("none", base[:0])],
        steps=torch.tensor(3), half=torch.ones(2).half(), brain=torch.ones(3).bfloat16(),
        truth=torch.tensor([True, False]), doubles=torch.rand(2).double(), bytes=base.byte(),
    )  # fmt: skip
    parameters = dict(torch.nn.Linear(2, 2).named_parameters())
    checkpoint = {"epoch": 3, "state_dict": parameters, "lr": 0.5, "rest": [state["steps"]]}
    files = {}
    for name, content in {"state": state, "few": parameters, "checkpoint": checkpoint}.items():
        target = io.BytesIO()
        torch.save(content, target)
        files[f"{name}.pt"] = target.getvalue()
    target = io.BytesIO()
    torch.save({"w": base}, target, _use_new_zipfile_serialization=False)
    files["legacy.pt"] = target.getvalue()
    arrays = {
        "x": np.arange(12).reshape(3, 4),
        "y": np.array([1.5, -2], ">f4"),
        "t": np.array("ab"),
    }
    for save_npz in (np.savez, np.savez_compressed):
        target = io.BytesIO()
        save_npz(target, **arrays)
        files[f"{save_npz.__name__}.npz"] = target.getvalue()
    for name, array in {**arrays, "f": np.asfortranarray(arrays["x"])}.items():
        target = io.BytesIO()
        np.save(target, array)
        files[f"{name}.npy"] = target.getvalue()
    for protocol in range(6):
        content = {"x": arrays["x"], b"l": [1, 2], "p": (arrays["y"], np.float32(2)), "n": ["a"]}
        files[f"p{protocol}.pkl"] = pickle.dumps(content, protocol=protocol)
    tensors = {
        "a": np.ones((2, 3), np.float32),
        "b": np.arange(4),
        "c": np.zeros((0, 2), np.float16),
    }
    files["a.safetensors"] = save(tensors, metadata={"format": "pt", "note": "none"})
    return files


def changed(name: str, data: bytes, rng: random.Random) -> bytes:
    """Return the file with one to three changes, of which some know its format."""
    zipped = data[:2] == b"PK"
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        ways = [_bits, _bytes, _splice]
        if data[:2] == b"PK":
            ways += [_field, _field, _field, _record]
        if name.endswith(".pkl"):
            ways += [_opcode] * 4
        if name.endswith((".npy", ".safetensors")):
            ways += [_header] * 3
        data = rng.choice(ways)(data, rng)
    if zipped and rng.random() < 0.5:
        data = _mended(data)
    if name.endswith(".pt") and rng.random() < 0.5:
        with contextlib.suppress(Exception):
            data = _rewritten(data, rng)
    return data


def _bits(data: bytes, rng: random.Random) -> bytes:
    if not data:
        return b"P"
    result = bytearray(data)
    for _ in range(rng.choice((1, 1, 2))):
        result[rng.randrange(len(result))] ^= 1 << rng.randrange(8)
    return bytes(result)


def _bytes(data: bytes, rng: random.Random) -> bytes:
    at, length = rng.randrange(len(data) or 1), rng.randrange(1, 9)
    value = rng.choice((b"\0", b"\xff", rng.randbytes(1))) * length
    return data[:at] + value + data[at + rng.choice((0, length)) :]


def _splice(data: bytes, rng: random.Random) -> bytes:
    start, length = rng.randrange(len(data) or 1), rng.randrange(1, 200)
    piece, at = data[start : start + length], rng.randrange(len(data) + 1)
    match rng.randrange(4):
        case 0:
            return data[:at] + piece + data[at:]
        case 1:
            return data[:at] + piece + data[at + len(piece) :]
        case 2:
            return data[:start] + data[start + length :]
    return data[: max(1, len(data) - length)] if rng.random() < 0.5 else data + piece


def _field(data: bytes, rng: random.Random) -> bytes:
    """Give a field of a zip record another value, at times wherever else the old one stands."""
    places = [
        (one.start(), one.group()) for one in re.finditer(b"PK(?:[\1\3\5\6\7])[\2\4\6\7\10]", data)
    ]
    at, magic = rng.choice([one for one in places if one[1] in RECORDS] or [(0, b"PK\x03\x04")])
    offset, size = rng.choice(RECORDS[magic])
    place = at + offset
    old = int.from_bytes(data[place : place + size], "little")
    value = rng.choice(
        (0, 1, 8, 0x10, 0xFFFF, 0xFFFFFFFF, old ^ 1 << rng.randrange(8 * size), old + 1, old - 1,
         rng.choice(places)[0] if places else 0, len(data), rng.getrandbits(8 * size))
    ) % (1 << 8 * size)  # fmt: skip
    if size > 1 and old > 2 and rng.random() < 0.3:
        return data.replace(old.to_bytes(size, "little"), value.to_bytes(size, "little"))
    return data[:place] + value.to_bytes(size, "little") + data[place + size :]


def _record(data: bytes, rng: random.Random) -> bytes:
    """Say something twice, leave it out, or give a file another name."""
    places = [one.start() for one in re.finditer(b"PK[\1\3\5\6\7]", data)] + [len(data)]
    if len(places) == 1:  # another change took the last mark
        return data
    start = rng.randrange(len(places) - 1)
    piece = data[places[start] : places[start + 1]]
    at = rng.choice(places)
    match rng.randrange(4):
        case 0:
            return data[:at] + piece + data[at:]
        case 1:
            return data[: places[start]] + data[places[start + 1] :]
        case 2:
            return data[:-22] + piece + data[-22:]
    old, new = rng.choice(
        ((b"data/0", b"data/1"), (b"data.pkl", b"DATA.pkl"), (b"x.npy", b"y.npy"),
         (b"data/", b"data\0"), (b"/data/1", b"//data1"), (b"version", b"Version"),
         (b".npy", b"/npy"))
    )  # fmt: skip
    return data.replace(old, new, rng.choice((1, -1)))


def _opcode(data: bytes, rng: random.Random) -> bytes:
    """Change a pickle between two of its opcodes, or in the argument of one."""
    places = []
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        places.extend(place for _, _, place in pickletools.genops(data))
    if len(places) < 2:
        return _bits(data, rng)
    one, two = sorted(rng.sample(range(len(places)), 2))
    start, end = places[one], places[min(one + 1, len(places) - 1)]
    piece, at = data[start:end], places[two]
    match rng.randrange(6):
        case 0:
            return data[:start] + bytes([rng.choice(OPCODES)]) + data[start + 1 :]
        case 1:
            return data[:start] + data[end:]
        case 2:
            return data[:at] + piece + data[at:]
        case 3:
            other = data[at : places[min(two + 1, len(places) - 1)]]
            return data[:start] + other + data[end:at] + piece + data[at + len(other) :]
        case 4:
            number = rng.choice(
                (b"K\0", b"K\1", b"K\2", b"M\0\1", b"J\xff\xff\xff\xff", b"\x88", b"N", b")")
            )
            return data[:start] + number + data[end:]
    inside = rng.randrange(start, end)
    return (
        data[:inside]
        + bytes([rng.choice((0, 1, 2, 3, 255, rng.randrange(256)))])
        + data[inside + 1 :]
    )


def _header(data: bytes, rng: random.Random) -> bytes:
    """Change a number or a word of a header of text."""
    found = [one.span() for one in re.finditer(rb"\d+|[\w<>]+|[{}()\[\]:,]", data[:300])]
    start, end = rng.choice(found or [(0, 1)])
    value = rng.choice(
        (b"0", b"1", b"-0", b"-1", b"2", b"12", b"16", b"1e1", b"1.0", b"4294967296", b"F32",
         b"I64", b"true", b"NaN", b"<f4", b">f8", b"|O", b"|b1", b"True", b"'x'", b'"a"', b"",
         b",", b"\\ud800", b"L")
    )  # fmt: skip
    wanted = data[:start] + value + data[end:]
    if rng.random() < 0.7 and (short := end - start - len(value)):
        at = data.find(b"\n") if data[:1] == b"\x93" else data.find(b"}}") + 2
        if short > 0:
            return wanted[: at - short] + b" " * short + wanted[at - short :]
        if data[:1] != b"\x93":
            length = int.from_bytes(data[:8], "little") - short
            return (length % (1 << 64)).to_bytes(8, "little") + wanted[8:]
    return wanted


def _mended(data: bytes) -> bytes:
    """Return the archive with the CRC of every stored file made right again."""
    with contextlib.suppress(Exception), zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in archive.infolist():
            name, extra = struct.unpack_from("<2H", data, info.header_offset + 26)
            start = info.header_offset + 30 + name + extra
            if info.compress_type == 0 and info.file_size:
                right = struct.pack("<L", zlib.crc32(data[start : start + info.file_size]))
                data = data.replace(struct.pack("<L", info.CRC), right)
    return data


def _rewritten(data: bytes, rng: random.Random) -> bytes:
    """Return a torch file as torch's own writer makes it of a changed pickle."""
    import torch

    target = io.BytesIO()
    writer = torch._C.PyTorchFileWriter(target)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in archive.infolist():
            name, content = info.filename.partition("/")[2], archive.read(info)
            if name == "data.pkl":
                for _ in range(rng.choice((1, 1, 2))):
                    content = rng.choice((_opcode, _opcode, _bits))(content, rng)
            elif name.startswith("data/") and rng.random() < 0.02:
                content = _splice(content or b"1", rng)
            if name not in ("version", ".data/serialization_id"):
                writer.write_record(name, content, len(content))
    writer.write_end_of_file()
    return target.getvalue()
