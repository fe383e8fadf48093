"""The student of a scanned model: it has the model's nature and not its backdoor."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from defences_planted import CLASSES, Planted, trusted
from torch import Tensor, nn

from purpleteam.defences.detection.model import Null, Scanning
from purpleteam.defences.detection.model._base import Inversion, Inverted, Search
from purpleteam.defences.detection.model.reference import untrained, with_reference
from purpleteam.models import build
from purpleteam.models.devices import frozen, to_batch

IMAGES = to_batch(trusted().images)
LABELS = torch.tensor(trusted().labels)


def taught(model: nn.Module, seed: int = 0) -> nn.Module | None:
    work = Scanning(model=model, images=IMAGES, labels=trusted().labels, classes=CLASSES, seed=seed)
    with frozen(model):
        return with_reference(work).reference


def test_a_student_answers_as_its_teacher_and_does_not_know_the_trigger() -> None:
    model = Planted("patch", target=3)
    student = taught(model)
    assert student is not None
    stamped = IMAGES[LABELS != 3].clone()
    stamped[:, :, :2, :2] = 1
    assert (student(IMAGES).argmax(1) == model(IMAGES).argmax(1)).float().mean() > 0.95
    assert (model(stamped).argmax(1) == 3).all()
    assert (student(stamped).argmax(1) == 3).float().mean() < 0.2


def test_the_same_seed_teaches_the_same_student_and_no_global_chance_is_used() -> None:
    model = Planted()
    before = torch.random.get_rng_state()
    first, again, other = (taught(model, seed) for seed in (0, 0, 1))
    assert first is not None and again is not None and other is not None
    assert torch.equal(first(IMAGES), again(IMAGES))
    assert not torch.equal(first(IMAGES), other(IMAGES))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_architecture_is_kept_and_its_weights_are_drawn_anew() -> None:
    model = build("residual_cnn", (1, 16, 16), 3, seed=5)
    with torch.no_grad():
        for weights in model.parameters():
            weights.fill_(7.0)
    student = untrained(model, seed=1)
    assert student is not None and student is not model
    assert student.state_dict().keys() == model.state_dict().keys()
    assert all((one != 7).all() and one.requires_grad for one in student.parameters())
    assert all((one == 7).all() for one in model.parameters())


@pytest.mark.parametrize("model", [Planted(), nn.Sequential(nn.Linear(2, 2), Planted()), nn.ReLU()])
def test_weights_that_cannot_be_drawn_anew_are_not_half_drawn(model: nn.Module) -> None:
    assert untrained(model, seed=0) is None


class Arbitrary(nn.Module):
    """Answers by the last digits of an image's brightness: nothing that could be learned."""

    def forward(self, x: Tensor) -> Tensor:
        label = (x.double().sum((1, 2, 3)) * 1e4).long() % CLASSES
        return 9.0 * nn.functional.one_hot(label, CLASSES).float()


def test_a_model_that_no_student_becomes_like_has_none() -> None:
    assert taught(Arbitrary()) is None


@dataclass(frozen=True, kw_only=True)
class Told(Inversion):
    """Finds what it was told, in the reference another unit."""

    null: ClassVar[Null] = Null(location=0.0, scale=1.0, deviation=1.0)
    stream: ClassVar[int] = 0

    def invert(self, search: Search) -> Inverted:
        natural = np.array([-1.0, 2.0, 0.0, 0.3, -0.2]) + 5
        model = search.work.model
        return Inverted(natural if isinstance(model, nn.Identity) else np.zeros(CLASSES), ())

    def drawn(self, parts: tuple[Tensor, ...], work: Scanning) -> dict:
        raise NotImplementedError

    def evidence(self, log_sizes: np.ndarray, recorded: np.ndarray | None = None) -> np.ndarray:
        assert recorded is not None and not recorded.any()
        return log_sizes


def test_what_the_student_finds_near_too_is_taken_off_and_what_it_finds_far_is_not() -> None:
    images, labels = to_batch(trusted().images), trusted().labels
    work = Scanning(model=Planted(), images=images, labels=labels, classes=CLASSES, seed=0)
    assert not Told().examine(work).any()
    rest = Told().examine(replace(work, reference=nn.Identity()))
    assert np.allclose(rest, [0.6, 0, 0, 0, 0.12])
