"""A file as bytes, and what it is by its content; its name is only a claim."""

import mmap
import zlib
from pathlib import Path

from purpleteam.scan.formats.onnx import looks_like_onnx
from purpleteam.scan.formats.pickles import walk_pickle
from purpleteam.scan.formats.zip_layout import END

MODEL_SUFFIXES: dict[str, tuple[str, ...]] = {
    ".safetensors": ("safetensors",),
    ".onnx": ("onnx",),
    **dict.fromkeys((".pt", ".pth"), ("zip", "pickle", "tar")),
    ".ckpt": ("zip", "pickle", "hdf5"),
    ".bin": ("zip", "pickle"),
    **dict.fromkeys((".pkl", ".pickle"), ("pickle",)),
    ".joblib": ("pickle",),
    **dict.fromkeys((".h5", ".hdf5"), ("hdf5",)),
    **dict.fromkeys((".keras", ".npz", ".mar", ".skops"), ("zip",)),
    ".nemo": ("tar",),
    ".npy": ("numpy",),
    **dict.fromkeys((".tflite", ".gguf"), ()),
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
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"version https://git-lfs.": "git-lfs pointer",
    **dict.fromkeys((b"x\x01", b"x\x5e", b"x\x9c", b"x\xda"), "zlib"),
}
CLOSED = frozenset({"hdf5", "7z", "rar", "zstd", "lz4"})
"""What may hold a model and is not opened."""
MAX_HEAD = 512
MAX_OPCODES = 100_000


def mapped(path: Path) -> memoryview:
    """Return the bytes of a file, mapped into memory once: every reader sees the same ones."""
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def sniff(path: Path) -> str:
    """Return the kind of the content: a model's, a container's, `empty`, `text` or `unknown`."""
    return kind_of(mapped(path), claims_model=path.suffix.lower() in MODEL_SUFFIXES)


def kind_of(data: memoryview, *, claims_model: bool) -> str:
    """Return the kind of the content, of which the whole counts."""
    head = bytes(data[:MAX_HEAD])
    if not head:
        return "empty"
    for magic, kind in MAGIC.items():
        if head.startswith(magic) and (kind != "zlib" or _inflates(head)):
            return kind
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= len(data) - 8:
        return "safetensors"
    walk = walk_pickle(data, limit=MAX_OPCODES)
    if head[257:262] == b"ustar":
        return "pickle" if walk.calls_a_name else "tar"
    if head[0] == 0x80:
        if walk.error is None or walk.imports or walk.opcodes == MAX_OPCODES or claims_model:
            return "pickle"
    # One of protocol 0 or 1 begins with no mark. It must call something, as every text that begins
    # with a full stop would be one; or have more opcodes than any text.
    elif walk.opcodes == MAX_OPCODES or walk.calls_a_name:
        return "pickle"
    if head[0] == 0x08 and looks_like_onnx(data):
        return "onnx"
    if bytes(data[-END.size :]).startswith(b"PK\x05\x06"):
        return "zip"  # something lies in front of it
    try:
        head[:-3].decode("utf-8")
    except UnicodeDecodeError:
        return "unknown"
    return "unknown" if b"\x00" in head else "text"


def _inflates(head: bytes) -> bool:
    try:
        zlib.decompressobj().decompress(head, MAX_HEAD)
    except zlib.error:
        return False
    return True
