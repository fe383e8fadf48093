"""HopSkipJump: on planes whose distance is known, and its rules one by one."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from attack_models import Deceiver, images_of_the_middle, label_of, linear_net
from endpoint import Endpoint, on_bytes
from torch import Tensor, nn

from purpleteam.attacks.driver import Cost, Driver, Search
from purpleteam.attacks.evasion.hop_skip_jump import HopSkipJump, _between, _draws, _jumped, _slope
from purpleteam.attacks.norms import Noise
from purpleteam.data.images import ImageSet
from purpleteam.models.devices import to_batch
from purpleteam.models.inference import Nets

DUAL = {"linf": 1, "l2": 2}


def nearest(net: nn.Sequential, x: Tensor, norm: str) -> Tensor:
    """Return how far the plane between two classes is from each image."""
    plane = (net[1].weight[1] - net[1].weight[0]).detach().double()
    level = (net[1].bias[1] - net[1].bias[0]).detach().double()
    size = torch.linalg.vector_norm(plane, ord=DUAL[norm])
    return (x.flatten(1).double() @ plane + level).abs() / size


@pytest.mark.parametrize(("norm", "factor"), [("l2", 1.05), ("linf", 1.15)])
def test_it_comes_close_to_the_nearest_point_of_a_plane(norm: str, factor: float) -> None:
    net, x = linear_net(), images_of_the_middle(8)
    found = HopSkipJump(norm=norm, queries=3000).run(net, x, label_of(net, x))
    ratio = found.distance / nearest(net, x, norm)
    assert found.broken.all() and ratio.min() >= 1 - 1e-6
    assert ratio.max() <= factor


@pytest.mark.parametrize(("norm", "rounding"), [("l2", 2 / 255), ("linf", 1 / 255)])
def test_an_app_that_takes_bytes_hides_no_more_than_their_rounding(
    norm: str, rounding: float
) -> None:
    net, x = linear_net(), on_bytes(0.5 + 3 * (images_of_the_middle(8) - 0.5))
    app = Endpoint(net, 2, gives="labels")
    found = HopSkipJump(norm=norm, queries=2000).run(app, x, label_of(net, x))
    assert (found.distance <= 1.2 * nearest(net, x, norm) + rounding).all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_more_queries_never_find_less(norm: str) -> None:
    net, x = linear_net(), images_of_the_middle(6)
    y = label_of(net, x)
    budgets = (10, 60, 61, 200, 450, 1000)
    found = [HopSkipJump(norm=norm, queries=q).run(net, x, y).distance for q in budgets]
    found[0] = torch.where(found[0] > 0, found[0], torch.inf)  # none found yet
    assert all((after <= before).all() for before, after in itertools.pairwise(found))
    assert (found[-1] < 0.8 * found[1]).all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_a_smaller_budget_asks_the_first_of_the_same_questions(norm: str) -> None:
    net, x = linear_net(), on_bytes(images_of_the_middle(1))
    small, large = Endpoint(net, 2), Endpoint(net, 2)
    for app, queries in ((small, 150), (large, 400)):
        HopSkipJump(norm=norm, queries=queries).run(app, x, label_of(net, x))
    assert len(small.received) == 150
    assert torch.equal(torch.stack(small.received), torch.stack(large.received)[:150])


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_neighbours_in_the_batch_do_not_matter(norm: str) -> None:
    net, x, index = linear_net(), images_of_the_middle(8), torch.arange(8)
    y, attack = label_of(net, x), HopSkipJump(norm=norm, queries=400)
    whole = attack.run(net, x, y).distance
    for size in (1, 3):
        parts = [attack.run(net, x[i], y[i], index=i).distance for i in index.split(size)]
        torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-3, atol=0)
    assert not torch.equal(attack.run(net, x, y, seed=1).distance, whole)


def test_an_image_that_is_wrong_as_it_is_takes_one_query() -> None:
    net, x = linear_net(), images_of_the_middle(3)
    y = label_of(net, x)
    y[1] = 1 - y[1]
    found = HopSkipJump(queries=200).run(net, x, y)
    assert found.distance[1] == 0 and torch.equal(found.x_adv[1], x[1])
    assert found.queries[1] <= 2 and found.queries[0] == 200


def test_a_net_that_sees_one_class_in_fine_noise_is_started_from_blocks() -> None:
    def uneven(net: nn.Module, x: Tensor) -> Tensor:
        left, right = x[..., :8].mean((1, 2, 3)), x[..., 8:].mean((1, 2, 3))
        return torch.stack([torch.full_like(left, 0.25), (left - right).abs()], 1)

    net = Deceiver(linear_net(), uneven)
    x = torch.full((12, 1, 16, 16), 0.5)
    found = HopSkipJump(queries=60).run(net, x, torch.zeros(12, dtype=torch.int64))
    assert found.broken.sum() >= 10


def just_behind_a_plane(depth: float, thickness: float) -> tuple[Driver, Tensor, Tensor]:
    """Return a driver whose model errs in a slab, a point in it and the way out of it."""
    plane = linear_net()
    normal = (plane[1].weight[1] - plane[1].weight[0]).detach()
    size = float(normal.norm())

    def slab(net: nn.Module, x: Tensor) -> Tensor:
        behind = (net(x)[:, 1:] - net(x)[:, :1]) / size
        return torch.cat([torch.zeros_like(behind), behind * (thickness - behind)], 1)

    x = torch.full((1, 1, 4, 4), 0.5)
    search = Search(epsilon=1.0, norm="l2", nearest=True, stop_inside=False)
    nets = Nets.of(Deceiver(plane, slab), x)
    driver = Driver(nets, x, torch.zeros(1, dtype=torch.int64), search, Cost())
    away = (normal / size).view_as(x)
    return driver, x + depth * away, away


def test_a_jump_that_lands_too_far_is_halved_and_one_to_nowhere_is_not_made() -> None:
    driver, x_adv, away = just_behind_a_plane(0.001, 0.1)
    there = _jumped(driver, x_adv, 0.3 * away, torch.arange(1))
    torch.testing.assert_close(there, x_adv + 0.075 * away)
    driver.y[:] = 1  # never errs there
    assert torch.equal(_jumped(driver, x_adv, 0.01 * away, torch.arange(1)), x_adv)


def test_an_estimate_from_behind_the_boundary_is_centred() -> None:
    driver, x_adv, away = just_behind_a_plane(0.005, 0.1)  # of directions of 0.01 nearly all err
    rows = torch.arange(1)
    draws = _draws(x_adv, Noise(0, rows), 2000, rows)
    slope = _slope(driver, x_adv, torch.full((1, 1, 1, 1), 0.01), draws, rows)
    assert F.cosine_similarity(slope.flatten(), away.flatten(), dim=0) > 0.95


def test_a_model_with_one_answer_is_left_alone() -> None:
    net = Deceiver(linear_net(), lambda _, x: torch.tensor([1.0, 0.0]).expand(len(x), 2))
    x = images_of_the_middle(2)
    found = HopSkipJump(queries=500).run(net, x, label_of(net, x))
    assert not found.broken.any() and torch.equal(found.x_adv, x)
    assert found.queries.max() < 50  # every start was tried, and nothing else


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_a_point_between_lies_at_its_share_of_the_distance(norm: str) -> None:
    x, other = images_of_the_middle(5), images_of_the_middle(5, seed=1)
    share = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]).view(-1, 1, 1, 1)
    order = 2 if norm == "l2" else torch.inf
    length = [
        torch.linalg.vector_norm((point - x).flatten(1), ord=order, dim=1)
        for point in (_between(x, other, share, norm), other)
    ]
    torch.testing.assert_close(length[0], share.flatten() * length[1])
    torch.testing.assert_close(_between(x, other, torch.ones_like(share), norm), other)


def test_with_an_epsilon_only_what_lies_within_counts() -> None:
    net, x = linear_net(), images_of_the_middle(8)
    y, far = label_of(net, x), nearest(net, x, "l2")
    epsilon = float(far.median())
    found = HopSkipJump(queries=2000, epsilon=epsilon).run(net, x, y)
    assert torch.equal(found.broken, far * 1.05 < epsilon) and 0 < found.broken.sum() < 8
    assert found.distance.max() <= epsilon + 1e-6


def test_an_estimate_from_a_single_direction_is_refused() -> None:
    with pytest.raises(ValueError, match="samples_at_first must be at least 2, not 1"):
        HopSkipJump(samples_at_first=1)


def test_an_app_that_refuses_noise_is_started_from_drawings(
    standard: nn.Module, images: ImageSet
) -> None:
    def no_digit(x: Tensor) -> Tensor:
        ink = (x > 0.1).flatten(1).float().mean(1)
        return (ink > 0.5) | (ink < 0.02)  # noise or a blot; an empty page

    few = images.first(12)
    x, y = to_batch(few.images), torch.from_numpy(few.labels.copy())
    app = Endpoint(standard, 10, gives="labels", refuses=no_digit)
    right = standard(x).argmax(1) == y
    found = HopSkipJump(queries=60).run(app, x[right], y[right])
    assert torch.isfinite(found.distance).all() and found.broken.all()
    assert not no_digit(found.x_adv).any()
