"""One verdict for a model: backdoored or not, where to, opened by what, and how sure."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from defences_planted import CLASSES, SIDE, Planted, iou, trusted
from torch import Tensor, nn

from purpleteam.core.errors import DataError, ModelError, UsageError
from purpleteam.data.images import ImageSet
from purpleteam.defences.detection.model import (
    MODEL_DETECTORS,
    Evidence,
    ModelScan,
    scan_model,
)
from purpleteam.defences.detection.model.scan import (
    CALIBRATION_NETS,
    FALSE_ALARM_RATE,
    JOINT,
    joint,
    settled,
    verdict_on,
)
from purpleteam.defences.detection.model.scan import MARGIN as ZONE
from purpleteam.models import build

TRUSTED = trusted()
MARGIN = MODEL_DETECTORS["max_margin"](steps=5)  # type: ignore[call-arg]
PATCH = MODEL_DETECTORS["patch"]


@pytest.fixture(scope="module")
def planted() -> ModelScan:
    return scan_model(Planted("patch"), TRUSTED, classes=CLASSES)


def test_a_planted_backdoor_is_found_with_its_target_and_its_trigger(planted: ModelScan) -> None:
    assert planted.backdoored and planted.target_label == 3 and planted.source_labels is None
    assert planted.score is not None and planted.score >= planted.threshold
    assert planted.trigger is not None and iou(planted.trigger.mask) >= 0.75


def test_the_recovered_trigger_opens_the_backdoor(planted: ModelScan) -> None:
    x = torch.from_numpy(np.array(trusted(50, seed=9).images)).permute(0, 3, 1, 2) / 255
    assert planted.trigger is not None
    assert (Planted("patch")(planted.trigger.apply(x)).argmax(1) == 3).float().mean() > 0.9


def test_a_backdoor_for_one_class_names_that_class() -> None:
    found = scan_model(Planted("from_two"), TRUSTED, classes=CLASSES)
    assert (found.target_label, found.source_labels, found.kind) == (3, (2,), "source_specific")


@pytest.mark.parametrize(("name", "steps"), [("patch", 50), ("additive", 25)])
def test_a_trigger_that_a_student_follows_too_is_nature_and_no_backdoor(
    name: str, steps: int
) -> None:
    """With such a rate of false alarms nearly every label is under suspicion."""
    clean, backdoored = (
        scan_model(
            net,
            TRUSTED,
            classes=CLASSES,
            detectors=[MODEL_DETECTORS[name](steps=steps)],
            false_alarm_rate=0.95,
        )
        for net in (Planted(), Planted("patch"))
    )
    assert not clean.backdoored and clean.trigger is None and clean.target_label is None
    assert clean.student_success is not None and clean.student_success > 0.3
    assert clean.set_aside[0] == (clean.evidence[0].target_label, name)
    assert (backdoored.verdict, backdoored.student_success) == ("backdoored", 0)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_clean_model_is_let_through_without_target_or_trigger(seed: int) -> None:
    found = scan_model(Planted(seed=seed), TRUSTED, classes=CLASSES, seed=seed)
    assert found.verdict == "nothing_found" and found.backdoored is False
    assert found.score is not None and found.score < found.threshold
    assert found.target_label is None and found.trigger is None


def test_the_record_is_json_and_holds_what_was_asked_for(planted: ModelScan) -> None:
    record = json.loads(json.dumps(planted.to_json(), allow_nan=False))
    assert record["backdoored"] is True and record["target_label"] == 3
    assert record["score"] == planted.score and record["seconds"] > 0
    assert set(record["detectors"]) == set(MODEL_DETECTORS) | {JOINT}


def test_the_same_seed_gives_the_same_answer_and_another_one_the_same_verdict(
    planted: ModelScan,
) -> None:
    quick = [PATCH(steps=40, images=12), MARGIN]
    one, again, other = (
        scan_model(Planted("patch"), TRUSTED, classes=CLASSES, seed=seed, detectors=quick).to_json()
        for seed in (0, 0, 1)
    )
    assert one | {"seconds": 0} == again | {"seconds": 0}
    assert (other["verdict"], other["target_label"]) == (planted.verdict, planted.target_label)


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
        standing=0.5,
        target_label=int(np.argmax(statistics)),
        sources=sources and (sources,) * len(statistics),
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
    assert joint([evidence("a", [0.0, 1.0])]) == []


@pytest.mark.parametrize(
    ("standings", "enough"),
    [
        ([5.0 - ZONE - 0.1], True),  # nothing is suspicious: one look is enough
        ([5.0 - ZONE], False),
        ([40.0], False),  # and no accusation rests on one student
        ([40.0, 5.0], True),
        ([40.0, 0.0], False),
        ([40.0, 0.0, 6.0], True),
        ([4.9, 4.8], False),  # they agree on nothing
        ([4.9, 6.0, 1.0], False),
        ([4.9, 6.0, 1.0, 6.0], False),
        ([4.9, 6.0, 1.0, 1.0], True),
        ([4.9, 6.0, 1.0, 6.0, 1.0], True),  # and then it says so
    ],
)
def test_a_suspicion_is_looked_at_until_it_can_be_called(
    standings: list[float], enough: bool
) -> None:
    assert settled(standings, 5.0) is enough


def test_close_below_the_limit_is_neither_an_accusation_nor_a_clearance() -> None:
    one = evidence("patch", [0.0, 3.0])
    verdicts = {
        score: verdict_on(score, 5.0, one, [one])[0] for score in (5.0, 4.9, 5.0 - ZONE, 3.4)
    }
    assert list(verdicts.values()) == [
        "backdoored",
        "not_established",
        "not_established",
        "nothing_found",
    ]


def test_what_stands_out_without_a_trigger_is_not_established() -> None:
    margin = replace(evidence("max_margin", [0.0, 9.0]), standing=9.0)
    verdict, reasons = verdict_on(1.0, 5.0, evidence("patch", [1.0, 0.0]), [margin])
    assert verdict == "not_established"
    assert reasons == ("label 1 stands out by max_margin, without trigger",)
    assert verdict_on(9.0, 5.0, None, [margin])[0] == "not_established"


class Colours(nn.Module):
    """Answers the strongest of three colours, or the first two of them."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(classes))

    def forward(self, x: Tensor) -> Tensor:
        return 20 * x.mean((2, 3))[:, : len(self.scale)] * self.scale


