"""Minimum-norm attacks on nets small enough to search everywhere, and beside other libraries."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from linear_truth import linear, middling, nearest
from torch import Tensor, nn

from purpleteam.attacks.evasion import MinimumNormAttack
from purpleteam.attacks.evasion.carlini_wagner import CarliniWagner
from purpleteam.attacks.evasion.ddn import DDN
from purpleteam.attacks.evasion.deepfool import DeepFool
from purpleteam.attacks.evasion.fab import FAB, FABT
from purpleteam.attacks.evasion.fmn import FMN
from purpleteam.attacks.norms import distance
from purpleteam.data.images import ImageSet
from purpleteam.models.devices import to_batch

POINTS = 151
"""Of the grid, along each of the two pixels."""
SEARCHES: list[tuple[MinimumNormAttack, float]] = [
    *((FAB(norm=norm, steps=15, restarts=2), 1.05) for norm in ("linf", "l2", "l1")),
    *((FABT(norm=norm, steps=15, restarts=2), 1.05) for norm in ("linf", "l2", "l1")),
    (DDN(steps=50), 1.1),
    (CarliniWagner(steps=50, searches=4, step_size=0.1, constant=0.1), 1.1),
    *((FMN(norm=norm, steps=50), 1.1) for norm in ("linf", "l2", "l1")),
    *((DeepFool(norm=norm), 1.5) for norm in ("linf", "l2")),
]
"""With how far, at most, the median of what is found lies beside the truth."""


def bent_net(seed: int) -> nn.Sequential:
    """Return a net of two pixels and three classes whose boundaries have corners."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Flatten(), nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 3))
    with torch.no_grad():
        net[1].weight.mul_(4)
        net[3].weight.mul_(4)
        net[1].bias.copy_(-0.5 * net[1].weight.sum(1) + 0.3 * net[1].bias.sign())
    return net.eval()


def everywhere() -> Tensor:
    line = torch.linspace(0, 1, POINTS)
    return torch.cartesian_prod(line, line).view(-1, 1, 1, 2)


def truth(net: nn.Module, x: Tensor, y: Tensor, norm: str) -> Tensor:
    """Return the distance of each image from the nearest point of the grid that is wrong."""
    grid = everywhere()
    with torch.no_grad():
        labels = net(grid).argmax(1)
    found = []
    for image, label in zip(x, y, strict=True):
        wrong = grid[labels != label]
        away = distance(wrong, image.expand_as(wrong), norm)
        found.append(away.min() if len(wrong) else torch.tensor(torch.inf).double())
    return torch.stack(found)


