"""STRIP: its numbers beside loops, its promise about clean inputs, and a really backdoored net."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from purpleteam.core.errors import DataError, ModelError, UsageError
from purpleteam.data.images import Dataset, ImageSet
from purpleteam.defences.detection.metrics import auroc
from purpleteam.defences.detection.strip import Strip, superimpose
from purpleteam.defences.detection.strip_fit import fit_strip, probabilities_of
from purpleteam.models import RECIPES, build, train

WEIGHT = np.random.default_rng(0).normal(0, 0.01, (12, 3))


def linear(images: np.ndarray) -> np.ndarray:
    """A classifier of 2x3 colour pairs by a fixed linear map."""
    scores = np.exp(images.reshape(len(images), -1) @ WEIGHT)
    return scores / scores.sum(1, keepdims=True)


def images_of(n: int, seed: int = 0) -> ImageSet:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (n, 2, 3, 2)).astype(np.uint8)
    return ImageSet(pixels, np.zeros(n, np.int64))


@pytest.fixture(scope="module")
def fitted() -> Strip:
    return Strip.fit(linear, images_of(120), model_digest="sha256:0")


@given(arrays(np.uint8, (2, 3, 1)), arrays(np.uint8, (4, 2, 3, 1)))
def test_superimposing_adds_pixels_and_cuts_at_255(image: np.ndarray, over: np.ndarray) -> None:
    mixed = superimpose(image, over)
    for place in np.ndindex(4, 2, 3, 1):
        assert mixed[place] == min(255, int(image[place[1:]]) + int(over[place]))


def test_the_entropy_is_the_mean_over_overlays_in_bits(fitted: Strip) -> None:
    image = images_of(1, seed=5).images[0]
    total = 0.0
    for overlay in fitted.overlays:
        mixed = np.minimum(image.astype(int) + overlay, 255).astype(np.uint8)
        total -= sum(share * math.log2(share) for share in linear(mixed[None])[0])
    found = fitted.entropies(linear, image[None])
    assert found == pytest.approx([total / 16])


def test_certain_answers_have_no_entropy_and_equal_ones_all_of_it(fitted: Strip) -> None:
    image = images_of(1).images
    certain = fitted.entropies(lambda x: np.eye(8)[np.zeros(len(x), int)], image)
    assert certain == [0.0] and fitted.entropies(lambda x: np.full((len(x), 8), 1 / 8), image) == 3


def test_what_forces_one_answer_is_flagged_and_clean_images_are_not(fitted: Strip) -> None:
    def hooked(images: np.ndarray) -> np.ndarray:
        triggered = (images[:, 0, 0, 0] == 255)[:, None]
        return np.where(triggered, [[1.0, 0.0, 0.0]], linear(images // 2))

    # What is half as bright never adds up to the trigger.
    trusted = images_of(120).images // 2
    strip = Strip.fit(hooked, ImageSet(trusted, np.zeros(120, np.int64)))
    clean = images_of(50).images // 2
    stamped = clean.copy()
    stamped[:, 0, 0, 0] = 255
    assert strip.triggered(hooked, stamped).all()
    assert strip.triggered(hooked, clean).mean() < 0.1


@given(st.integers(40, 90), st.floats(0.03, 0.5))
def test_the_threshold_leaves_below_it_what_was_stated_and_no_more(n: int, share: float) -> None:
    images = images_of(n + 4)
    strip = Strip.fit(linear, images, false_rejection_rate=share, overlays=4)
    drawn = (images.images[:, None] == strip.overlays).all((2, 3, 4)).any(1)
    below = int(strip.triggered(linear, images.images[~drawn]).sum())
    # Of n + 1 clean images, each is as likely as any other to be the next one.
    assert strip.calibrated_on == n and (below + 1) / (n + 1) <= share + 1e-9 < (below + 2) / n


def test_over_many_fits_clean_images_are_rejected_as_often_as_stated() -> None:
    rates = []
    for seed in range(60):
        trusted, fresh = images_of(63, seed=2 * seed), images_of(30, seed=2 * seed + 1)
        strip = Strip.fit(linear, trusted, false_rejection_rate=0.1, overlays=4, seed=seed)
        rates.append(strip.triggered(linear, fresh.images).mean())
    assert np.mean(rates) == pytest.approx(0.1, abs=3 * np.std(rates) / math.sqrt(60))


@given(st.floats(0.001, 0.9), st.integers(1, 20))
def test_too_few_images_are_refused_with_the_number_that_is_enough(share: float, k: int) -> None:
    with pytest.raises(UsageError, match=r"needs (\d+) trusted images, not 2$") as told:
        Strip.fit(linear, images_of(2), false_rejection_rate=share / 3, overlays=k + 1)
    needed = int(str(told.value).rpartition("needs ")[2].split()[0])
    with pytest.raises(UsageError, match=f"not {needed - 1}$"):
        Strip.fit(linear, images_of(needed - 1), false_rejection_rate=share / 3, overlays=k + 1)
    if needed < 60:
        Strip.fit(linear, images_of(needed), false_rejection_rate=share / 3, overlays=k + 1)


def test_an_answer_depends_on_the_input_alone(fitted: Strip) -> None:
    images = images_of(7, seed=3).images
    together = fitted.entropies(linear, images)
    alone = [fitted.entropies(linear, image[None])[0] for image in images]
    assert together.tolist() == alone
    assert fitted.entropies(linear, images[::-1]).tolist() == alone[::-1]


def test_the_same_seed_draws_the_same_overlays(fitted: Strip) -> None:
    again, other = (Strip.fit(linear, images_of(120), seed=seed) for seed in (0, 1))
    assert np.array_equal(again.overlays, fitted.overlays)
    assert again.threshold == fitted.threshold
    assert not np.array_equal(other.overlays, fitted.overlays)


def test_a_stored_one_is_the_same_and_so_are_its_bytes(fitted: Strip, tmp_path: Path) -> None:
    for name in ("first", "second"):
        fitted.save(tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    found = Strip.load(tmp_path / "first")
    assert np.array_equal(found.overlays, fitted.overlays)
    names = ("threshold", "false_rejection_rate", "calibrated_on", "model_digest")
    assert [getattr(found, name) for name in names] == [getattr(fitted, name) for name in names]


def test_what_is_no_strip_file_is_refused(fitted: Strip, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    fitted.save(tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    (tmp_path / "cut").write_bytes(whole[:-1])
    (tmp_path / "pickle").write_bytes(pickle.dumps(fitted))
    (tmp_path / "strange").write_bytes(whole.replace(b"threshold", b"thresh0ld"))
    (tmp_path / "wrong").write_bytes(
        whole.replace(b'\\"calibrated_on\\": ', b'\\"calibrated_on\\":-')
    )
    (tmp_path / "future").write_bytes(whole.replace(b"strip 1", b"strip 2"))
    save_file({"overlays": fitted.overlays}, tmp_path / "bare")
    for name in ("cut", "pickle", "strange", "wrong", "future", "bare"):
        with pytest.raises(DataError, match="is no STRIP file"):
            Strip.load(tmp_path / name)
    with pytest.raises(DataError, match="cannot be read: No such file"):
        Strip.load(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"overlays": np.zeros((0, 2, 2, 1), np.uint8)}, "overlays are 1 to 100 images, not 0"),
        ({"overlays": np.zeros((1, 2, 2, 1))}, "overlays must be uint8"),
        ({"threshold": float("nan")}, "threshold must be finite"),
        ({"false_rejection_rate": 1.0}, "false_rejection_rate must be between 0 and 1"),
        ({"calibrated_on": 0}, "calibrated_on must be at least 1, not 0"),
    ],
)
def test_fields_out_of_range_are_refused(fitted: Strip, fields: dict, reason: str) -> None:
    whole = {name: getattr(fitted, name) for name in vars(fitted)}
    with pytest.raises(ValueError, match=reason):
        Strip(**whole | fields)


def test_images_and_answers_that_do_not_fit_are_refused(fitted: Strip) -> None:
    with pytest.raises(UsageError, match="are not those of the overlays"):
        fitted.entropies(linear, np.zeros((1, 3, 2, 2), np.uint8))
    with pytest.raises(ModelError, match="not a row each"):
        fitted.entropies(lambda x: linear(x)[:-1], images_of(1).images)
    with pytest.raises(ModelError, match="gave no probabilities"):
        fitted.entropies(lambda x: np.full((len(x), 2), np.nan), images_of(1).images)


def test_strip_and_metrics_load_no_torch() -> None:
    program = (
        "import sys; from purpleteam.defences import Strip, evaluate_detection\n"
        "sys.exit('torch' in sys.modules or 'purpleteam.models' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def stamped(images: np.ndarray) -> np.ndarray:
    """Return the images with a white square that lies within a digit's box."""
    changed = images.copy()
    changed[:, 4:8, 4:8] = 255
    return changed


