"""Square: on planes whose distance is known, and step by step against the paper."""

from __future__ import annotations

import math

import pytest
import torch
from attack_models import images_of_the_middle, label_of, linear_net
from endpoint import Endpoint, on_bytes
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from purpleteam.attacks.evasion.square import (
    Square,
    _pyramid,
    _pyramids,
    _tiled,
    _to_the_edge,
    _two_pyramids,
)
from purpleteam.attacks.norms import Noise, distance

DUAL = {"linf": 1, "l2": 2, "l1": math.inf}


def at_distance(net: nn.Sequential, size: float, norm: str, n: int = 8) -> tuple[Tensor, Tensor]:
    """Return images, and their labels, that are just so far from the plane between two classes."""
    plane = (net[1].weight[1] - net[1].weight[0]).detach()
    level = (net[1].bias[1] - net[1].bias[0]).detach()
    x = images_of_the_middle(n).flatten(1)
    x = x - ((x @ plane + level) / (plane @ plane))[:, None] * plane
    away = size * torch.linalg.vector_norm(plane, ord=DUAL[norm]) / (plane @ plane)
    x = (x + away * plane).view(n, 1, 4, 4)
    return x, label_of(net, x)


@pytest.mark.parametrize(("norm", "size", "times"), [("linf", 0.02, 1.3), ("l2", 0.1, 1.3)])
def test_it_finds_what_is_a_little_further_than_it_must_be(
    norm: str, size: float, times: float
) -> None:
    x, y = at_distance(linear_net(), size, norm)
    near, far = (Square(norm=norm, epsilon=size * k, queries=500) for k in (0.98, times))
    assert not near.run(linear_net(), x, y).broken.any()
    assert far.run(linear_net(), x, y).broken.all()


def test_pyramids_find_a_plane_in_l1_at_three_times_its_distance() -> None:
    x, y = at_distance(linear_net(), 0.1, "l1")
    near, far = (Square(norm="l1", epsilon=0.1 * k, queries=500) for k in (0.98, 3))
    assert not near.run(linear_net(), x, y).broken.any()
    assert far.run(linear_net(), x, y).broken.all()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_neighbours_in_the_batch_change_nothing(norm: str) -> None:
    net, index = linear_net(), torch.arange(8)
    x, y = at_distance(net, 0.05, norm)
    attack = Square(norm=norm, epsilon=0.07, queries=30)
    whole = attack.run(net, x, y)
    for size in (1, 3):
        parts = [attack.run(net, x[i], y[i], index=i) for i in index.split(size)]
        assert torch.equal(torch.cat([part.broken for part in parts]), whole.broken)
        torch.testing.assert_close(torch.cat([part.x_adv for part in parts]), whole.x_adv)
    other = attack.run(net, x, y, seed=1)
    assert not torch.equal(other.x_adv, whole.x_adv)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_what_is_left_is_the_candidate_with_the_lowest_margin(norm: str) -> None:
    net = linear_net()
    x, y = at_distance(net, 0.05, norm, n=1)
    app = Endpoint(net, 2)
    found = Square(norm=norm, epsilon=0.04, queries=100).run(app, on_bytes(x), y)
    scores = net(torch.stack(app.received)).detach()
    margins = scores[:, y[0]] - scores[:, 1 - y[0]]
    sent = net(app.received[int(margins.argmin())][None]).detach()
    assert not found.broken.any() and margins[0] > margins.min()
    torch.testing.assert_close(net(found.x_adv).detach(), sent, atol=0.05, rtol=0)


def test_windows_shrink_as_in_the_paper_whatever_the_number_of_queries() -> None:
    x = torch.zeros(1, 1, 28, 28)
    published = {1: 25, 11: 18, 51: 13, 201: 9, 501: 6, 1001: 4, 2001: 3, 4001: 2, 8001: 1}
    for queries in (10_000, 20_000):
        square = Square(queries=queries)
        times = queries // 10_000
        assert {step: square._side(step * times, x) for step in published} == published
    assert {Square(norm="l2")._side(q, x) for q in range(1, 5000)} == {25, 19, 13, 9, 7, 5, 3}
    assert Square(norm="l1")._side(1, torch.zeros(1, 1, 2, 7)) == 2


