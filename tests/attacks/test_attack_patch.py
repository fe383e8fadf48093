"""Adversarial patch: one square, anywhere, fitted elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attack_models import linear_net
from torch import Tensor, nn

from purpleteam.attacks.evasion import EvasionAttack
from purpleteam.attacks.evasion.patch import Patch
from purpleteam.core.errors import UsageError
from purpleteam.data.images import Dataset, ImageSet
from purpleteam.models.devices import to_batch


class SeesWhite(nn.Module):
    """Errs when a square of 3 x 3 holds enough white, wherever it lies."""

    def forward(self, x: Tensor) -> Tensor:
        most = nn.functional.avg_pool2d(x.mean(1, keepdim=True), 3, 1).amax((1, 2, 3))
        return torch.stack([torch.full_like(most, 0.7), most], 1)


def dark(n: int, size: tuple[int, int, int]) -> ImageSet:
    rng = np.random.default_rng(0)
    return ImageSet(rng.integers(0, 60, (n, *size), np.uint8), np.zeros(n, np.int64))


def batch(images: ImageSet) -> tuple[Tensor, Tensor]:
    return to_batch(images.images), torch.from_numpy(images.labels.copy())


@pytest.mark.parametrize(("size", "values"), [((9, 12, 1), 9), ((12, 9, 3), 27)])
def test_it_finds_the_square_that_the_net_looks_for(
    size: tuple[int, int, int], values: float
) -> None:
    images = dark(40, size)
    fitted = Patch(epsilon=values, steps=40).prepare(SeesWhite(), images)
    assert float(fitted.fitted.min()) > 0.9  # type: ignore[attr-defined]
    assert fitted.run(SeesWhite(), *batch(images)).broken.all()
    too_small = Patch(epsilon=values - 1, steps=40).prepare(SeesWhite(), images)
    assert not too_small.run(SeesWhite(), *batch(images)).broken.any()


def changed(attack: EvasionAttack, x: Tensor, y: Tensor) -> Tensor:
    return (attack(lambda z: torch.stack([z.sum((1, 2, 3)), -z.sum((1, 2, 3))], 1), x, y) != x).any(
        1
    )


def test_what_changes_is_one_whole_square_within_the_image() -> None:
    images = dark(60, (9, 12, 1))
    fitted = Patch(epsilon=16, steps=1).prepare(SeesWhite(), images)
    x, y = batch(images)
    corners = set()
    for mask in changed(fitted, x, y):
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        assert len(rows) == len(columns) == 4 and mask.sum() == 16
        corners.add((int(rows[0]), int(columns[0])))
    assert len(corners) > 20
    assert {row for row, _ in corners} == set(range(6))
    assert {column for _, column in corners} == set(range(9))


def test_a_fitted_patch_beats_noise(standard: nn.Module, digits: Dataset, images: ImageSet) -> None:
    fitted = Patch(epsilon=25, steps=40, places=3).prepare(standard, digits.validation)
    noise = torch.rand((5, 5, 1), generator=torch.Generator().manual_seed(0))
    random = fitted._with(fitted=noise)
    found, plain = (one.run(standard, *batch(images)).broken.sum() for one in (fitted, random))
    assert found >= plain + 8


def test_more_places_break_no_less(standard: nn.Module, digits: Dataset, images: ImageSet) -> None:
    broken = [
        Patch(epsilon=25, steps=20, places=places)
        .prepare(standard, digits.validation)
        .run(standard, *batch(images))
        .broken.sum()
        for places in (1, 8)
    ]
    assert broken[1] > broken[0]


def test_one_place_is_one_query(standard: nn.Module, digits: Dataset, images: ImageSet) -> None:
    fitted = Patch(epsilon=1, steps=1, places=5).prepare(standard, digits.validation)
    found = fitted.run(standard, *batch(images))
    left = found.queries[~found.broken]
    assert (5 < left).all() and (left <= 5 + 2).all()  # and the last candidate, if need be twice


def test_before_it_is_fitted_it_says_what_is_missing() -> None:
    x = torch.zeros((2, 1, 4, 4))
    with pytest.raises(UsageError, match=r"ATTACKS\['patch'\]\(...\).prepare\(model, images\)"):
        Patch()(linear_net(), x, torch.zeros(2, dtype=torch.int64))


def test_no_place_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="places must be at least 1"):
        Patch(places=0)
