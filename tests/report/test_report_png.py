"""PNG files with zlib alone: what is written can be read, and its bytes never vary."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays
from PIL import Image

from purpleteam.core.errors import DataError
from purpleteam.report.png import encode_png, png_size, write_png


@given(arrays(np.uint8, (3, 5)) | arrays(np.uint8, (4, 2, 3)))
def test_pixels_survive_the_file(pixels: np.ndarray) -> None:
    read = np.asarray(Image.open(io.BytesIO(encode_png(pixels))))
    assert np.array_equal(read, pixels)


def test_the_bytes_are_a_function_of_the_pixels(tmp_path: Path) -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    write_png(tmp_path / "a.png", pixels)
    write_png(tmp_path / "b.png", np.asfortranarray(pixels))
    first = (tmp_path / "a.png").read_bytes()
    assert first == (tmp_path / "b.png").read_bytes()
    assert (
        hashlib.sha256(first).hexdigest()[:8] == hashlib.sha256(encode_png(pixels)).hexdigest()[:8]
    )


def test_the_size_is_read_from_the_header() -> None:
    assert png_size(encode_png(np.zeros((3, 7), np.uint8))) == (7, 3)
    assert png_size(b"GIF89a" + bytes(40)) is None


@pytest.mark.parametrize(
    "pixels", [np.zeros((2, 2)), np.zeros((2, 2, 4), np.uint8), np.zeros((0, 2), np.uint8)]
)
def test_other_arrays_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(DataError, match="a PNG needs uint8 pixels"):
        encode_png(pixels)
