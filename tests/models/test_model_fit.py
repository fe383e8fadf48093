"""What a first look at a brought model shows, and what it must not claim to see."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from models_tiny import Says, bars
from torch import Tensor, nn

from purpleteam.core.errors import ModelError
from purpleteam.data.images import ImageSet
from purpleteam.models import load
from purpleteam.models.adapters import NORMALISATIONS
from purpleteam.models.fit import examine
from purpleteam.models.loading import LoadedModel, opened

IMAGES = bars(90)


class Brightest(nn.Module):
    """Knows the bars: the scores are the mean brightness of each third, less the image's own."""

    def __init__(self, expects: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__()
        self.expects = expects

    def forward(self, x: Tensor) -> Tensor:
        x = self.expects(x)
        return 20 * (x.unflatten(2, (3, 4)).mean((1, 3, 4)) - x.mean((1, 2, 3))[:, None])


class After(nn.Module):
    """Puts a function behind the right scores."""

    def __init__(self, change: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.net, self.change = Brightest(), change

    def forward(self, x: Tensor) -> object:
        return self.change(self.net(x))


def folded(span: float) -> Callable[[Tensor], Tensor]:
    """Make a net blind to everything but images that range over `span`."""
    return lambda x: x if float(x.detach().amax() - x.detach().amin()) > span else 0 * x


def test_nothing_is_said_of_an_ordinary_model() -> None:
    assert examine(Brightest(), IMAGES) == ()
    assert examine(load("standard").module, digits()) == ()


def digits() -> ImageSet:
    from purpleteam.data.folders import load_dataset

    return load_dataset("digits").validation


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (lambda scores: scores.softmax(1), "it returns probabilities, not logits"),
        (lambda scores: scores.softmax(1).half().float(), "it returns probabilities"),
        (lambda scores: scores.log_softmax(1), "it returns log-probabilities"),
        (lambda scores: scores.sigmoid(), ""),
        (lambda scores: -scores.abs(), ""),
        (lambda scores: scores / 9, ""),
    ],
    ids=["softmax", "half", "log_softmax", "sigmoid", "negative", "flat"],
)
def test_distributions_are_told_from_logits(change: Callable[[Tensor], Tensor], note: str) -> None:
    found = [one for one in examine(After(change), IMAGES) if "returns" in one]
    assert len(found) == bool(note)
    assert all(one.startswith(note) for one in found)


@pytest.mark.parametrize(
    ("expects", "name"),
    [(lambda x: 1 - x, "inverted"), (folded(2), "bytes"), (lambda x: x.clamp(max=0), "signed")],
    ids=["inverted", "bytes", "signed"],
)
def test_the_range_that_a_model_expects_is_found(
    expects: Callable[[Tensor], Tensor], name: str
) -> None:
    (note,) = examine(Brightest(expects), IMAGES)
    assert f"100% with --normalise {name}" in note and "of 90 images in [0, 1] it gets" in note


def test_behind_the_layer_that_was_asked_for_nothing_more_is_offered() -> None:
    net = NORMALISATIONS["inverted"].before(Brightest(lambda x: 1 - x))
    assert examine(net, IMAGES) == ()
    assert examine(NORMALISATIONS["signed"].before(Brightest(lambda x: 1 - x)), IMAGES) == ()


def test_a_model_near_chance_in_every_range_is_left_in_peace() -> None:
    assert examine(After(lambda scores: 0 * scores), IMAGES) == ()
    shuffled = ImageSet(IMAGES.images, np.random.default_rng(0).permutation(IMAGES.labels))
    assert examine(Brightest(), shuffled) == ()


def test_a_few_images_are_too_few_to_speak_of_a_range() -> None:
    assert examine(Brightest(lambda x: 1 - x), IMAGES.first(3)) == ()


def test_images_of_sorted_classes_are_looked_at_evenly() -> None:
    order = IMAGES.labels.argsort(kind="stable")
    big = bars(900).take(bars(900).labels.argsort(kind="stable"))
    assert len(examine(Brightest(lambda x: 1 - x), big)) == 1
    assert examine(Brightest(), IMAGES.take(order)) == ()


def test_random_answers_are_said() -> None:
    def shaky(scores: Tensor) -> Tensor:
        return scores + 1e-3 * torch.randn(scores.shape, generator=rng)

    rng = torch.Generator().manual_seed(0)
    (note,) = examine(After(shaky), IMAGES)
    assert note.startswith("its answers change from call to call")


def test_an_answer_that_depends_on_the_neighbours_is_said() -> None:
    (note,) = examine(After(lambda scores: scores - scores.mean(0)), IMAGES)
    assert "depends on the images beside it" in note


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda scores: (scores[0], scores[0]), r"returned tuple, not logits \(16, cl"),
        (lambda scores: scores.mean(0, keepdim=True), r"returned \(1, 3\), not logits \(16, cl"),
        (lambda scores: scores * torch.nan, "returned NaN or infinite logits"),
        (lambda scores: scores[:, 0], r"returned \(16,\), not logits"),
        (lambda scores: {"score": scores}, "returned dict with 'score', not logits"),
    ],
    ids=["tuple", "mean", "nan", "flat", "dict"],
)
def test_answers_that_are_no_logits_are_refused(
    change: Callable[[Tensor], object], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        examine(After(change), IMAGES)


def test_images_that_it_does_not_take_are_refused() -> None:
    with pytest.raises(ModelError, match=r"does not take images of shape \(1, 12, 12\)"):
        examine(After(lambda scores: scores @ torch.zeros(2, 2)), IMAGES)


def test_the_model_is_left_as_it_was() -> None:
    net = Says(20.0).train()
    net.factor.requires_grad_(True)
    images = bars(6)
    examine(net, images)
    assert net.training and net.dropout.training and net.factor.requires_grad
    assert net.factor.grad is None


def test_notes_are_added_to_those_of_loading() -> None:
    loaded = LoadedModel("m", "sha256:0", After(lambda s: s.softmax(1)), notes=("loaded",))
    assert opened(loaded, IMAGES) is loaded
    found = loaded.noting(*examine(loaded.module, IMAGES))
    assert found.notes[0] == "loaded" and len(found.notes) == 2
    assert loaded.notes == ("loaded",)
