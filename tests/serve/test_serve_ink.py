"""What is clearly no digit, told from its ink."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from purpleteam.serve.engine import refuse

STROKE = np.zeros((28, 28), np.uint8)
STROKE[4:24, 13:15] = 255
RNG = np.random.default_rng(0)


def test_a_stroke_may_be_a_digit() -> None:
    assert refuse(STROKE) is None


@pytest.mark.parametrize("level", [0, 31])
def test_a_blank_image_is_empty(level: int) -> None:
    assert refuse(np.full((28, 28), level, np.uint8)) == "empty"


@pytest.mark.parametrize("level", [32, 100, 128, 200, 255])
def test_an_even_image_is_no_digit(level: int) -> None:
    assert refuse(np.full((28, 28), level, np.uint8)) == "not_a_digit"


@pytest.mark.parametrize("share", [0.01, 0.05, 0.1, 0.25, 0.5, 0.9])
def test_noise_is_no_digit(share: float) -> None:
    images = ((RNG.random((50, 28, 28)) < share) * 255).astype(np.uint8)
    assert {refuse(image) for image in images} == {"not_a_digit"}


def test_grey_noise_is_no_digit() -> None:
    images = RNG.integers(0, 256, (50, 28, 28), dtype=np.uint8)
    assert {refuse(image) for image in images} == {"not_a_digit"}


def test_an_inverted_digit_is_no_digit() -> None:
    assert refuse(255 - STROKE) == "not_a_digit"


def test_a_line_from_edge_to_edge_is_no_digit() -> None:
    line = np.zeros((28, 28), np.uint8)
    line[:, 13:15] = 255
    assert refuse(line) == "not_a_digit"


def test_a_digit_may_lie_anywhere() -> None:
    for shift in (-4, 4):
        assert refuse(np.roll(STROKE, (shift, shift), (0, 1))) is None


def by_arrays(image: NDArray[np.uint8]) -> str | None:
    """The same rules as array operations, which anybody can read and which take longer."""
    ink = image >= 128
    if not 0.01 <= ink.mean() <= 0.35:
        return "empty" if image.max() < 32 else "not_a_digit"
    reach = [np.ptp(np.flatnonzero(ink.any(axis))) + 1 for axis in (0, 1)]
    beside = (ink[:, 1:] & ink[:, :-1]).sum() + (ink[1:] & ink[:-1]).sum()
    return "not_a_digit" if max(reach) > 24 or 2 * beside / ink.sum() < 1.3 else None


@given(
    strokes=st.lists(st.tuples(*[st.integers(0, 27)] * 2, *[st.integers(1, 28)] * 2), max_size=6),
    level=st.integers(0, 255),
    noise=st.sampled_from([0.0, 0.0, 0.02, 0.2]),
)
def test_the_rules_are_those_of_array_operations(
    strokes: list[tuple[int, int, int, int]], level: int, noise: float
) -> None:
    image = ((RNG.random((28, 28)) < noise) * 200).astype(np.uint8)
    for top, left, height, width in strokes:
        image[top : top + height, left : left + width] = level
    assert refuse(image) == by_arrays(image)


@pytest.mark.mnist
def test_the_rules_let_999_of_1000_mnist_digits_through() -> None:
    folder = Path(os.environ.get("PURPLETEAM_DATA", "")) / "mnist"
    file = folder / "t10k-images-idx3-ubyte.gz"
    if not file.exists():
        pytest.skip("needs MNIST under PURPLETEAM_DATA")
    images = np.frombuffer(gzip.decompress(file.read_bytes()), np.uint8, offset=16)
    refused = [image for image in images.reshape(-1, 28, 28) if refuse(image)]
    assert len(refused) <= 10
