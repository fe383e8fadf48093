"""The scan of a training set from end to end: planted images are found, clean sets are let be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from purpleteam.attacks.poison.badnets import BadNets
from purpleteam.attacks.poison.triggers import Trigger
from purpleteam.core.errors import DataError, UsageError
from purpleteam.data.images import Dataset, ImageSet
from purpleteam.defences.detection.training_set import (
    TRAINING_SET_DETECTORS,
    TrainingSetScan,
    scan_training_set,
)
from purpleteam.defences.detection.training_set._analysis import Analysis
from purpleteam.defences.detection.training_set.scanning import FALSE_ALARM_RATE

POISON = BadNets(trigger=Trigger(corner="top-right"), count=30, target_label=4)
WITHOUT_INVERSION = tuple(name for name in TRAINING_SET_DETECTORS if name != "mask_removal")


@pytest.fixture(scope="module")
def planted(digits: Dataset) -> np.ndarray:
    return POISON.apply(digits.train, seed=104).indices


@pytest.fixture(scope="module")
def found(digits: Dataset) -> TrainingSetScan:
    images = POISON.apply(digits.train, seed=104).images
    return scan_training_set(images, classes=10, epochs=1, seed=104, detectors=WITHOUT_INVERSION)


def test_thirty_planted_images_are_flagged_and_next_to_no_other(
    found: TrainingSetScan, planted: np.ndarray
) -> None:
    assert found.backdoored and found.target_label == 4
    assert set(planted) <= set(found.flagged)
    assert len(found.flagged) <= 33


def test_flagged_is_what_reaches_the_threshold_most_suspicious_first(
    found: TrainingSetScan,
) -> None:
    assert set(found.flagged) == set(np.flatnonzero(found.scores >= found.threshold))
    assert (np.diff(found.scores[found.flagged]) <= 0).all()


def test_every_detector_gives_each_image_a_finite_score(found: TrainingSetScan) -> None:
    assert set(found.by_detector) == set(WITHOUT_INVERSION)
    for scores in found.by_detector.values():
        assert scores.shape == found.scores.shape and np.isfinite(scores).all()


def test_what_a_command_prints_can_be_written_as_json(found: TrainingSetScan) -> None:
    fields = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert fields["backdoored"] is True and fields["target_label"] == 4
    assert fields["score"] >= fields["threshold"] and len(fields["flagged"]) == len(found.flagged)


def test_the_stated_false_alarm_rate_is_no_less_than_the_measured_tail() -> None:
    results = Path(__file__).parents[2] / "results" / "backdoors.json"
    measured = json.loads(results.read_text(encoding="utf-8"))["calibration"]
    assert measured["stated"] == FALSE_ALARM_RATE >= measured["tail"]
    assert len(measured["sets"]) >= 50 and measured["flagged"]["value"] == 0


def test_a_style_of_handwriting_is_no_backdoor(digits: Dataset) -> None:
    # 27 ones of the embedded digits stand on a base, and some seeds read most of them as others.
    found = scan_training_set(digits.train, classes=10, epochs=1, seed=335, detectors=())
    assert not found.backdoored and found.flagged.size == 0
    assert found.score < 0.9


def test_a_clean_set_is_let_be_and_the_same_seed_gives_the_same_scan(digits: Dataset) -> None:
    few = digits.train.first(700)
    one, two = (scan_training_set(few, classes=10, epochs=1, seed=3) for _ in range(2))
    assert not one.backdoored and one.target_label is None
    assert len(one.flagged) == 0 and one.scores.max() < one.threshold
    assert one.scores.tobytes() == two.scores.tobytes()


def test_a_strange_label_is_refused(digits: Dataset) -> None:
    with pytest.raises(DataError, match="labels must be from 0 to 8, not 9"):
        scan_training_set(digits.train.take(np.flatnonzero(digits.train.labels > 7)), classes=9)


def rows_of(digits: Dataset, counts: list[int]) -> np.ndarray:
    labels = digits.train.labels
    rows = [np.flatnonzero(labels == k)[:n] for k, n in enumerate(counts)]
    return np.concatenate([np.array([], np.int64), *rows])


@pytest.mark.parametrize(
    ("counts", "classes", "reason"),
    [
        ([], 10, "0 training images of 10 classes, at least 300 wanted"),
        ([120], 1, "too few classes to compare: 1, at least 6 wanted"),
        ([120, 120], 2, "too few classes to compare: 2, at least 6 wanted"),
        ([120] * 3, 3, "too few classes to compare: 3, at least 6 wanted"),
        ([120] * 9 + [6], 10, "6 training images of class 9, at least 50 wanted of each"),
        ([120] * 9 + [40], 10, "40 training images of class 9, at least 50 wanted of each"),
        ([5] * 10, 10, "50 training images of 10 classes, at least 300 wanted"),
    ],
)
def test_too_little_is_neither_accused_nor_cleared(
    digits: Dataset, counts: list[int], classes: int, reason: str
) -> None:
    images = digits.train.take(rows_of(digits, counts))
    found = scan_training_set(images, classes=classes)
    assert (found.verdict, found.backdoored, found.score) == ("not_established", None, None)
    assert reason in " ".join(found.reasons) and found.flagged.size == 0
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["backdoored"] is None


def test_images_of_another_kind_are_unlike_the_calibration(digits: Dataset) -> None:
    coloured = ImageSet(digits.train.images.repeat(3, axis=3), digits.train.labels)
    found = scan_training_set(coloured, classes=10)
    assert found.reasons == ("unlike what this was calibrated on: 3 channels a pixel, not 1",)


def drawn(templates: int, seed: int = 0) -> ImageSet:
    """Six classes of a hundred images: blocks in a few places, moved by a pixel, with noise."""
    rng = np.random.default_rng(seed)
    forms = 200 * rng.integers(0, 2, (6, templates, 5, 5)).repeat(4, axis=2).repeat(4, axis=3)
    labels = np.arange(600) % 6
    pixels = forms[labels, np.arange(600) // 6 % templates].astype(np.float64)
    moved = np.stack([np.roll(one, rng.integers(-1, 2, 2), (0, 1)) for one in pixels])
    noisy = np.clip(moved + rng.normal(0, 15, moved.shape), 0, 255)
    return ImageSet(noisy[..., None].astype(np.uint8), labels.astype(np.int64))


def test_classes_of_two_templates_each_are_unlike_handwriting_and_not_accused() -> None:
    found = scan_training_set(drawn(templates=2), classes=6, detectors=())
    assert (found.verdict, found.target_label) == ("not_established", None)
    assert found.flagged.size == 0 and "each fall in two" in " ".join(found.reasons)


def test_an_unknown_detector_is_named_with_the_known_ones(digits: Dataset) -> None:
    with pytest.raises(UsageError, match="spectral_signatures"):
        scan_training_set(digits.train, classes=10, detectors=("spectra",))


def test_half_of_the_images_at_most_are_doubted_where_labels_mean_nothing() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (300, 8, 8, 3)).astype(np.uint8)
    analysis = Analysis(images=ImageSet(images, rng.integers(0, 4, 300)), classes=4)
    assert analysis.doubted.mean() <= 0.51
