"""The IDX format of MNIST, read as input from strangers: sized before it is unpacked.

The header says how many bytes follow. At most one more than that is ever read or decompressed,
so a bomb stops at the size that its own header admits, and that size has a cap.
"""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.digest import sha256_bytes
from purpleteam.core.errors import DataError
from purpleteam.data.images import ImageSet

IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
"""The four files of a dataset: MNIST's names, which other sets have taken over."""

MAX_BYTES = 1 << 30
"""Largest array that is read unless the caller allows more (MNIST's largest is 47 MB)."""
GZIP_MAGIC = b"\x1f\x8b"
UINT8 = 0x08
DIMENSIONS = {1: "labels", 3: "grey images", 4: "images with channels"}
CHUNK = 1 << 20


@dataclass(frozen=True, eq=False)
class IdxFile:
    """What an IDX file holds, with the digest of exactly the bytes that were read."""

    path: Path
    array: NDArray[np.uint8]
    digest: str
    """SHA-256 of the content after decompression, header included."""


def find_idx(folder: Path, name: str) -> Path:
    """Return the path of one of the `IDX_FILES`: as named, with .gz, or spelled with a dot."""
    for base in (name, name.replace("-idx", ".idx")):
        for path in (folder / base, folder / f"{base}.gz"):
            if path.is_file():
                return path
    raise DataError(f"{folder}: holds no {name} (nor {name}.gz)")


def has_idx(folder: Path) -> bool:
    """Say whether a folder holds the first of the four files, and so should hold them all."""
    try:
        return find_idx(folder, IDX_FILES[0]).is_file()
    except DataError:
        return False


def open_idx(path: Path, *, max_bytes: int = MAX_BYTES) -> IdxFile:
    """Read an IDX file, raw or gzip-compressed by its content, whatever its name says.

    Raises:
        DataError: the file is missing, damaged, too large or no IDX file of uint8.
    """
    try:
        with path.open("rb") as file:
            compressed = file.read(2) == GZIP_MAGIC
            file.seek(0)
            stream = cast("IO[bytes]", gzip.GzipFile(fileobj=file) if compressed else file)
            header, shape = _read_header(stream, path)
            body = _read_body(stream, path, shape, max_bytes)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path}: damaged gzip file: {error}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    array = np.frombuffer(body, np.uint8).reshape(shape)
    return IdxFile(path, array, sha256_bytes(header, body))


def image_set(images: IdxFile, labels: IdxFile, *, classes: int | None = None) -> ImageSet:
    """Join two read files to an image set; refuse those that do not belong together."""
    if images.array.ndim == 1 and labels.array.ndim > 1:
        raise DataError(f"{images.path} holds labels and {labels.path} images: they are swapped")
    for file, wanted in ((images, (3, 4)), (labels, (1,))):
        if file.array.ndim not in wanted:
            raise DataError(
                f"{file.path}: holds {DIMENSIONS[file.array.ndim]}, "
                f"expected {DIMENSIONS[wanted[0]]}"
            )
    if len(images.array) != len(labels.array):
        raise DataError(
            f"{images.path} holds {len(images.array)} images, "
            f"but {labels.path} {len(labels.array)} labels"
        )
    largest = int(labels.array.max(initial=0))
    if classes is not None and largest >= classes:
        raise DataError(f"{labels.path}: label {largest} found, expected 0 to {classes - 1}")
    pixels = images.array if images.array.ndim == 4 else images.array[..., None]
    return ImageSet(pixels, labels.array.astype(np.int64))


def write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    """Write an array as IDX, compressed where the name ends in .gz; same array, same bytes."""
    if array.dtype != np.uint8 or array.ndim not in DIMENSIONS:
        raise DataError(f"{path}: cannot write {array.dtype} {array.shape} as IDX")
    header = bytes([0, 0, UINT8, array.ndim]) + np.asarray(array.shape, ">u4").tobytes()
    content = header + np.ascontiguousarray(array).tobytes()
    if path.suffix != ".gz":
        path.write_bytes(content)
        return
    with (
        path.open("wb") as file,
        gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed,
    ):
        packed.write(content)


def _read_header(stream: IO[bytes], path: Path) -> tuple[bytes, tuple[int, ...]]:
    magic = _read(stream, 4)
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise DataError(f"{path}: no IDX file: it begins with {magic.hex() or 'nothing'}")
    kind, dimensions = magic[2], magic[3]
    if kind != UINT8 or dimensions not in DIMENSIONS:
        raise DataError(
            f"{path}: IDX type 0x{kind:02x} with {dimensions} dimensions, "
            f"expected type 0x08 (uint8) with {', '.join(map(str, DIMENSIONS))}"
        )
    sizes = _read(stream, 4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise DataError(f"{path}: truncated in its header after {4 + len(sizes)} bytes")
    return magic + sizes, tuple(int(size) for size in np.frombuffer(sizes, ">u4"))


def _read_body(stream: IO[bytes], path: Path, shape: tuple[int, ...], max_bytes: int) -> bytes:
    expected = math.prod(shape)
    if expected > max_bytes:
        raise DataError(f"{path}: declares {expected} bytes, at most {max_bytes} are read")
    body = _read(stream, expected + 1)
    if len(body) < expected:
        raise DataError(f"{path}: truncated: expected {expected} bytes, found {len(body)}")
    if len(body) > expected:
        raise DataError(f"{path}: oversized: expected {expected} bytes, found more")
    return body


def _read(stream: IO[bytes], count: int) -> bytes:
    """Read up to `count` bytes piece by piece, so that memory follows what is really there."""
    parts: list[bytes] = []
    while count > 0 and (part := stream.read(min(count, CHUNK))):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