@pytest.mark.parametrize(
    ("attack", "near"), SEARCHES, ids=lambda one: str(getattr(one, "name", ""))
)
def test_nothing_nearer_than_the_nearest_is_found_and_most_are_near(
    attack: MinimumNormAttack, near: float
) -> None:
    cell = 1.5 / (POINTS - 1) * (2 if attack.norm == "l1" else 1)
    ratios = []
    for seed in (0, 2):
        net = bent_net(seed)
        x = torch.rand(12, 1, 1, 2, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            y = net(x).argmax(1)
        least = truth(net, x, y, attack.norm)
        found = attack.run(net, x, y)
        assert not found.broken[torch.isinf(least)].any()
        seen = found.broken & torch.isfinite(least)
        assert (found.distance[seen] >= least[seen] - cell).all()
        there = torch.where(found.broken, found.distance, torch.inf)[torch.isfinite(least)]
        ratios.append(there / (least[torch.isfinite(least)] + cell))
    every = torch.cat(ratios)
    assert len(every) >= 20 and every.median() <= near


FROM_THE_IMAGE: list[MinimumNormAttack] = [
    DDN(candidates=1),
    CarliniWagner(candidates=1, steps=150, searches=8, step_size=0.02, constant=1e-4),
    *(FMN(norm=norm, candidates=1) for norm in ("linf", "l2", "l1", "l0")),
]


@pytest.mark.parametrize("attack", FROM_THE_IMAGE, ids=lambda one: f"{one.name}-{one.norm}")
def test_the_search_itself_ends_close_without_a_start_near_the_boundary(
    attack: MinimumNormAttack,
) -> None:
    net = linear((3, 3, 5), 2, seed=3)
    x = middling(net, 8, (3, 3, 5), seed=3)
    with torch.no_grad():
        y = net(x).argmax(1)
    found = attack.run(net, x, y)
    close = 1.05 if attack.norm in ("l2", "linf") else 1.25
    assert found.broken.all()
    assert (found.distance.numpy() <= close * nearest(net, x, y, attack.norm)).all()


def test_the_final_search_takes_back_what_a_step_went_too_far() -> None:
    net = linear((1, 5, 6), 2, seed=1)
    x = middling(net, 4, (1, 5, 6), seed=1)
    with torch.no_grad():
        y = net(x).argmax(1)
    found = FAB(norm="l2", steps=1, overshoot=1.9).run(net, x, y)
    assert (found.distance.numpy() <= 1.01 * nearest(net, x, y, "l2")).all()


def test_a_step_is_drawn_towards_the_image_by_the_share_that_the_paper_says() -> None:
    x = torch.tensor([0.5, 0.5]).view(1, 1, 1, 2)
    x_adv = torch.tensor([0.8, 0.5]).view(1, 1, 1, 2)
    normal = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)  # the boundary is where the first is 0.9
    value = torch.tensor([-0.1])
    bias = min(0.1 / (0.1 + 0.4), 0.1)
    expected = (1 - bias) * (0.8 + 1.05 * 0.1) + bias * (0.5 + 1.05 * 0.4)
    for norm in ("linf", "l2", "l1"):
        found = FAB(norm=norm)._onto(x_adv, x, value, normal)
        torch.testing.assert_close(found.flatten(), torch.tensor([expected, 0.5]))


def test_deepfool_asks_no_more_about_an_image_once_it_has_an_example() -> None:
    net = linear((1, 5, 6), 3, seed=1)
    x = middling(net, 4, (1, 5, 6), seed=1)
    with torch.no_grad():
        y = net(x).argmax(1)
    found = DeepFool().run(net, x, y)
    assert found.broken.all()
    assert found.cost.backward == 4 * 2 * 2  # a step, and the look that finds it done, two classes


SHARP: list[MinimumNormAttack] = [
    *(FAB(norm=norm, steps=3) for norm in ("linf", "l2", "l1")),
    *(FAB(norm=norm, steps=12, bias=0.0, candidates=3) for norm in ("linf", "l2")),
    DDN(steps=40),
    CarliniWagner(steps=40, searches=5, step_size=0.05, constant=0.01),
    *(FMN(norm=norm, steps=40) for norm in ("linf", "l2", "l1")),
]


@pytest.mark.parametrize("attack", SHARP, ids=lambda one: f"{one.name}-{one.norm}")
def test_a_little_nearer_an_example_is_none(
    standard: nn.Module, images: ImageSet, attack: MinimumNormAttack
) -> None:
    x, y = some(images)
    found = attack.run(standard, x, y)
    moved = found.broken & (found.distance > 0)
    nearer = x + 0.95 * (found.x_adv - x)
    with torch.no_grad():
        still = (standard(nearer).argmax(1) != y)[moved]
    assert moved.sum() >= 10 and still.float().mean() <= 0.1


def some(images: ImageSet) -> tuple[Tensor, Tensor]:
    few = images.first(20)
    return to_batch(few.images), torch.from_numpy(few.labels.copy())


def median(attack: MinimumNormAttack, net: nn.Module, images: ImageSet) -> float:
    found = attack.run(net, *some(images))
    return float(torch.where(found.broken, found.distance, torch.inf).median())


