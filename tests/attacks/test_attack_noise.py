"""Noise: what an image gets depends on its index and the seed, and on nothing else."""

from __future__ import annotations

import pytest
import torch

from purpleteam.attacks.norms import Noise

LIKE = torch.zeros(6, 1, 3, 3)
ORDER = torch.arange(6)


def draw(index: torch.Tensor, *, seed: int = 0, restart: int = 0) -> torch.Tensor:
    return Noise(seed, index, restart).uniform(LIKE[: len(index)])


def test_an_image_gets_the_same_noise_in_any_order_batch_or_subset() -> None:
    whole = draw(ORDER)
    assert torch.equal(draw(ORDER.flip(0)), whole.flip(0))
    assert torch.equal(torch.cat([draw(ORDER[:4]), draw(ORDER[4:])]), whole)
    assert torch.equal(draw(torch.tensor([5, 2])), whole[[5, 2]])


@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_the_second_draw_of_a_subset_is_the_second_draw_of_the_whole(kind: str) -> None:
    whole, part = Noise(3, ORDER), Noise(3, torch.tensor([4]))
    first, second = (getattr(whole, kind)(LIKE) for _ in range(2))
    assert not torch.equal(first, second)
    getattr(part, kind)(LIKE[:1])
    assert torch.equal(getattr(part, kind)(LIKE[:1]), second[4:5])


def test_seed_restart_and_image_each_give_other_noise() -> None:
    draws = [draw(ORDER), draw(ORDER, seed=1), draw(ORDER, restart=1)]
    rows = torch.cat(draws).flatten(1)
    assert len(torch.unique(rows, dim=0)) == len(rows)


def test_uniform_noise_fills_its_range_and_normal_noise_has_deviation_one() -> None:
    noise, like = Noise(0, torch.arange(2000)), torch.zeros(2000, 1, 1, 4)
    uniform, normal = noise.uniform(like), noise.normal(like)
    assert uniform.min() >= 0 and uniform.max() < 1
    assert abs(float(uniform.mean()) - 0.5) < 0.02
    assert abs(float(normal.mean())) < 0.05 and abs(float(normal.std()) - 1) < 0.05


def test_noise_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    Noise(0, ORDER).normal(LIKE)
    assert torch.equal(torch.get_rng_state(), before)


def test_noise_has_the_type_of_what_it_is_like() -> None:
    assert Noise(0, ORDER).uniform(LIKE.double()).dtype == torch.float64
