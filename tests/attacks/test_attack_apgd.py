"""Auto-PGD beside closed forms: how strong it is, and how it finds its step sizes."""

from __future__ import annotations

import pytest
import torch
from attack_models import images_of_the_middle, label_of, linear_net
from torch import Tensor, nn

from purpleteam.attacks.evasion import EvasionAttack
from purpleteam.attacks.evasion.apgd import APGDCE, APGDDLR, APGDT, AutoPGD, _reviews, _sparse
from purpleteam.attacks.evasion.pgd import PGD
from purpleteam.attacks.norms import NORMS, Noise, distance
from purpleteam.core.errors import UsageError
from purpleteam.models.inference import Nets

THREE: tuple[str, ...] = ("linf", "l2", "l1")


def nearest_boundaries(net: nn.Sequential, x: Tensor, norm: str) -> Tensor:
    """Return for each image the least perturbation that reaches another class."""
    with torch.no_grad():
        scores, weight = net(x), net[1].weight.detach()
    found = []
    for row, image in zip(scores, x.flatten(1), strict=True):
        y = int(row.argmax())
        others = [label for label in range(len(row)) if label != y]
        found.append(
            min(
                least_change(float(row[y] - row[o]), weight[o] - weight[y], image, norm)
                for o in others
            )
        )
    return torch.tensor(found)


def least_change(gap: float, slope: Tensor, x: Tensor, norm: str) -> float:
    if norm != "l1":
        return gap / float(torch.linalg.vector_norm(slope, ord=1 if norm == "linf" else 2))
    length = 0.0  # the steepest value first, as far as the range lets it go
    for place in slope.abs().argsort(descending=True).tolist():
        room = float(1 - x[place] if slope[place] > 0 else x[place])
        step = min(room, gap / float(slope[place].abs()))
        length, gap = length + step, gap - step * float(slope[place].abs())
        if gap <= 1e-9:
            return length
    return float("inf")


def check_against(least: Tensor, attack: EvasionAttack, net: nn.Module, x: Tensor) -> None:
    fell = attack.run(net, x, label_of(net, x)).broken
    assert (
        fell[1.02 * least < attack.epsilon].all() and not fell[0.999 * least > attack.epsilon].any()
    )
    assert 3 < fell.sum() < len(x) - 3


@pytest.mark.parametrize("norm", THREE)
@pytest.mark.parametrize(
    ("attack", "classes"), [(APGDCE, 2), (APGDDLR, 3), (APGDT, 4), (APGDT, 10)]
)
def test_a_linear_net_falls_just_above_its_closed_form_and_never_below(
    attack: type[AutoPGD], classes: int, norm: str
) -> None:
    net, x = linear_net(classes, seed=1), images_of_the_middle(13, seed=1)
    least = nearest_boundaries(net, x, norm)
    check_against(least, attack(norm=norm, epsilon=float(least.median()), steps=20), net, x)


def test_the_way_through_larger_balls_ends_in_the_small_one() -> None:
    net, x = linear_net(), images_of_the_middle(20)
    least = nearest_boundaries(net, x, "l1")
    attack = APGDCE(norm="l1", epsilon=float(least.median()), steps=40, large_start=True)
    check_against(least, attack, net, x)
    for steps in (1, 3, 4, 7, 100):
        balls = APGDCE(norm="l1", steps=steps, large_start=True)._balls()
        assert sum(count for _, count in balls) == steps and all(count for _, count in balls)
    with pytest.raises(ValueError, match="large_start is defined in l1 alone"):
        APGDCE(large_start=True)


class Bowl(nn.Module):
    """Errs on nothing but a small sphere around one point."""

    def __init__(self, centre: Tensor, radius: float) -> None:
        super().__init__()
        self.centre, self.radius = centre, radius

    def forward(self, x: Tensor) -> Tensor:
        value = self.radius**2 - (x - self.centre).square().flatten(1).sum(1)
        return torch.stack((torch.zeros_like(value), value), 1)


@pytest.mark.parametrize(("norm", "epsilon", "radius"), [("linf", 0.4, 0.02), ("l2", 1.2, 0.005)])
def test_steps_shrink_until_a_tiny_sphere_is_hit(norm: str, epsilon: float, radius: float) -> None:
    x = images_of_the_middle(10)
    y, net = torch.zeros(10, dtype=torch.int64), Bowl(x[:1] + 0.05, radius)
    assert APGDCE(norm=norm, epsilon=epsilon).run(net, x, y).broken.all()
    assert APGDCE(norm=norm, epsilon=epsilon, rho=0.0).run(net, x, y).broken.sum() < 5
    assert PGD(norm=norm, epsilon=epsilon, steps=100).run(net, x, y).broken.sum() < 8


