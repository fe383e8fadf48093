"""The norms: projections, steps and starts, by property and by hand; and a norm of one's own."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from attack_models import SHAPE, images_of_the_middle
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from purpleteam.attacks.evasion import ATTACKS
from purpleteam.attacks.norms import (
    NORMS,
    Noise,
    Norm,
    distance,
    project,
    quantise,
    steepest,
    uniform_start,
)
from purpleteam.core.config import build
from purpleteam.core.errors import ConfigError

BOTH: tuple[str, ...] = ("linf", "l2")
norms = st.sampled_from(BOTH)
seeds = st.integers(0, 2**31)
epsilons = st.floats(0, 1, width=32)
tries = settings(max_examples=40, deadline=None)


def cube(seed: int, n: int = 5) -> Tensor:
    return torch.rand((n, *SHAPE), generator=torch.Generator().manual_seed(seed))


def anywhere(seed: int, spread: float = 3.0) -> Tensor:
    rng = torch.Generator().manual_seed(seed + 1)
    return spread * torch.randn((5, *SHAPE), generator=rng)


@tries
@given(seeds, epsilons, norms)
def test_a_projected_candidate_is_inside_ball_and_range(
    seed: int, epsilon: float, norm: str
) -> None:
    x = cube(seed)
    x_adv = project(x + anywhere(seed), x, epsilon, norm)
    assert distance(x_adv, x, norm).max() <= epsilon + 1e-6
    assert x_adv.min() >= 0 and x_adv.max() <= 1


@tries
@given(seeds, epsilons, norms)
def test_projecting_twice_is_projecting_once(seed: int, epsilon: float, norm: str) -> None:
    x = cube(seed)
    once = project(x + anywhere(seed), x, epsilon, norm)
    torch.testing.assert_close(project(once, x, epsilon, norm), once, rtol=0, atol=1e-6)


@tries
@given(seeds, epsilons, norms)
def test_a_candidate_inside_stays_where_it_is(seed: int, epsilon: float, norm: str) -> None:
    x = cube(seed)
    inside = uniform_start(x, 0.99 * epsilon, norm, Noise(seed, torch.arange(5)))
    torch.testing.assert_close(project(inside, x, epsilon, norm), inside, rtol=0, atol=1e-6)


@tries
@given(seeds, epsilons)
def test_the_linf_projection_is_the_nearest_point(seed: int, epsilon: float) -> None:
    x, far = cube(seed), cube(seed) + anywhere(seed)
    nearest = distance(project(far, x, epsilon, "linf"), far, "l2")
    for other in range(5):
        start = uniform_start(x, epsilon, "linf", Noise(other, torch.arange(5)))
        assert (distance(start, far, "l2") >= nearest - 1e-6).all()


@tries
@given(seeds, st.floats(0.01, 0.3))
def test_the_l2_projection_is_the_nearest_point_where_the_range_does_not_matter(
    seed: int, epsilon: float
) -> None:
    x = images_of_the_middle(5, seed=seed)
    far = x + anywhere(seed, spread=1.0)
    nearest = distance(far, x, "l2") - epsilon
    found = distance(project(far, x, epsilon, "l2"), far, "l2")
    torch.testing.assert_close(found, nearest.clamp_min(0), rtol=0, atol=1e-5)


@pytest.mark.parametrize("norm", BOTH)
def test_a_large_ball_of_many_pixels_is_kept_to_the_last_digit(norm: str) -> None:
    x = torch.rand((4, 1, 28, 28), generator=torch.Generator().manual_seed(0))
    far = x + torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    for epsilon in (0.3, 1.0) if norm == "linf" else (0.3, 1.0, 5.0, 10.0):
        assert distance(project(far, x, epsilon, norm), x, norm).max() <= epsilon + 1e-6


@tries
@given(seeds, epsilons, norms)
def test_a_random_start_is_inside_ball_and_range(seed: int, epsilon: float, norm: str) -> None:
    x = cube(seed)
    start = uniform_start(x, epsilon, norm, Noise(seed, torch.arange(5)))
    assert distance(start, x, norm).max() <= epsilon + 1e-6
    assert start.min() >= 0 and start.max() <= 1


@pytest.mark.parametrize("norm", BOTH)
def test_a_random_start_is_uniform_in_volume(norm: str) -> None:
    x = torch.full((4000, 1, 1, 2), 0.5)
    start = uniform_start(x, 0.2, norm, Noise(0, torch.arange(4000)))
    inner = distance(start, x, norm) <= 0.1  # half the radius: a quarter of the area
    assert abs(float(inner.float().mean()) - 0.25) < 0.03


@tries
@given(seeds, st.floats(-30, 30))
def test_a_steepest_step_has_length_one_however_small_the_gradient(
    seed: int, exponent: float
) -> None:
    gradient = anywhere(seed) * 10.0**exponent
    for norm in BOTH:
        length = distance(steepest(gradient, norm), torch.zeros_like(gradient), norm)
        torch.testing.assert_close(length, torch.ones(5, dtype=torch.float64), rtol=1e-5, atol=0)


@tries
@given(seeds, norms)
def test_no_other_step_of_length_one_climbs_faster(seed: int, norm: str) -> None:
    gradient = anywhere(seed)
    best = (steepest(gradient, norm) * gradient).flatten(1).sum(1)
    other = steepest(anywhere(seed + 7), norm)
    assert ((other * gradient).flatten(1).sum(1) <= best + 1e-4).all()


@pytest.mark.parametrize("norm", BOTH)
def test_a_zero_gradient_gives_no_step(norm: str) -> None:
    assert not steepest(torch.zeros(3, *SHAPE), norm).any()


def test_a_step_is_taken_per_image() -> None:
    gradient = torch.zeros(2, 1, 1, 2)
    gradient[0, 0, 0] = torch.tensor([3.0, -4.0])
    expected = torch.tensor([[[[0.6, -0.8]]], [[[0.0, 0.0]]]])
    torch.testing.assert_close(steepest(gradient, "l2"), expected)


@pytest.mark.parametrize(("norm", "expected"), [("linf", 0.4), ("l2", 0.5)])
def test_a_distance_is_that_of_the_norm(norm: str, expected: float) -> None:
    moved = torch.tensor([[[[0.3, -0.4]]]])
    found = distance(0.5 + moved, torch.full_like(moved, 0.5), norm)
    assert found.dtype == torch.float64
    assert found.item() == pytest.approx(expected)


@pytest.mark.parametrize("norm", BOTH)
def test_the_whole_cube_holds_every_image(norm: str) -> None:
    x, other = torch.zeros(1, *SHAPE), torch.ones(1, *SHAPE)
    cube = NORMS[norm].whole_cube(x[0].numel())
    assert distance(other, x, norm).item() == pytest.approx(cube)
    torch.testing.assert_close(project(other, x, cube, norm), other)


def in_steps(*values: float) -> Tensor:
    """Return values in steps of 1/255 as an image (1, 1, 1, n)."""
    return (torch.tensor(values, dtype=torch.float64) / 255).float().view(1, 1, 1, -1)


def test_as_bytes_a_candidate_is_rounded_to_the_nearest_step() -> None:
    rounded = quantise(in_steps(0, 0.4, 0.6, 100.4, 100.6, 254.6, 255)) * 255
    assert rounded.flatten().tolist() == pytest.approx([0, 0, 1, 100, 101, 255, 255], abs=1e-4)


def test_as_bytes_a_candidate_never_leaves_the_ball_of_its_image() -> None:
    x = in_steps(*[100] * 8)
    moved = in_steps(100, 100.9, 99.1, 101, 99, 107.5, 92.5, 255)
    rounded = quantise(moved, x)
    assert (rounded * 255).flatten().tolist() == pytest.approx(
        [100, 100, 100, 101, 99, 107, 93, 255], abs=1e-4
    )
    assert ((rounded - x).abs() <= (moved - x).abs() + 1e-7).all()
    assert rounded.dtype == moved.dtype


def test_a_step_that_float32_falls_short_of_is_not_lost() -> None:
    x = in_steps(*range(32, 224))
    for steps in (1, 8, 31, -1, -8, -31):
        moved = x + steps / 255  # in float32, on either side of a whole step
        assert torch.equal((quantise(moved, x) * 255).round(), (x * 255).round() + steps)


def test_a_step_counts_from_a_thousandth_before_it_and_no_sooner() -> None:
    rounded = quantise(in_steps(100.9993, 99.0007, 100.9985, 99.0015), in_steps(*[100] * 4)) * 255
    assert rounded.flatten().tolist() == pytest.approx([101, 99, 100, 100], abs=1e-4)


class Weighted(Norm):
    """The largest change, of which one in the upper half of the image counts twice."""

    order = float("inf")

    def weight(self, x: Tensor) -> Tensor:
        weight = torch.ones(x.shape[1:])
        weight[:, : x.shape[2] // 2] = 2
        return weight

    def project(self, x_adv: Tensor, x: Tensor, epsilon: float) -> Tensor:
        most = epsilon / self.weight(x)
        return torch.minimum(torch.maximum(x_adv, x - most), x + most).clamp(0, 1)

    def steepest(self, gradient: Tensor) -> Tensor:
        return gradient.sign() / self.weight(gradient)

    def start(self, x: Tensor, epsilon: float, noise: Noise) -> Tensor:
        return x + epsilon * (2 * noise.uniform(x) - 1) / self.weight(x)

    def distance(self, perturbation: Tensor) -> Tensor:
        image = perturbation.view(-1, *SHAPE)
        return (image * self.weight(image)).flatten(1).abs().amax(1)


@pytest.fixture
def weighted() -> Iterator[str]:
    NORMS.register("weighted")(Weighted())
    yield "weighted"
    del NORMS._items["weighted"]


@pytest.mark.parametrize("name", ["fgsm", "pgd", "bim", "mifgsm", "apgd_ce", "far_start"])
def test_a_norm_that_is_registered_is_one_that_gradient_attacks_take(
    weighted: str, name: str
) -> None:
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(SHAPE), 3)), cube(0, 20)
    y = net(x).argmax(1)
    attack = build(ATTACKS[name], {"norm": weighted, "epsilon": 0.2}, name)
    found = attack.run(net, x, y)
    moved = (found.x_adv - x).abs()
    half = SHAPE[1] // 2
    assert found.broken.any()
    assert moved[:, :, :half].max() <= 0.1 + 1e-6 and 0.15 < moved[:, :, half:].max() <= 0.2 + 1e-6
    assert found.distance.max() <= 0.2 + 1e-6


def test_a_norm_that_nobody_registered_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown norm 'weighted'"):
        build(ATTACKS["pgd"], {"norm": "weighted"}, "pgd")