def some_draws(n: int, channels: int, rng: torch.Generator) -> Tensor:
    """Return two corners, a turn and a sign for each channel."""
    draws = torch.rand(n, 5 + channels, generator=rng)
    draws[:, 5:] = torch.where(draws[:, 5:] < 0.5, -1.0, 1.0)
    return draws


@given(seed=st.integers(0, 10**6), side=st.integers(1, 6), channels=st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_a_window_goes_to_one_edge_of_the_box_and_never_stays(
    seed: int, side: int, channels: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    x = 0.4 + 0.2 * torch.rand(3, channels, 6, 7, generator=rng)
    x_adv = x + 0.1
    moved = _to_the_edge(x_adv, x, some_draws(3, channels, rng), side, 0.1)
    changed = (moved != x_adv).flatten(2)
    assert set(changed.sum(2).flatten().tolist()) <= {0, side * side}
    assert changed.flatten(1).any(1).all()
    torch.testing.assert_close((moved - x).abs(), torch.full_like(x, 0.1))


@given(seed=st.integers(0, 10**6), side=st.sampled_from([3, 5]), order=st.sampled_from([1, 2]))
@settings(max_examples=40, deadline=None)
def test_two_windows_and_what_is_unused_use_the_ball_up(seed: int, side: int, order: int) -> None:
    norm: str = "l2" if order == 2 else "l1"
    rng = torch.Generator().manual_seed(seed)
    x = 0.4 + 0.2 * torch.rand(4, 2, 6, 7, generator=rng)
    x_adv = x + 0.01 * torch.rand(x.shape, generator=rng)
    epsilon = float(distance(x_adv, x, norm).max()) * 1.1
    moved = _two_pyramids(x_adv, x, some_draws(4, 2, rng), side, epsilon, order)
    if moved.min() > 0 and moved.max() < 1:
        expected = torch.full((4,), epsilon, dtype=torch.float64)
        torch.testing.assert_close(distance(moved, x, norm), expected, rtol=1e-4, atol=0)
    assert distance(moved, x, norm).max() <= epsilon * (1 + 1e-5)
    assert ((moved != x_adv).flatten(2).sum(2) <= 2 * side * side).all()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 3), (2, 5), (3, 3), (4, 9), (12, 25)])
def test_a_pyramid_is_the_papers_sum_of_rectangles(height: int, width: int) -> None:
    expected = torch.zeros(height, width)
    for ring in range(max(height, width) // 2 + 1):  # from the middle outwards, each 1 / k^2
        top, left = height // 2 - ring, width // 2 - ring
        rows = slice(max(top, 0), top + 2 * ring + 1)
        expected[rows, max(left, 0) : left + 2 * ring + 1] += 1 / (ring + 1) ** 2
    torch.testing.assert_close(_pyramid(height, width), expected)


def test_two_pyramids_have_opposite_signs() -> None:
    both = _pyramids(5)
    assert both.shape == (5, 5) and (both[:2] > 0).all() and (both[2:] < 0).all()


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 20), (1, 4, 4)])
def test_the_start_tiles_the_image_and_fills_the_ball(shape: tuple[int, ...]) -> None:
    x = torch.full((2, *shape), 0.5)
    start = _tiled(x, 0.4, Noise(0, torch.arange(2)), 2)
    assert (distance(start, x, "l2") - 0.4).abs().max() < 1e-5
    assert (start != x).flatten(1).float().mean() > 0.7


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5, math.nan])
def test_a_window_that_is_no_part_of_the_image_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="initial_share must be above 0 and at most 1"):
        Square(initial_share=share)
