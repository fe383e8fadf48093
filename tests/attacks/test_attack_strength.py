"""How strong attacks are: beside the closed form of a linear net, and beside each other."""

from __future__ import annotations

import pytest
import torch
from attack_models import images_of_the_middle, label_of, linear_net
from torch import Tensor, nn

from purpleteam.attacks import FGSM, PGD
from purpleteam.data.images import ImageSet
from purpleteam.models.devices import to_batch

NORMS: tuple[str, ...] = ("linf", "l2")


def nearest_boundary(net: nn.Sequential, x: Tensor, norm: str) -> float:
    """Return the least perturbation that moves the one image across a two-class linear net."""
    with torch.no_grad():
        normal = net[1].weight[1] - net[1].weight[0]
        margin = float((net(x)[0, 1] - net(x)[0, 0]).abs())
    dual = 1 if norm == "linf" else 2
    return margin / float(torch.linalg.vector_norm(normal, ord=dual))


def broken(attack: PGD | FGSM, net: nn.Module, x: Tensor) -> bool:
    return bool(attack.run(net, x, label_of(net, x)).broken.item())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("seed", range(3))
def test_a_linear_net_falls_just_above_its_closed_form_and_never_below(
    norm: str, seed: int
) -> None:
    net, x = linear_net(seed=seed), images_of_the_middle(1, seed=seed)
    least = nearest_boundary(net, x, norm)
    assert least < 0.3  # inside the cube, so the range plays no part
    assert broken(FGSM(norm=norm, epsilon=1.01 * least), net, x)
    assert broken(PGD(norm=norm, epsilon=1.01 * least, random_start=False), net, x)
    assert broken(PGD(norm=norm, epsilon=1.1 * least), net, x)
    assert not broken(PGD(norm=norm, epsilon=0.99 * least, restarts=3), net, x)


@pytest.mark.parametrize("norm", NORMS)
def test_the_example_of_a_linear_net_is_as_far_as_its_distance_says(norm: str) -> None:
    net, x = linear_net(), images_of_the_middle(1)
    least = nearest_boundary(net, x, norm)
    found = PGD(norm=norm, epsilon=2 * least).run(net, x, label_of(net, x))
    assert least <= found.distance.item() <= 2 * least + 1e-6


def some(images: ImageSet) -> tuple[Tensor, Tensor]:
    return to_batch(images.images), torch.from_numpy(images.labels.copy())


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.05), ("l2", 1.0)])
def test_pgd_is_at_least_as_strong_as_fgsm(
    standard: nn.Module, images: ImageSet, norm: str, epsilon: float
) -> None:
    x, y = some(images)
    single = FGSM(norm=norm, epsilon=epsilon).run(standard, x, y).broken.sum()
    assert PGD(norm=norm, epsilon=epsilon).run(standard, x, y).broken.sum() >= single > 0


def test_more_restarts_never_save_an_image() -> None:
    net, x = linear_net(), images_of_the_middle(50)
    y = label_of(net, x)
    one, ten = (
        PGD(epsilon=0.2, steps=1, step_size=1e-6, restarts=count).run(net, x, y).broken
        for count in (1, 10)
    )
    assert (ten | ~one).all()
    assert ten.sum() > one.sum() > 0


def test_a_larger_ball_breaks_more(standard: nn.Module, images: ImageSet) -> None:
    x, y = some(images)
    fallen = [
        int(PGD(epsilon=epsilon, steps=10).run(standard, x, y).broken.sum())
        for epsilon in (0.0, 0.02, 0.1, 0.4)
    ]
    assert fallen == sorted(fallen) and fallen[-1] == len(images)


def test_hardening_against_an_attack_helps_against_it(
    standard: nn.Module, hardened: nn.Module, images: ImageSet
) -> None:
    x, y = some(images)
    attack = PGD(epsilon=0.1, steps=20)
    assert attack.run(hardened, x, y).broken.sum() < attack.run(standard, x, y).broken.sum()
