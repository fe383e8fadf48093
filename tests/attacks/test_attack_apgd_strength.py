"""Auto-PGD on nets that read digits, beside PGD and beside a peer's code at as many steps."""

from __future__ import annotations

import importlib
import warnings
from types import ModuleType

import pytest
import torch
from attack_models import label_of
from torch import Tensor, nn

from purpleteam.attacks.evasion.apgd import APGDCE, APGDT, AutoPGD
from purpleteam.attacks.evasion.pgd import PGD
from purpleteam.data.images import ImageSet
from purpleteam.models.devices import frozen, to_batch

BALLS: tuple[tuple[str, float], ...] = (("linf", 0.13), ("l2", 1.6), ("l1", 8.0))


@pytest.fixture(scope="module")
def peer() -> ModuleType:
    pytest.importorskip("torchattacks", exc_type=ImportError)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("torchattacks")


def right(net: nn.Module, images: ImageSet, n: int) -> tuple[Tensor, Tensor]:
    """Return the first `n` images that the net gets right."""
    x, y = to_batch(images.images), torch.from_numpy(images.labels.copy())
    good = (label_of(net, x) == y).nonzero().flatten()[:n]
    return x[good], y[good]


@pytest.mark.parametrize(("norm", "epsilon"), BALLS)
def test_it_is_at_least_as_strong_as_pgd(
    hardened: nn.Module, images: ImageSet, norm: str, epsilon: float
) -> None:
    x, y = right(hardened, images, 50)
    plain = PGD(norm=norm, epsilon=epsilon, steps=20).run(hardened, x, y).broken.sum()
    climbed, aimed = (
        attack(norm=norm, epsilon=epsilon, steps=20).run(hardened, x, y).broken.sum()
        for attack in (APGDCE, APGDT)
    )
    assert len(x) > aimed >= climbed >= plain > 0


@pytest.mark.parametrize(
    ("attack", "named", "norm", "epsilon"),
    [(APGDCE, "APGD", *BALLS[0]), (APGDCE, "APGD", *BALLS[1]), (APGDT, "APGDT", *BALLS[0])],
)
def test_it_agrees_with_a_peer_at_as_many_steps(
    hardened: nn.Module,
    images: ImageSet,
    peer: ModuleType,
    attack: type[AutoPGD],
    named: str,
    norm: str,
    epsilon: float,
) -> None:
    x, y = right(hardened, images, 30)
    fell = attack(norm=norm, epsilon=epsilon).run(hardened, x, y).broken
    with frozen(hardened):
        there = getattr(peer, named)(hardened, norm=norm.capitalize(), eps=epsilon, steps=100)
        fell_there = label_of(hardened, there(x, y)) != y
    assert (fell != fell_there).sum() <= 1
