"""The IDX format of MNIST, read as input from strangers.

At most a byte more than the header claims, which has a cap, is ever read or decompressed.
"""

import gzip
import math
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

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
MAX_BYTES = 1 << 30  # largest array that is read by default; MNIST's largest is 47 MB
BYTES = b"\0\0\x08"  # how a file of uint8 begins; the number of dimensions follows
WIDE = b"\0\0\x0c"  # one of int32: labels alone, where there are more classes than a byte counts
DIMENSIONS = {1: "labels", 3: "grey images", 4: "images with channels"}
CHUNK = 1 << 20


@dataclass(frozen=True, eq=False)
class IdxFile:
    """What an IDX file holds, with the digest of exactly the bytes that were read."""

    path: Path
    array: NDArray[Any]
    digest: str  # SHA-256 of the content after decompression, header included


def find_idx(folder: Path, name: str) -> Path:
    """Return the path of one of the `IDX_FILES`: as named, with .gz, or spelled with a dot."""
    bases = (name, name.replace("-idx", ".idx"))
    for path in (folder / f"{base}{end}" for base in bases for end in ("", ".gz")):
        if path.is_file():
            return path
    raise DataError(f"{folder}: holds no {name} (nor {name}.gz)")


def has_idx(folder: Path) -> bool:
    """Say whether a folder holds the first of the four files, and so should hold them all."""
    with suppress(DataError):
        return find_idx(folder, IDX_FILES[0]).is_file()
    return False


def open_idx(path: Path, *, max_bytes: int = MAX_BYTES) -> IdxFile:
    """Read an IDX file, raw or gzip-compressed by its content, whatever its name says."""
    try:
        with path.open("rb") as file:
            compressed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            stream = cast("IO[bytes]", gzip.GzipFile(fileobj=file) if compressed else file)
            magic = _read(stream, 4)
            wide = magic == WIDE + b"\1"
            if not wide and (magic[:3] != BYTES or magic[3:] not in [*map(_byte, DIMENSIONS)]):
                wanted = "no IDX file of bytes (0x08) with 1, 3 or 4 dimensions"
                raise DataError(f"{path}: {wanted}: it begins with {magic.hex() or 'nothing'}")
            sizes = _read(stream, 4 * magic[3])
            if len(sizes) < 4 * magic[3]:
                raise DataError(f"{path}: truncated in its header after {4 + len(sizes)} bytes")
            shape = tuple(np.frombuffer(sizes, ">u4").tolist())
            if (expected := math.prod(shape) * (4 if wide else 1)) > max_bytes:
                raise DataError(f"{path}: declares {expected} bytes, at most {max_bytes} are read")
            body = _read(stream, expected + 1)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path}: damaged gzip file: {error}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    if len(body) < expected:
        raise DataError(f"{path}: truncated: expected {expected} bytes, found {len(body)}")
    if len(body) > expected:
        raise DataError(f"{path}: oversized: expected {expected} bytes, found more")
    array = np.frombuffer(body, ">i4" if wide else np.uint8).reshape(shape)
    return IdxFile(path, array, sha256_bytes(magic, sizes, body))


def read_four(folder: Path) -> tuple[dict[str, IdxFile], ImageSet, ImageSet]:
    """Return the four files of a folder, and the images of its training and of its test files."""
    files = {name: open_idx(find_idx(folder, name)) for name in IDX_FILES}
    first, second, third, fourth = files.values()
    return files, image_set(first, second), image_set(third, fourth)


def image_set(images: IdxFile, labels: IdxFile) -> ImageSet:
    """Join two read files to an image set; refuse those that do not belong together."""
    if images.array.ndim == 1 and labels.array.ndim > 1:
        raise DataError(f"{images.path} holds labels and {labels.path} images: they are swapped")
    for file, wanted in ((images, (3, 4)), (labels, (1,))):
        if (holds := file.array.ndim) not in wanted:
            expected = DIMENSIONS[wanted[0]]
            raise DataError(f"{file.path}: holds {DIMENSIONS[holds]}, expected {expected}")
    if len(images.array) != len(labels.array):
        counts = f"{len(images.array)} images, but {labels.path} {len(labels.array)} labels"
        raise DataError(f"{images.path} holds {counts}")
    pixels = images.array if images.array.ndim == 4 else images.array[..., None]
    return ImageSet(pixels, labels.array.astype(np.int64))


def write_idx(path: Path, array: NDArray[Any]) -> None:
    """Write an array as IDX, compressed where the name ends in .gz; same array, same bytes."""
    wide = array.dtype == np.int32 and array.ndim == 1
    if not wide and (array.dtype != np.uint8 or array.ndim not in DIMENSIONS):
        raise DataError(f"{path}: cannot write {array.dtype} {array.shape} as IDX")
    header = (WIDE if wide else BYTES) + _byte(array.ndim)
    header += np.asarray(array.shape, ">u4").tobytes()
    content = header + np.ascontiguousarray(array, ">i4" if wide else np.uint8).tobytes()
    if path.suffix != ".gz":
        path.write_bytes(content)
        return
    with path.open("wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
        packed.write(content)


def _byte(number: int) -> bytes:
    return bytes([number])


def _read(stream: IO[bytes], count: int) -> bytes:
    """Read up to `count` bytes piece by piece, so that memory follows what is there."""
    parts: list[bytes] = []
    while count > 0 and (part := stream.read(min(count, CHUNK))):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
