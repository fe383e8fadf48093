"""Feature squeezing flags what owes its answer to faint grey levels."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import median_filter

from purpleteam.core.errors import UsageError
from purpleteam.defences.detection.squeeze import distances, fit_squeeze, median, one_bit

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (6, 28, 28, 1), np.uint8)


def by_faint_ink(images: np.ndarray) -> np.ndarray:
    """Answer 1 where much is faintly grey, else 0: a net that sees what people do not."""
    share = ((images > 10) & (images < 100)).mean((1, 2, 3))
    return np.stack([1 - share, share], 1)


def strokes(count: int, faint: int = 0) -> np.ndarray:
    """Strokes of full ink at random places, on a background of one grey level."""
    images = np.full((count, 28, 28, 1), faint, np.uint8)
    for image, column in zip(images, RNG.integers(4, 20, count), strict=True):
        image[4:24, column : column + 3] = 255
    return images


def test_median_is_that_of_scipy() -> None:
    theirs = [median_filter(image[..., 0], size=2, mode="nearest") for image in NOISE]
    assert np.array_equal(median(NOISE)[..., 0], np.stack(theirs))


def test_one_bit_is_black_or_white() -> None:
    assert set(np.unique(one_bit(NOISE))) == {0, 255}
    assert np.array_equal(one_bit(NOISE) == 255, NOISE >= 128)


def test_faint_grey_that_makes_the_answer_lies_far_and_clean_strokes_near() -> None:
    most = fit_squeeze(by_faint_ink, strokes(400))
    assert (distances(by_faint_ink, strokes(20)) <= most).all()
    assert (distances(by_faint_ink, strokes(20, faint=50)) > most).all()


def test_at_most_the_stated_share_of_the_trusted_lies_beyond() -> None:
    images = RNG.integers(0, 256, (400, 28, 28, 1), np.uint8)
    most = fit_squeeze(by_faint_ink, images, 0.05)
    assert 0 < (distances(by_faint_ink, images) > most).sum() <= 20


def test_distances_are_at_most_two() -> None:
    def turned(images: np.ndarray) -> np.ndarray:
        first = (images.max((1, 2, 3)) < 100).astype(float)
        return np.stack([first, 1 - first], 1)

    assert distances(turned, strokes(1)).tolist() == [0.0]
    assert distances(turned, np.full((1, 28, 28, 1), 200, np.uint8)).tolist() == [0.0]
    lit = np.zeros((1, 28, 28, 1), np.uint8)
    lit[0, 5, 5] = 255  # one pixel, which the median takes away
    assert distances(turned, lit).tolist() == [2.0]


def test_too_few_trusted_images_are_refused() -> None:
    with pytest.raises(UsageError, match="needs 199 trusted images, not 100"):
        fit_squeeze(by_faint_ink, strokes(100))
