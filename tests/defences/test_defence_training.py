"""Adversarial objectives: how the radius grows, and what TRADES weighs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from purpleteam.defences import DEFENCES
from purpleteam.defences.training import ramped
from purpleteam.models import build
from purpleteam.models.guard import Guarded, guarded

fractions = st.floats(0, 1, allow_subnormal=False)
RAMPS = st.sampled_from(["linear", "smoothed"])


@pytest.fixture
def net() -> Guarded:
    return guarded(build("small_cnn", (1, 28, 28), 10, seed=0).train())


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    return torch.rand(12, 1, 28, 28, generator=rng()), torch.arange(12) % 10


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@given(fractions, fractions, fractions, fractions, RAMPS)
@settings(max_examples=40, deadline=None)
def test_the_radius_grows_from_nothing_to_epsilon_and_no_further(one, other, start, stop, ramp):
    early, late = (ramped(0.3, done, start, stop, ramp) for done in sorted((one, other)))
    assert 0 <= early <= late <= 0.3
    assert ramped(0.3, stop, start, stop, ramp) == ramped(0.3, 1.0, start, stop, ramp) == 0.3
    assert start >= stop or ramped(0.3, start, start, stop, ramp) == 0


@given(fractions)
@settings(max_examples=40, deadline=None)
def test_the_smoothed_ramp_stays_below_the_line_and_never_jumps_in_slope(done):
    step = 1e-4
    below, at, above = (
        ramped(1.0, min(max(done + move, 0), 0.999), 0, 1, "smoothed") for move in (-step, 0, step)
    )
    assert at <= ramped(1.0, done, 0, 1) + 1e-12
    if step < done < 0.999 - step:
        assert abs((above - at) - (at - below)) / step < 20 * step  # the slope's own change


def test_the_first_quarter_of_the_smoothed_ramp_is_a_fourth_power():
    assert ramped(13.0, 0.35, 0.1, 1.1, "smoothed") == pytest.approx(1.0)
    assert ramped(13.0, 0.225, 0.1, 1.1, "smoothed") == pytest.approx(0.5**4)


def test_without_a_ramp_all_of_epsilon_is_there_from_the_start():
    assert ramped(0.3, 0.0, 0.0, 0.0) == 0.3


@pytest.mark.parametrize("name", ["pgd", "trades"])
def test_the_margin_is_trained_for_beyond_epsilon(net, batch, name):
    recipe = DEFENCES[name](epsilon=0.2, extra=0.05, warm_up=0.5)
    x, y = batch
    whole, half = (recipe.attacked(net, x, y, rng(), done) - x for done in (0.5, 0.25))
    assert float(whole.abs().max()) == pytest.approx(0.25, abs=1e-6)
    assert float(half.abs().max()) == pytest.approx(0.125, abs=1e-6)
    assert net.model.training


def test_trades_adds_the_divergence_of_the_images_near_by(net, batch):
    recipe, (x, y) = DEFENCES["trades"](epsilon=0.2, beta=3.0), batch
    logits = net(x)
    x_adv = recipe.attacked(net, x, logits.detach().softmax(1), rng(), 1.0)
    clean, near = logits.softmax(1), net(x_adv).softmax(1)
    divergence = (clean * (clean.log() - near.log())).sum(1).mean()
    expected = F.cross_entropy(logits, y) + 3 * divergence
    loss = recipe.objective(net, x, y, rng(), 1.0)
    assert torch.allclose(loss, expected, atol=1e-6)
    weights = [one for one in net.parameters() if one.ndim > 1]
    for one, other in zip(*(torch.autograd.grad(value, weights) for value in (loss, expected))):
        assert torch.allclose(one, other, atol=1e-6)  # also through the answers to clean images


def test_trades_with_no_weight_on_the_divergence_is_plain_training(net, batch):
    x, y = batch
    loss = DEFENCES["trades"](beta=0.0).objective(net, x, y, rng(), 1.0)
    assert torch.equal(loss, F.cross_entropy(net(x), y))


def test_what_trades_makes_diverges_more_than_chance(net, batch):
    recipe, (x, _) = DEFENCES["trades"](epsilon=0.2), batch
    answers = net(x).softmax(1).detach()
    x_adv = recipe.attacked(net, x, answers, rng(), 1.0)
    corner = x + 0.2 * (torch.rand(x.shape, generator=rng()) - 0.5).sign()

    def divergence(near: Tensor) -> Tensor:
        return F.kl_div(net(near).log_softmax(1), answers, reduction="batchmean")

    assert divergence(x_adv) > 3 * divergence(corner.clamp(0, 1))


def test_trades_leaves_statistics_to_the_images_that_are_learned(batch):
    body = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(784, 10))
    x, y = batch
    DEFENCES["trades"]().objective(guarded(body.train()), x, y, rng(), 1.0)
    assert body[0].num_batches_tracked == 2  # the clean ones and those near by, once each


def test_a_weight_below_nothing_is_refused():
    with pytest.raises(ValueError, match="beta must be at least 0"):
        DEFENCES["trades"](beta=-1.0)
