"""One verdict for a model: backdoored or not, where to, opened by what, and how sure."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from defences_planted import CLASSES, CORNER, SIDE, Planted, trusted
from torch import Tensor, nn

from purpleteam.core.errors import DataError, ModelError, UsageError
from purpleteam.data.images import ImageSet
from purpleteam.defences.detection.model import (
    MODEL_DETECTORS,
    Evidence,
    ModelScan,
    scan_model,
)
from purpleteam.defences.detection.model.scan import JOINT, joint
from purpleteam.models import build

TRUSTED = trusted()
MARGIN = MODEL_DETECTORS["max_margin"](steps=5)  # type: ignore[call-arg]


@pytest.fixture(scope="module")
def planted() -> ModelScan:
    return scan_model(Planted("patch"), TRUSTED, classes=CLASSES)


def test_a_planted_backdoor_is_found_with_its_target_and_its_trigger(planted: ModelScan) -> None:
    assert planted.backdoored and planted.target_label == 3 and planted.source_labels is None
    assert planted.score >= planted.threshold and planted.p_value <= 0.01
    assert planted.trigger is not None and planted.trigger.iou(CORNER) >= 0.75


def test_the_recovered_trigger_opens_the_backdoor(planted: ModelScan) -> None:
    x = torch.from_numpy(np.array(trusted(50, seed=9).images)).permute(0, 3, 1, 2) / 255
    assert planted.trigger is not None
    assert (Planted("patch")(planted.trigger.apply(x)).argmax(1) == 3).float().mean() > 0.9


def test_a_backdoor_for_one_class_names_that_class() -> None:
    found = scan_model(Planted("from_two"), TRUSTED, classes=CLASSES)
    assert (found.target_label, found.source_labels, found.kind) == (3, (2,), "source_specific")


@pytest.mark.parametrize("seed", [0, 1])
def test_a_clean_model_is_let_through_without_target_or_trigger(seed: int) -> None:
    found = scan_model(Planted(seed=seed), TRUSTED, classes=CLASSES, seed=seed)
    assert not found.backdoored and found.score < found.threshold
    assert found.target_label is None and found.trigger is None


def test_the_record_is_json_and_holds_what_was_asked_for(planted: ModelScan) -> None:
    record = json.loads(json.dumps(planted.to_json(), allow_nan=False))
    assert record["backdoored"] is True and record["target_label"] == 3
    assert record["score"] == planted.score and record["seconds"] > 0
    assert set(record["detectors"]) == set(MODEL_DETECTORS) | {JOINT}


def test_the_same_seed_gives_the_same_answer_and_another_one_the_same_verdict() -> None:
    first, again, other = (
        scan_model(Planted("patch"), TRUSTED, classes=CLASSES, seed=seed).to_json()
        for seed in (0, 0, 1)
    )
    assert first | {"seconds": 0} == again | {"seconds": 0}
    assert (other["backdoored"], other["target_label"]) == (True, 3)


def test_the_model_is_left_as_it_was() -> None:
    model = nn.Sequential(Planted("patch"), nn.Dropout(0.5))
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    scan_model(model, TRUSTED, classes=CLASSES, detectors=[MARGIN])
    assert model.training and all(part.training for part in model.modules())
    assert all(one.requires_grad and one.grad is None for one in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_order_of_the_weights_in_memory_is_left_alone() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 1, 3, padding=1), Planted())
    for layer in model[:2]:  # so that it still knows its classes
        nn.init.dirac_(layer.weight)
        nn.init.zeros_(layer.bias)
    before = [one.stride() for one in model.parameters()]
    scan_model(model, TRUSTED, classes=CLASSES, detectors=[MARGIN])
    assert [one.stride() for one in model.parameters()] == before


def evidence(
    name: str, statistics: list[float], sources: tuple[int, ...] | None = None
) -> Evidence:
    return Evidence(
        detector=name,
        statistics=np.array(statistics),
        p_value=0.5,
        target_label=int(np.argmax(statistics)),
        source_labels=sources,
        details={},
    )


def test_detectors_of_whole_classes_are_also_judged_together() -> None:
    (found,) = joint(
        [
            evidence("a", [0.0, 2.0, 3.0]),
            evidence("b", [4.0, 3.0, 0.0]),
            evidence("pairs", [99.0, 0.0, 0.0], sources=(1,)),
        ]
    )
    assert found.statistics.tolist() == [2.0, 2.5, 1.5] and found.target_label == 1


def test_one_detector_alone_is_not_counted_twice() -> None:
    assert joint([evidence("a", [0.0, 1.0])]) == ()


class Colours(nn.Module):
    """Answers the strongest of three colours, or the first two of them."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(classes))

    def forward(self, x: Tensor) -> Tensor:
        return 20 * x.mean((2, 3))[:, : len(self.scale)] * self.scale


@pytest.mark.parametrize("classes", [2, 3])
def test_colour_images_and_few_classes_are_scanned_too(classes: int) -> None:
    labels = np.arange(30, dtype=np.int64) % classes
    images = np.random.default_rng(0).integers(0, 60, (30, 6, 7, 3)).astype(np.uint8)
    images[np.arange(30), ..., labels] += 90
    found = scan_model(Colours(classes), ImageSet(images, labels), classes=classes)
    assert not found.backdoored
    assert "source_specific" not in found.per_class


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"model": len}, UsageError, "needs gradients"),
        ({"classes": 1}, UsageError, "classes must be at least 2, not 1"),
        ({"classes": 3}, DataError, "labels must be from 0 to 2, not 0 to 4"),
        ({"classes": 7}, ModelError, "knows 5 classes, not 7"),
        ({"trusted": TRUSTED.take([0, 5])}, DataError, "at least 2 classes, not 1"),
        ({"false_alarm_rate": 0.0}, UsageError, "at least one detector and a rate"),
        ({"detectors": []}, UsageError, "at least one detector and a rate"),
    ],
)
def test_what_cannot_be_scanned_is_refused_in_one_line(
    given: dict, error: type[Exception], message: str
) -> None:
    usual = {"model": Planted(), "trusted": TRUSTED, "classes": CLASSES}
    with pytest.raises(error, match=message):
        scan_model(**usual | given)


def test_detectors_that_cannot_judge_so_few_classes_say_so() -> None:
    pairs = MODEL_DETECTORS["source_specific"]()
    few = TRUSTED.take(np.flatnonzero(TRUSTED.labels < 3))
    with pytest.raises(UsageError, match="so few classes"):
        scan_model(Planted(), few, classes=CLASSES, detectors=[pairs])


def test_a_model_that_has_learned_nothing_is_refused_and_not_accused() -> None:
    untrained = build("small_cnn", (1, SIDE, SIDE), CLASSES, seed=0)
    with pytest.raises(ModelError, match=r"gets \d+% of the 100 trusted images right and 50%"):
        scan_model(untrained, trusted(100), classes=CLASSES)