PEERS: list[tuple[str, dict[str, Any], MinimumNormAttack]] = [
    ("L2DeepFoolAttack", {"loss": "logits"}, DeepFool(norm="l2")),
    ("LinfDeepFoolAttack", {"loss": "logits"}, DeepFool(norm="linf")),
    ("DDNAttack", {"steps": 50}, DDN(steps=50)),
    ("L2FMNAttack", {"steps": 50}, FMN(norm="l2", steps=50)),
    ("LInfFMNAttack", {"steps": 50}, FMN(norm="linf", steps=50)),
    ("L1FMNAttack", {"steps": 50}, FMN(norm="l1", steps=50)),
    ("L0FMNAttack", {"steps": 50}, FMN(norm="l0", steps=50)),
]


@pytest.mark.parametrize(("theirs", "options", "ours"), PEERS, ids=lambda one: str(one)[:12])
def test_no_farther_than_foolbox(
    standard: nn.Module,
    images: ImageSet,
    theirs: str,
    options: dict[str, Any],
    ours: MinimumNormAttack,
) -> None:
    foolbox = pytest.importorskip("foolbox")
    x, y = some(images)
    model = foolbox.PyTorchModel(standard, bounds=(0, 1), device="cpu")
    x_adv, _, broken = getattr(foolbox.attacks, theirs)(**options)(model, x, y, epsilons=None)
    away = torch.where(broken, distance(x_adv, x, ours.norm), torch.inf)
    assert median(ours, standard, images) <= 1.02 * float(away.median())


@pytest.mark.parametrize(("norm", "theirs"), [("linf", "Linf"), ("l2", "L2")])
def test_fab_finds_what_the_reference_finds(
    standard: nn.Module, images: ImageSet, norm: str, theirs: str
) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    x, y = some(images)
    reference = torchattacks.FAB(standard, norm=theirs, eps=28.0, steps=10, n_restarts=1)
    away = distance(reference(x, y), x, norm)
    found = FAB(norm=norm, steps=10).run(standard, x, y)
    assert found.broken.all()
    assert float(found.distance.median()) == pytest.approx(float(away.median()), rel=0.02)


def test_another_start_never_moves_an_example_away_and_some_nearer() -> None:
    net, x = bent_net(0), torch.rand(40, 1, 1, 2, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        y = net(x).argmax(1)
    once, often = (FAB(norm="l2", steps=10, restarts=n).run(net, x, y) for n in (1, 5))
    found = once.broken
    assert (often.distance[found] <= once.distance[found]).all()
    assert (often.distance[found] < 0.98 * once.distance[found]).any()


def test_more_targets_never_move_an_example_away(standard: nn.Module, images: ImageSet) -> None:
    x, y = some(images)
    one, all_of_them = (
        FABT(norm="linf", steps=5, candidates=n).run(standard, x, y) for n in (2, 10)
    )
    assert (all_of_them.distance <= one.distance + 1e-6).all()


REFUSED = [
    (FAB, {"bias": 1.5}, "bias must be from 0 to 1"),
    (FAB, {"backward": 1.0}, "backward must be between 0 and 1"),
    (FAB, {"overshoot": 0.9}, "overshoot must be at least 1"),
    (FABT, {"candidates": 1}, "candidates must be at least 2"),
    (DeepFool, {"overshoot": -0.1}, "overshoot must be at least 0"),
    (DDN, {"change": 1.0}, "change must be between 0 and 1"),
    (DDN, {"radius": 0.0}, "radius must be above 0"),
    (FMN, {"last_change": 0.5}, "change must be under 1 and at least last_change"),
    (CarliniWagner, {"searches": 0}, "searches must be at least 1"),
    (CarliniWagner, {"confidence": -1.0}, "confidence must be at least 0"),
]


@pytest.mark.parametrize(("kind", "values", "message"), REFUSED)
def test_a_value_that_makes_no_sense_is_refused(
    kind: type[MinimumNormAttack], values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        replace(kind(), **values)
