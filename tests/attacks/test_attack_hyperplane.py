"""The nearest point of a hyperplane within the cube, beside the closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_truth import to_plane

from purpleteam.attacks.evasion._hyperplane import nearest_on
from purpleteam.attacks.norms import NORMS

THREE: tuple[str, ...] = ("linf", "l2", "l1")
every_norm = pytest.mark.parametrize("norm", THREE)


def a_case(seed: int, share: float, pixels: int = 12) -> tuple[torch.Tensor, ...]:
    """Return points, some on the border, normals with zeros, and values within `share` of reach."""
    rng = torch.Generator().manual_seed(seed)
    points = (2 * torch.rand(6, pixels, generator=rng) - 0.5).clamp(0, 1)
    normal = torch.randn(6, pixels, generator=rng) * (torch.rand(6, pixels, generator=rng) > 0.2)
    signs = torch.tensor([1.0, -1.0]).repeat(3)
    room = torch.where(normal * signs[:, None] > 0, points, 1 - points)
    return points, normal, signs * share * (room * normal.abs()).sum(1)


@every_norm
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0.01, 0.99))
def test_it_is_on_the_hyperplane_and_no_farther_than_it_must(
    norm: str, seed: int, share: float
) -> None:
    points, normal, value = a_case(seed, share)
    found = nearest_on(points, normal, value, norm)
    assert found.min() >= 0 and found.max() <= 1
    torch.testing.assert_close(
        ((found - points) * normal).sum(1), -value, rtol=1e-4, atol=1e-5, equal_nan=False
    )
    least = [
        to_plane(*(tensor.double().numpy() for tensor in row), norm)
        for row in zip(points, normal, value, strict=True)
    ]
    np.testing.assert_allclose(
        NORMS[norm].length(found - points).numpy(), least, rtol=1e-4, atol=1e-6
    )


@every_norm
def test_out_of_reach_it_is_the_corner_nearest_to_the_hyperplane(norm: str) -> None:
    points, normal, value = a_case(0, 1.5)
    found = nearest_on(points, normal, value, norm)
    corner = torch.where(normal * value[:, None] > 0, 0.0, 1.0)
    assert torch.equal(found[normal != 0], corner[normal != 0])


@every_norm
def test_without_a_slope_or_on_the_hyperplane_nothing_moves(norm: str) -> None:
    points, normal, value = a_case(0, 0.5)
    assert torch.equal(nearest_on(points, torch.zeros_like(normal), value, norm), points)
    assert torch.equal(nearest_on(points, normal, torch.zeros_like(value), norm), points)


@every_norm
@pytest.mark.parametrize("scale", [1e-25, 1e-6, 1e6, 1e25])
def test_the_scale_of_the_function_plays_no_part(norm: str, scale: float) -> None:
    points, normal, value = a_case(3, 0.4)
    expected = nearest_on(points, normal, value, norm)
    found = nearest_on(points, normal * scale, value * scale, norm)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@every_norm
def test_a_point_goes_where_it_goes_without_its_neighbours(norm: str) -> None:
    points, normal, value = a_case(7, 0.6)
    together = nearest_on(points, normal, value, norm)
    alone = [nearest_on(points[i, None], normal[i, None], value[i, None], norm) for i in range(6)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-7)
