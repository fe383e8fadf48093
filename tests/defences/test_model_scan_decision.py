"""From evidence to a verdict: natural backdoors are set aside, and the rest decided alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from defences_planted import CLASSES, CORNER, SIDE, Planted, bars, trusted
from torch import Tensor, nn

from purpleteam.defences.detection.model import Evidence, ModelDetector, ModelScan, Null, Scanning
from purpleteam.defences.detection.model.scan import NATURAL_LABELS, decide
from purpleteam.defences.detection.recovered import RecoveredTrigger
from purpleteam.models.devices import to_batch

TRUSTED = trusted()
LIMIT = 5.0
PLANTED = 3
SOURCES = ((1,), (0,), (0, 1), (2, 4), (3,))


@dataclass(frozen=True, kw_only=True)
class Told(ModelDetector):
    """Finds what it was told for each class, at every look, and draws a stamp or a class's bar."""

    name: ClassVar[str] = "told"
    null: ClassVar[Null] = Null(location=0.0, scale=1.0, deviation=1.0)
    standings: tuple[float, ...] = (1.0,) * CLASSES
    stamps: tuple[int, ...] = (PLANTED,)

    def __post_init__(self) -> None:
        """Any number will do."""

    def examine(self, work: Scanning) -> Evidence:
        target = int(np.argmax(self.standings))
        return Evidence(
            detector=self.name,
            statistics=np.array(self.standings, float),
            standing=self.standings[target],
            target_label=target,
            sources=SOURCES,
            details={},
        )

    def recover(
        self, work: Scanning, target: int, sources: tuple[int, ...] | None
    ) -> RecoveredTrigger:
        mask = CORNER if target in self.stamps else np.broadcast_to(1.0, (SIDE, SIDE))
        bar = np.maximum(bars()[target], CORNER if target in self.stamps else 0)
        return RecoveredTrigger(
            kind="patch",
            target_label=target,
            source_labels=sources,
            mask=mask.astype(np.float32),
            pattern=bar[None].astype(np.float32),
        )


class Follower(nn.Module):
    """A student that follows the stamp on a share of the images that it is shown."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share, self.follows, self.knows_nothing = share, Planted("patch", PLANTED), Planted()

    def forward(self, x: Tensor) -> Tensor:
        rank = x.sum((1, 2, 3)).argsort().argsort()
        moved = rank < round(self.share * len(x))
        return torch.where(moved[:, None], self.follows(x), self.knows_nothing(x))


def decided(*detectors: Told, student: nn.Module | None = None) -> ModelScan:
    """Decide on a net with a stamp towards class 3, of which its student knows nothing."""
    work = Scanning(
        model=Planted("patch", PLANTED),
        images=to_batch(TRUSTED.images),
        labels=TRUSTED.labels,
        classes=CLASSES,
        seed=0,
        reference=student or Planted(),
    )
    return decide(work, detectors, [one.examine(work) for one in detectors], LIMIT)


def test_what_stands_out_after_a_natural_label_is_judged_alike() -> None:
    found = decided(Told(standings=(0, 9, 1, 8, 0)))
    assert (found.verdict, found.target_label, found.set_aside) == ("backdoored", 3, ((1, "told"),))
    assert found.source_labels == SOURCES[3] and found.trigger is not None
    assert (found.score, found.looks) == (8, (8, 8))
    assert (found.trigger_success, found.student_success) == (1, 0)
    assert found.evidence[0].target_label == 1  # what was found is kept as it was


@pytest.mark.parametrize(("share", "verdict"), [(0.275, "backdoored"), (0.325, "nothing_found")])
def test_a_planted_trigger_moves_few_images_of_a_student(share: float, verdict: str) -> None:
    found = decided(Told(standings=(0, 1, 1, 9, 0)), student=Follower(share))
    assert found.verdict == verdict and found.trigger_success == 1
    assert found.student_success == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize(
    ("second", "verdict"), [(1.0, "nothing_found"), (LIMIT - 0.1, "not_established")]
)
def test_without_the_natural_label_a_clean_model_is_let_through(
    second: float, verdict: str
) -> None:
    found = decided(Told(standings=(0, 9, 1, second, 0)))
    assert (found.verdict, found.set_aside) == (verdict, ((1, "told"),))
    assert found.target_label is None and found.trigger is None
    assert found.student_success == 1  # of the trigger that was tried


def test_a_label_set_aside_is_not_cleared_where_another_detector_accuses_it() -> None:
    class Other(Told):
        name = "other"

    drawn_as_a_bar = Told(standings=(0, 0, 0, 9, 0), stamps=())
    found = decided(drawn_as_a_bar, Other(standings=(0, 0, 0, 8, 0)))
    assert (found.verdict, found.target_label, found.kind) == ("backdoored", 3, "other")
    assert found.set_aside == ((3, "told"),)


def test_where_many_labels_are_near_by_nature_nothing_is_established() -> None:
    found = decided(Told(standings=(9, 8, 7, 6, 6), stamps=()))
    assert found.verdict == "not_established" and len(found.set_aside) == NATURAL_LABELS
    assert found.reasons == (
        "labels 0, 1, 2, 3 stand out, and all by nature: a student follows their triggers",
    )


def test_a_net_whose_classes_do_not_stand_out_is_looked_at_once() -> None:
    found = decided(Told())
    assert (found.verdict, found.looks, found.set_aside) == ("nothing_found", (1.0,), ())
    assert found.student_success is None