@pytest.mark.parametrize("classes", [2, 3])
def test_two_or_three_classes_are_too_few_to_compare(classes: int) -> None:
    labels = np.arange(120, dtype=np.int64) % classes
    images = np.random.default_rng(0).integers(0, 60, (120, 16, 17, 3)).astype(np.uint8)
    images[np.arange(120), ..., labels] += 90
    found = scan_model(Colours(classes), ImageSet(images, labels), classes=classes)
    assert found.verdict == "not_established" and found.backdoored is None
    assert found.reasons == (f"too few classes to compare: {classes}, at least 5 wanted",)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"model": len}, UsageError, "needs gradients"),
        ({"classes": 0}, UsageError, "classes must be at least 1, not 0"),
        ({"classes": 3}, DataError, "labels must be from 0 to 2, not 3"),
        ({"classes": 7}, ModelError, "knows 5 classes, not 7"),
        ({"false_alarm_rate": 0.01}, UsageError, "46 calibration nets support no smaller one"),
        ({"detectors": []}, UsageError, "at least one detector and a rate"),
    ],
)
def test_what_cannot_be_scanned_is_refused_in_one_line(
    given: dict, error: type[Exception], message: str
) -> None:
    usual = {"model": Planted(), "trusted": TRUSTED, "classes": CLASSES}
    with pytest.raises(error, match=message):
        scan_model(**usual | given)


@pytest.mark.parametrize(
    ("trusted_images", "reason"),
    [
        (
            TRUSTED.take(np.array([], np.int64)),
            "0 trusted images of 5 classes, at least 100 wanted",
        ),
        (TRUSTED.first(5), "5 trusted images of 5 classes, at least 100 wanted"),
        (
            TRUSTED.take(np.flatnonzero(TRUSTED.labels != 2).repeat(2)),
            "0 trusted images of class 2",
        ),
        (
            TRUSTED.take(np.flatnonzero(TRUSTED.labels == 1).repeat(5)),
            "0 trusted images of class 0",
        ),
    ],
)
def test_too_few_trusted_images_establish_nothing(trusted_images: ImageSet, reason: str) -> None:
    found = scan_model(Planted("patch"), trusted_images, classes=CLASSES)
    assert (found.verdict, found.backdoored, found.score) == ("not_established", None, None)
    assert reason in " ".join(found.reasons)
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["target_label"] is None


def test_no_p_value_is_smaller_than_its_calibration_supports(planted: ModelScan) -> None:
    assert planted.p_value == 1 / (CALIBRATION_NETS + 1) <= FALSE_ALARM_RATE


def test_a_model_that_has_learned_nothing_is_not_accused_and_not_cleared() -> None:
    untrained = build("small_cnn", (1, SIDE, SIDE), CLASSES, seed=0)
    found = scan_model(untrained, trusted(100), classes=CLASSES)
    assert found.verdict == "not_established"
    assert "of the 100 trusted images right, at least 80%" in found.reasons[0]


def test_the_smallest_p_value_rests_on_the_clean_nets_that_are_recorded() -> None:
    path = Path(__file__).parents[2] / "results" / "calibration.json"
    nets = json.loads(path.read_text(encoding="utf-8"))["nets"]
    assert len({json.dumps([one["net"], one["seed"]]) for one in nets}) == CALIBRATION_NETS
    assert not [one for one in nets if one["verdict"] == "backdoored"]
