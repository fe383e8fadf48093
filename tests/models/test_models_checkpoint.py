"""Checkpoints: only a whole one of the very same training is continued."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from models_tiny import QUICK, SHAPE, bars, equal_weights
from torch import nn

from purpleteam.data.images import ImageSet
from purpleteam.models import Recipe, Training, build, train
from purpleteam.models.training import Validation


@dataclass(frozen=True, kw_only=True)
class Adversarial(Recipe):
    """The same fields as a recipe, under another name."""


class Asked:
    """What a training is asked, one thing of which a test changes."""

    def __init__(self, images: ImageSet, validation: ImageSet, checkpoint: Path) -> None:
        self.images, self.validation, self.checkpoint = images, validation, checkpoint
        self.recipe: Recipe = replace(QUICK, epochs=2)
        self.seed = self.start = 0

    def train(self, epochs_left: list[int] | None = None) -> Training:
        """Train, noting in `epochs_left` each epoch that is really done."""

        def validate(module: nn.Module) -> Validation:
            if epochs_left is not None:
                epochs_left.append(len(epochs_left))
            return Validation(validation_accuracy=0.5)

        net = build("small_cnn", SHAPE, 3, seed=self.start)
        return train(
            net,
            self.images,
            self.validation,
            self.recipe,
            seed=self.seed,
            validate=validate,
            checkpoint=self.checkpoint,
        )


@pytest.fixture(scope="module")
def trained(images, validation, tmp_path_factory) -> bytes:
    made = Asked(images, validation, tmp_path_factory.mktemp("trained") / "c.safetensors")
    made.train()
    return made.checkpoint.read_bytes()


@pytest.fixture
def asked(images, validation, trained, tmp_path) -> Asked:
    made = Asked(images, validation, tmp_path / "c.safetensors")
    made.checkpoint.write_bytes(trained)
    return made


def epochs_done(asked: Asked) -> int:
    done: list[int] = []
    asked.train(done)
    return len(done)


def test_a_checkpoint_of_the_same_training_is_continued(asked):
    assert epochs_done(asked) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"start": 1},
        {"images": bars(93)},
        {"validation": bars(33)},
        {"recipe": replace(QUICK, epochs=3)},
        {"recipe": replace(QUICK, epochs=2, learning_rate=1e-3)},
        {"recipe": replace(QUICK, epochs=2, augmentation="none")},
        {"recipe": Adversarial(**vars(replace(QUICK, epochs=2)))},
    ],
    ids=lambda changes: ",".join(changes),
)
def test_a_checkpoint_of_another_training_is_not_continued(asked, changes):
    for name, value in changes.items():
        setattr(asked, name, value)
    assert epochs_done(asked) == asked.recipe.epochs


def test_a_checkpoint_made_on_other_threads_is_not_continued(asked, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    assert epochs_done(asked) == 2


@pytest.mark.parametrize("part", [0.0, 0.001, 0.05, 0.5, 0.9, 0.999])
def test_a_cut_checkpoint_is_not_continued(asked, part):
    content = asked.checkpoint.read_bytes()
    asked.checkpoint.write_bytes(content[: int(part * len(content))])
    assert epochs_done(asked) == 2


@pytest.mark.parametrize("part", [0.0, 0.3, 0.5, 0.7, 0.9, 0.9999])
def test_a_checkpoint_with_a_changed_byte_is_not_continued(asked, part):
    content = bytearray(asked.checkpoint.read_bytes())
    content[int(part * len(content))] ^= 64
    asked.checkpoint.write_bytes(bytes(content))
    assert epochs_done(asked) == 2


@pytest.mark.parametrize("old", ['\\"loss\\": ', '\\"epoch\\": '])
def test_a_checkpoint_with_a_changed_history_is_not_continued(asked, old):
    content = asked.checkpoint.read_bytes()
    place = content.index(old.encode()) + len(old)
    other = b"7" if content[place : place + 1] != b"7" else b"8"
    asked.checkpoint.write_bytes(content[:place] + other + content[place + 1 :])
    assert epochs_done(asked) == 2


def test_what_is_no_checkpoint_at_all_is_replaced(asked):
    asked.checkpoint.write_bytes(b"not a checkpoint")
    assert epochs_done(asked) == 2
    assert epochs_done(asked) == 0


def test_nothing_but_the_checkpoint_is_left_behind(asked):
    assert list(asked.checkpoint.parent.iterdir()) == [asked.checkpoint]


def test_a_net_with_tied_weights_can_be_continued(images, validation, tmp_path):
    def fit(checkpoint: Path | None) -> Training:
        net = nn.Sequential(build("small_cnn", SHAPE, 3, seed=0), nn.Linear(3, 3), nn.Linear(3, 3))
        with torch.no_grad():
            for layer in net[1:]:
                layer.weight.copy_(torch.eye(3))
                layer.bias.zero_()
        net[2].weight = net[1].weight
        return train(net, images, validation, QUICK, seed=0, checkpoint=checkpoint)

    with torch.random.fork_rng(devices=[]):
        one, first, again = fit(None), fit(tmp_path / "c"), fit(tmp_path / "c")
    assert equal_weights(one.module, first.module)
    assert equal_weights(one.module, again.module)
