"""Each detector finds the trigger that was planted by hand, and leaves the model as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from defences_planted import CLASSES, CORNER, WAVE, Planted, iou, trusted

from purpleteam.defences.detection.model import (
    MODEL_DETECTORS,
    Evidence,
    ModelDetector,
    Scanning,
)
from purpleteam.models.devices import frozen, to_batch

TRUSTED = trusted()


def work(model: Planted, seed: int = 0) -> Scanning:
    images = to_batch(TRUSTED.images).contiguous()
    return Scanning(model=model, images=images, labels=TRUSTED.labels, classes=CLASSES, seed=seed)


def examined(name: str, model: Planted, **settings: int) -> Evidence:
    with frozen(model):
        evidence = MODEL_DETECTORS[name](**settings).examine(work(model))
    assert evidence is not None
    return evidence


@pytest.mark.parametrize(
    ("name", "backdoor"),
    [
        ("patch", "patch"),
        ("additive", "wave"),
        ("warp", "shift"),
        ("feature", "wave"),
        ("max_margin", "patch"),
        ("source_specific", "from_two"),
    ],
)
@pytest.mark.parametrize("target", [1, 3])
def test_a_detector_finds_its_kind_of_backdoor(name: str, backdoor: str, target: int) -> None:
    planted = examined(name, Planted(backdoor, target))
    clean = examined(name, Planted())
    assert planted.target_label == target
    assert clean.standing < 3 < planted.standing


class ByName(Planted):
    """Calls its last layer with a named argument, which no hook sees."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.flatten(1)
        logits = flat @ self.classes.T
        answers: torch.Tensor = self.head(input=torch.cat([logits, 0 * logits[:, :1]], 1))
        return answers


def test_features_that_cannot_be_read_are_not_judged() -> None:
    with frozen(model := ByName()):
        assert MODEL_DETECTORS["feature"]().examine(work(model)) is None


def test_a_backdoor_for_one_class_is_told_with_its_class() -> None:
    assert examined("source_specific", Planted("from_two")).source_labels == (2,)


def test_the_recovered_patch_is_the_planted_corner() -> None:
    model = Planted("patch")
    with frozen(model):
        trigger = MODEL_DETECTORS["patch"]().recover(work(model), 3, None)
    assert trigger is not None and trigger.pattern is not None
    assert iou(trigger.mask) >= 0.75
    assert trigger.pattern[0][CORNER].mean() > 0.9


def test_the_recovered_addition_points_along_the_planted_wave() -> None:
    model = Planted("wave")
    with frozen(model):
        trigger = MODEL_DETECTORS["additive"]().recover(work(model), 3, None)
    assert trigger is not None and trigger.pattern is not None
    bright = trusted().images.mean((0, 3)) < 40  # where nothing is clipped upwards
    pattern = np.maximum(trigger.pattern[0], 0)[bright]
    assert np.corrcoef(pattern, np.maximum(WAVE, 0)[bright])[0, 1] > 0.8


@pytest.mark.parametrize("name", MODEL_DETECTORS)
def test_every_detector_keeps_its_promises(name: str) -> None:
    settings = {"steps": 40}  # fewer do not settle a search of pairs, which then says nothing
    first = examined(name, Planted("patch"), **settings)
    again = examined(name, Planted("patch"), **settings)
    assert first.detector == name and first.statistics.shape == (CLASSES,)
    assert np.isfinite(first.standing) and first.target_label == int(first.statistics.argmax())
    assert np.array_equal(first.statistics, again.statistics)


@pytest.mark.parametrize("name", MODEL_DETECTORS)
def test_every_detector_leaves_the_images_and_the_weights_alone(name: str) -> None:
    model = Planted("patch")
    before, given = model.classes.detach().clone(), work(model)
    images = given.images.clone()
    with frozen(model):
        MODEL_DETECTORS[name](steps=3).examine(given)
    assert torch.equal(model.classes, before) and model.classes.grad is None
    assert torch.equal(given.images, images)


@pytest.mark.parametrize("name", MODEL_DETECTORS)
def test_every_detector_refuses_no_steps(name: str) -> None:
    detector: type[ModelDetector] = MODEL_DETECTORS[name]
    with pytest.raises(ValueError, match="steps must be at least 1, not 0"):
        detector(steps=0)  # type: ignore[call-arg]