def test_no_image_notices_its_neighbours() -> None:
    x = images_of_the_middle(8)
    y, net = torch.zeros(8, dtype=torch.int64), Bowl(x[:1] + 0.05, radius=1e-9)
    index = torch.arange(8)
    for norm, epsilon in (("linf", 0.4), ("l2", 1.2), ("l1", 4.0)):
        attack = APGDCE(norm=norm, epsilon=epsilon, steps=20)
        alone = [attack(net, x[i], y[i], index=i) for i in index.split(5)]
        assert torch.allclose(attack(net, x, y), torch.cat(alone), atol=1e-6)


def test_step_sizes_are_reviewed_when_the_paper_says() -> None:
    assert sorted(_reviews(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert sorted(_reviews(10)) == [3, 5, 6, 7, 8, 9, 10]


def test_a_loss_that_rises_without_a_new_best_halves_the_step_all_the_same() -> None:
    seen: list[Tensor] = []

    def first_best_then_slowly_up_from_below(x: Tensor) -> Tensor:
        if x.requires_grad:
            seen.append(x.detach().clone())
        value = -5.0 if len(seen) == 1 else -9 + 0.01 * len(seen)
        height = value + x.flatten(1).sum(1) - x.flatten(1).sum(1).detach()
        return torch.stack((torch.zeros_like(height), height), 1)

    x = images_of_the_middle(1)
    nets = Nets.of(first_best_then_slowly_up_from_below, x)
    seen.clear()
    APGDCE(epsilon=0.1).run(nets, x, torch.tensor([0]))
    corner = [torch.allclose(x_adv, x + 0.1) for x_adv in seen]
    assert all(corner[2:23]) and not corner[23]  # back to the start, by half a step
    assert all(corner[30:58]) and not corner[58]  # not at 41, the review after a halving, but at 57


def test_a_run_takes_its_steps_and_one_look_at_the_last_point() -> None:
    net, x = linear_net(), images_of_the_middle(3)
    cost = APGDCE(epsilon=1e-3, steps=7).run(net, x, label_of(net, x)).cost
    assert (cost.backward, cost.forward) == (3 * 8, 3 * 8 + 3)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_run_starts_on_the_border_of_the_ball(norm: str) -> None:
    x = images_of_the_middle(8)
    start = NORMS[norm].rim(x, 0.3, Noise(0, torch.arange(8)))
    assert torch.allclose(distance(start, x, norm), torch.full((8,), 0.3).double(), atol=1e-6)


def test_a_sparse_step_has_length_one_and_moves_the_largest_slopes() -> None:
    gradient = torch.arange(-8.0, 8.0).view(1, 1, 4, 4).repeat(2, 1, 1, 1)
    step = _sparse(gradient, torch.tensor([2.5, 100.0])).flatten(1)
    assert step[0].nonzero().flatten().tolist() == [0, 1, 15]  # -8, -7 and 7, which ties
    assert (step[1] != 0).sum() == 15  # all but the slope of 0
    assert torch.allclose(step.abs().sum(1), torch.ones(2))


def test_targets_are_the_likeliest_wrong_classes_however_many_there_are() -> None:
    x = images_of_the_middle(4)
    for classes, aims in ((4, 3), (10, 9), (100, 9)):
        net = linear_net(classes)
        cost = APGDT(epsilon=1e-6, steps=3).run(net, x, label_of(net, x)).cost
        assert cost.backward == 4 * aims * 4
    for classes in (2, 3):
        net = linear_net(classes)
        y = label_of(net, x)
        with pytest.raises(UsageError, match=rf"at least 4 classes, the model has {classes}"):
            APGDT().run(net, x, y)
        assert APGDT(loss="margin", epsilon=0.9).run(net, x, y).broken.all()
    with pytest.raises(UsageError, match="at least 3 classes"):
        APGDDLR().run(linear_net(2), x, y.clamp(0, 1))


@pytest.mark.parametrize(
    ("values", "message"),
    [({"rho": 1.5}, "rho must be from 0 to 1"), ({"targets": 0}, "targets must be at least 1")],
)
def test_what_makes_no_sense_is_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        APGDT(**values)  # type: ignore[arg-type]


class Trembling(nn.Module):
    """A linear net whose slopes shake more than they point."""

    def __init__(self, net: nn.Sequential, shake: float) -> None:
        super().__init__()
        self.net, self.shake = net, shake
        self.rng = torch.Generator().manual_seed(0)

    def forward(self, x: Tensor) -> Tensor:
        noise = torch.randn(len(x), 16, generator=self.rng)
        tilt = ((x - 0.5).flatten(1) * noise).sum(1, keepdim=True) * self.shake
        return self.net(x) + torch.cat((tilt, -tilt), 1)


def test_averaged_gradients_find_their_way_through_a_random_net() -> None:
    net, x = linear_net(), images_of_the_middle(60)
    y = label_of(net, x)
    truly_wrong = []
    for samples in (1, 20):
        random = Trembling(net, shake=1.4)
        found = APGDCE(epsilon=0.03, steps=10, samples=samples).run(random, x, y)
        truly_wrong.append(int((label_of(net, found.x_adv) != y).sum()))
    assert truly_wrong[1] > 1.5 * truly_wrong[0]
