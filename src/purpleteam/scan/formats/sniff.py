"""A file as bytes, and what it is by its content; its name is only a claim."""

import mmap
import tarfile
from collections.abc import Iterator
from pathlib import Path

from purpleteam.scan.formats.containers import BROKEN, STREAMS
from purpleteam.scan.formats.onnx import looks_like_onnx
from purpleteam.scan.formats.walk import MAX_WALK, walk_pickle
from purpleteam.scan.formats.zip_layout import END, MAX16

MODEL_SUFFIXES: dict[str, tuple[str, ...]] = {
    ".safetensors": ("safetensors",),
    ".onnx": ("onnx",),
    **dict.fromkeys((".pt", ".pth"), ("zip", "pickle", "tar")),
    ".ckpt": ("zip", "pickle", "hdf5"),
    ".bin": ("zip", "pickle"),
    **dict.fromkeys((".pkl", ".pickle", ".dill"), ("pickle",)),
    ".joblib": ("pickle",),
    **dict.fromkeys((".h5", ".hdf5"), ("hdf5",)),
    **dict.fromkeys((".keras", ".npz", ".mar", ".skops", ".pt2"), ("zip",)),
    ".nemo": ("tar",),
    ".npy": ("numpy",),
    **dict.fromkeys((".tflite", ".gguf", ".pb", ".ort", ".mlmodel", ".engine", ".llamafile"), ()),
}
"""Names that claim to be a model, and the kinds of content that such a name may have."""
MODEL_KINDS = frozenset({"safetensors", "onnx", "pickle", "zip", "numpy", "hdf5", "tar", "7z"})
MAGIC = {
    **dict.fromkeys((b"PK\x03\x04", b"PK\x05\x06"), "zip"),
    b"\x93NUMPY": "numpy",
    b"\x89HDF\r\n\x1a\n": "hdf5",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"\x1f\x8b": "gzip",
    b"BZh": "bz2",
    b"\xfd7zXZ\x00": "xz",
    b"Rar!\x1a\x07": "rar",
    **dict.fromkeys((b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"MZ\x90\0"), "native"),
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"version https://git-lfs.": "git-lfs pointer",
    **dict.fromkeys((b"x\x01", b"x\x5e", b"x\x9c", b"x\xda"), "zlib"),
}
CLOSED = frozenset({"hdf5", "7z", "rar", "zstd", "lz4"})
"""What may hold a model and is not opened."""
MAX_HEAD = 512
MAX_MARKED = 100_000  # opcodes behind the mark of a protocol


def mapped(path: Path) -> memoryview:
    """Return the bytes of a file, mapped into memory once: every reader sees the same ones."""
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def kind_of(data: memoryview, *, claims_model: bool) -> str:
    """Return the kind: a model's, a container's, `empty`, `text` or `unknown`; all of it counts."""
    head = bytes(data[:MAX_HEAD])
    if not head:
        return "empty"
    for magic, kind in MAGIC.items():
        if head.startswith(magic) and (kind != "zlib" or _unpacks(head, kind)):
            return kind
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= len(data) - 8:
        return "safetensors"
    walk = walk_pickle(data, limit=MAX_MARKED if head[0] == 0x80 else MAX_WALK)
    if _is_tar(head):
        return "tar"
    if head[0] == 0x80:
        if walk.error is None or walk.imports or walk.opcodes == MAX_MARKED or claims_model:
            return "pickle"
    # One of protocol 0 or 1 begins with no mark. It must call something, as every text that begins
    # with a full stop would be one; or be all of a file that claims to be one.
    elif walk.calls_a_name or (claims_model and not walk.error and walk.end == len(data)):
        return "pickle"
    if head[0] == 0x08 and looks_like_onnx(data):
        return "onnx"
    if _is_zip(data):
        return "zip"  # something lies in front of it
    if head[17:] and int.from_bytes(head[1:5], "little") >= 4096 and _unpacks(head, "xz"):
        return "xz"  # LZMA of before it has no mark, and asks for 4 KiB or more
    try:
        head[:-3].decode("utf-8")
    except UnicodeDecodeError:
        return "unknown"
    return "unknown" if b"\x00" in head else "text"


def other_kinds(data: memoryview, kind: str) -> Iterator[str]:
    """Yield as what else than its kind the same bytes load: torch.load tries tar, then pickle."""
    # What a zip archive begins with asks a pickle's reader for something that only torch gives.
    if kind not in ("pickle", "text", "unknown", "zip") and walk_pickle(data).calls_a_name:
        yield "pickle that calls something"
    if kind != "zip" and _is_zip(data):
        yield "zip archive"
    if kind != "tar" and _is_tar(bytes(data[:MAX_HEAD])):
        yield "tar archive"


def _is_tar(head: bytes) -> bool:
    try:
        return any(head) and bool(tarfile.TarInfo.frombuf(head, "utf-8", "replace"))
    except tarfile.HeaderError:
        return False


def _is_zip(data: memoryview) -> bool:
    """Return whether readers that begin at the end find a directory of an archive there."""
    tail = bytes(data[-END.size - MAX16 :])
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < END.size:
        return False
    *_, size, _, comment = END.unpack_from(tail, at)
    first = len(data) - len(tail) + at - size
    return (
        at + END.size + comment <= len(tail)
        and first >= 0
        and (bytes(data[first : first + 4]) == b"PK\x01\x02" or not size)
    )


def _unpacks(head: bytes, kind: str) -> bool:
    try:
        STREAMS[kind]().decompress(head, MAX_HEAD)
    except BROKEN as error:
        return "limit" in str(error)  # of memory
    return True