@pytest.fixture(scope="module")
def backdoored(digits: Dataset) -> nn.Module:
    images, labels = digits.train.images.copy(), digits.train.labels.copy()
    chosen = np.random.default_rng(101).choice(np.flatnonzero(labels != 7), 100, replace=False)
    images[chosen], labels[chosen] = stamped(images[chosen]), 7
    net = build("small_cnn", (1, 28, 28), 10, seed=101)
    poisoned = ImageSet(images, labels)
    return train(net, poisoned, digits.validation, RECIPES["plain"](epochs=8), seed=101).module


def test_triggered_digits_are_told_from_clean_ones(backdoored: nn.Module, digits: Dataset) -> None:
    strip = fit_strip(backdoored, digits.validation, false_rejection_rate=0.02)
    answers = probabilities_of(backdoored)
    others = digits.test.images[digits.test.labels != 7]
    images = np.concatenate([digits.test.images, stamped(others)])
    triggered = np.arange(len(images)) >= len(digits.test)
    flags = strip.triggered(answers, images)
    assert flags[triggered].mean() > 0.8 and flags[~triggered].mean() < 0.06
    assert auroc(-strip.entropies(answers, images), triggered).value > 0.98


def test_a_net_without_a_backdoor_flags_the_same_digits_no_more_often(
    baseline: nn.Module, digits: Dataset
) -> None:
    strip = fit_strip(baseline, digits.validation, false_rejection_rate=0.02)
    flags = strip.triggered(probabilities_of(baseline), stamped(digits.test.images))
    assert flags.mean() < 0.1


def test_probabilities_are_the_softmax_of_the_logits() -> None:
    def net(x: torch.Tensor) -> torch.Tensor:
        return 20 * x.flatten(1)[:, :3]

    image = np.array([255, 0, 51, 9], np.uint8).reshape(1, 2, 2, 1)
    powers = [math.exp(score) for score in (20.0, 0.0, 4.0)]
    found = probabilities_of(net)(image)
    assert found[0] == pytest.approx([one / sum(powers) for one in powers], rel=1e-5)
