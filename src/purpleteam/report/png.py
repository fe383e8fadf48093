"""A PNG writer on zlib alone.

The bytes are a function of the pixels only: no time, no text, one filter, one compression level.
"""

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.errors import DataError

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write uint8 pixels, (H, W) grey or (H, W, 3) colour, as a PNG file."""
    path.write_bytes(encode_png(pixels))


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Return uint8 pixels, (H, W) grey or (H, W, 3) colour, as the bytes of a PNG file."""
    shape, colour = pixels.shape, pixels.ndim == 3 and pixels.shape[2] == 3
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or colour) or 0 in shape:
        wanted = "uint8 pixels of shape (H, W) or (H, W, 3)"
        raise DataError(f"a PNG needs {wanted}, not {pixels.dtype} {shape}")
    header = struct.pack(">IIBBBBB", shape[1], shape[0], 8, 2 if colour else 0, 0, 0, 0)
    lines = np.ascontiguousarray(pixels).reshape(shape[0], -1)
    unfiltered = np.pad(lines, ((0, 0), (1, 0)))  # (H, 1 + W * channels); filter 0 before each line
    body = zlib.compress(unfiltered.tobytes(), 9)
    content = SIGNATURE
    for name, chunk in ((b"IHDR", header), (b"IDAT", body), (b"IEND", b"")):
        checksum = struct.pack(">I", zlib.crc32(name + chunk))
        content += struct.pack(">I", len(chunk)) + name + chunk + checksum
    return content


def png_size(content: bytes) -> tuple[int, int] | None:
    """Return width and height of a PNG file, or None where the bytes are none."""
    if len(content) < 33 or not content.startswith(SIGNATURE) or content[12:16] != b"IHDR":
        return None
    width, height = struct.unpack(">II", content[16:24])
    return int(width), int(height)
