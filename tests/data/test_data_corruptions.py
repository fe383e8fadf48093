"""Corruptions of images: seeded, graded, for any size and colour, and each what it says it is."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from purpleteam.core.errors import UsageError
from purpleteam.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from purpleteam.data.sources.digits import load_digits

Images = NDArray[np.uint8]


@pytest.fixture(scope="module")
def digits() -> Images:
    return load_digits().test.images[:16]


def coloured(size: tuple[int, int]) -> Images:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (3, *size, 3), np.uint8)


def how_far(changed: Images, images: Images) -> float:
    return float(np.abs(changed.astype(float) - images).mean())


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_it_changes_the_image_and_not_the_original(kind: str, digits: Images) -> None:
    before = digits.copy()
    changed = corrupt(digits, kind, 3)
    assert changed.dtype == np.uint8 and changed.shape == digits.shape
    assert np.array_equal(digits, before)
    assert (changed != digits).any((1, 2, 3)).all()


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_severer_one_goes_further(kind: str, digits: Images) -> None:
    far = [how_far(corrupt(digits, kind, severity), digits) for severity in (0, *SEVERITIES)]
    assert far[0] == 0 and far == sorted(far) and far[1] < far[-1]


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_what_an_image_gets_depends_on_its_index_and_the_seed_alone(
    kind: str, digits: Images
) -> None:
    whole = corrupt(digits, kind, 4, seed=7)
    assert np.array_equal(corrupt(digits, kind, 4, seed=7), whole)
    some = corrupt(digits[[13, 4]], kind, 4, seed=7, index=[13, 4])
    assert np.array_equal(some, whole[[13, 4]])


RANDOM = sorted(set(CORRUPTIONS) - {"brightness", "canny_edges", "scale"})


@pytest.mark.parametrize("kind", RANDOM)
def test_another_seed_and_another_index_draw_something_else(kind: str, digits: Images) -> None:
    same = np.repeat(digits[:1], 8, axis=0)
    changed = corrupt(same, kind, 4, seed=1)
    assert len(np.unique(changed.reshape(8, -1), axis=0)) > 1
    assert not np.array_equal(corrupt(same, kind, 4, seed=2), changed)


@pytest.mark.parametrize("kind", CORRUPTIONS)
@pytest.mark.parametrize("size", [(32, 32), (9, 14), (4, 4), (1, 1)])
def test_any_size_and_colour_will_do(kind: str, size: tuple[int, int]) -> None:
    images = coloured(size)
    for severity in SEVERITIES:
        assert corrupt(images, kind, severity).shape == images.shape
    black = np.zeros((1, 16, 16, 1), np.uint8)
    assert corrupt(black, kind, 5).shape == black.shape


def test_a_shift_of_the_scene_is_what_translate_does() -> None:
    images = np.zeros((20, 28, 28, 1), np.uint8)
    images[:, 14, 14] = 255
    for severity, way in zip(SEVERITIES, (2, 3, 4, 5, 6), strict=True):
        changed = corrupt(images, "translate", severity)[..., 0].astype(float)
        rows, columns = np.indices((28, 28))
        mass = changed.sum((1, 2))
        row = (changed * rows).sum((1, 2)) / mass - 14
        column = (changed * columns).sum((1, 2)) / mass - 14
        np.testing.assert_allclose(np.hypot(row, column), way, atol=0.25)


def angle_of(picture: NDArray[np.float64]) -> float:
    """Return the direction, in degrees, along which the ink spreads most."""
    rows, columns = np.nonzero(picture > 40)
    spread = np.cov(np.stack([columns, -rows]))
    return float(np.degrees(0.5 * np.arctan2(2 * spread[0, 1], spread[0, 0] - spread[1, 1])))


def test_rotate_turns_a_bar_by_so_many_degrees_either_way() -> None:
    images = np.zeros((12, 57, 57, 1), np.uint8)
    images[:, 27:30, 8:49] = 255
    turned = [angle_of(one[..., 0]) for one in corrupt(images, "rotate", 3)]
    np.testing.assert_allclose(np.abs(turned), 30, atol=1.5)
    assert min(turned) < 0 < max(turned)


def test_scale_halves_a_square_at_the_last_severity() -> None:
    images = np.zeros((1, 28, 28, 1), np.uint8)
    images[:, 4:24, 4:24] = 255
    changed = corrupt(images, "scale", 5)[0, ..., 0] / 255
    assert changed.sum() == pytest.approx(100, abs=8)
    assert changed[13, 13] == 1 and not changed[:8].any()


def test_a_stripe_inverts_a_band_and_nothing_else(digits: Images) -> None:
    changed = corrupt(digits, "stripe", 2)
    inverted = (changed == 255 - digits).all((1, 3))
    kept = (changed == digits).all((1, 3))
    assert (inverted | kept).all() and (inverted.sum(1) == 4).all()


def test_impulse_noise_is_black_and_white_at_its_share() -> None:
    grey = np.full((1, 200, 200, 1), 99, np.uint8)
    for severity, share in zip(SEVERITIES, (0.03, 0.06, 0.09, 0.17, 0.27), strict=True):
        changed = corrupt(grey, "impulse_noise", severity)
        assert set(np.unique(changed)) == {0, 99, 255}
        assert (changed != 99).mean() == pytest.approx(share, abs=0.01)
        assert (changed == 255).mean() == pytest.approx(share / 2, abs=0.01)


def test_shot_noise_has_the_spread_of_counted_photons() -> None:
    grey = np.full((1, 200, 200, 1), 51, np.uint8)
    changed = corrupt(grey, "shot_noise", 1) / 255
    assert changed.mean() == pytest.approx(0.2, abs=0.005)
    assert changed.std() == pytest.approx(np.sqrt(0.2 / 60), rel=0.03)
    assert not corrupt(0 * grey, "shot_noise", 5).any()


def test_edges_are_what_is_left_of_a_square_at_the_last_severity() -> None:
    images = np.zeros((1, 28, 28, 1), np.uint8)
    images[:, 8:20, 8:20] = 255
    changed = corrupt(images, "canny_edges", 5)[0, ..., 0]
    assert set(np.unique(changed)) == {0, 255}
    assert not changed[11:17, 11:17].any() and not changed[:6].any()
    assert 36 <= (changed > 0).sum() <= 60  # once around


def test_a_moved_line_is_smeared_along_the_movement_only() -> None:
    images = np.zeros((6, 28, 28, 1), np.uint8)
    images[:, 14, 14] = 255
    changed = corrupt(images, "motion_blur", 5)[..., 0].astype(float)
    reach = (changed > 5).any(1).sum(1)
    assert (reach >= 8).all() and (reach <= 14).all()
    assert (changed.max((1, 2)) < 100).all()


@pytest.mark.parametrize("severity", [-1, 6])
def test_a_severity_that_there_is_not_is_refused(severity: int, digits: Images) -> None:
    with pytest.raises(UsageError, match=r"a severity is 0 \(unchanged\) to 5, not"):
        corrupt(digits, "fog", severity)


def test_an_unknown_kind_is_met_with_the_nearest(digits: Images) -> None:
    with pytest.raises(UsageError, match=r"unknown corruption 'foggy' \(did you mean 'fog'"):
        corrupt(digits, "foggy", 1)
