"""The Lipschitz bound against brute force: Jacobians of tiny nets and slopes between images."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from purpleteam.certify.lipschitz import certify_lipschitz, lipschitz_bounds, spectral_norm
from purpleteam.certify.network import Unsupported, network_of
from purpleteam.core.errors import ModelError, UsageError
from purpleteam.data.images import ImageSet
from purpleteam.models.devices import to_batch


class Residual(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def normalised(channels: int) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(channels)
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(-2, 2, channels))
        layer.running_var.copy_(torch.linspace(0.1, 3, channels))
        layer.running_mean.copy_(torch.linspace(-1, 1, channels))
    return layer


SHAPE = (2, 6, 5)
NETS = {
    "dense": lambda: [nn.Flatten(), nn.Linear(60, 9), nn.LeakyReLU(0.1), nn.Linear(9, 3)],
    "overlapping pools": lambda: [
        *(nn.Conv2d(2, 4, 3), nn.ReLU6(), nn.MaxPool2d(3, 1, 1), nn.Flatten()),
        nn.Linear(48, 3),
    ],
    "batch norm and strides": lambda: [
        *(nn.Conv2d(2, 4, 3, 2, 1, bias=False), normalised(4), nn.ReLU(), nn.Flatten()),
        nn.Linear(36, 3),
    ],
    "residual": lambda: [
        *(Residual(nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), normalised(2))), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3)),
    ],
    "no linear layer at the end": lambda: [
        *(nn.Conv2d(2, 3, 2, padding=1), nn.ReLU(), nn.AvgPool2d(2, 1, 1), nn.AdaptiveAvgPool2d(1)),
        nn.Flatten(),
    ],
}


def net_of(name: str) -> nn.Sequential:
    torch.manual_seed(1)
    net = nn.Sequential(*NETS[name]()).eval()
    with torch.no_grad():  # steep, so that a norm that is left out is missed
        for weight in net.parameters():
            weight.mul_(3 if weight.ndim > 1 else 1)
    return net


def pairs_of(rows: Tensor) -> Tensor:
    """Return the lengths of all differences of rows."""
    return (rows[:, None] - rows[None]).flatten(2).norm(dim=2)


@pytest.mark.parametrize("name", NETS)
def test_no_jacobian_is_steeper_than_the_bound(name: str) -> None:
    net, bounds = net_of(name), bounds_of(name)
    for seed in range(10):
        x = 4 * torch.rand(SHAPE, generator=torch.Generator().manual_seed(seed)) - 2
        steep = torch.autograd.functional.jacobian(lambda x: net(x[None])[0], x).flatten(1)
        assert (pairs_of(steep) <= bounds * (1 + 1e-5)).all()


@functools.cache
def bounds_of(name: str) -> Tensor:
    return lipschitz_bounds(network_of(net_of(name), SHAPE))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(NETS)), st.integers(0, 2**20), st.sampled_from([1e-2, 0.3, 3.0]))
def test_no_two_images_are_further_apart_than_the_bound_says(
    name: str, seed: int, reach: float
) -> None:
    rng = torch.Generator().manual_seed(seed)
    x = torch.rand((1, *SHAPE), generator=rng)
    x_other = x + reach * torch.randn((64, *SHAPE), generator=rng)
    net = net_of(name).double()
    moved = net(x_other.double()) - net(x.double())  # (64, classes)
    slopes = (moved[:, :, None] - moved[:, None]).abs() / (x_other - x).double().flatten(1).norm(
        dim=1
    )[:, None, None]
    assert (slopes <= bounds_of(name)).all()


CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "zeros around": {"kernel_size": 3, "padding": 1},
    "stride": {"kernel_size": 3, "stride": 2, "padding": 1},
    "two strides": {"kernel_size": (2, 3), "stride": (1, 2), "padding": (0, 2)},
    "dilation": {"kernel_size": 2, "dilation": 2, "padding": 1},
    "groups": {"kernel_size": 3, "groups": 2, "padding": 1},
    "steps past pixels": {"kernel_size": 1, "stride": 2},
    "as large as the image": {"kernel_size": (6, 5)},
    "tiles": {"kernel_size": (3, 2), "stride": (3, 2)},
}
EXACT = ("steps past pixels", "as large as the image", "tiles")


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_has_at_least_the_norm_of_its_matrix_and_hardly_more(name: str) -> None:
    x = torch.zeros((1, *SHAPE), dtype=torch.float64)
    for seed in range(8):
        torch.manual_seed(seed)
        layer = nn.Conv2d(2, 4, **CONVOLUTIONS[name]).double()
        node = network_of(nn.Sequential(layer, nn.Flatten()), SHAPE)[1]
        matrix = torch.autograd.functional.jacobian(layer, x).reshape(-1, x.numel())
        exact = float(torch.linalg.matrix_norm(matrix, 2))
        bound = spectral_norm(node.layer.to(torch.float64), node.shape)
        assert exact <= bound * (1 + 1e-12)
        assert bound <= exact * (1 + 1e-12 if name in EXACT else 1.4)


def test_a_wave_between_the_pixels_of_the_image_is_not_missed() -> None:
    # Of 3 pixels a circle knows waves of length 3 and none; this kernel answers to length 2.
    layer = nn.Conv2d(1, 1, (1, 3), padding=(0, 1), bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([-1.0, 2.0, -1.0]))
    node = network_of(nn.Sequential(layer, nn.Flatten()), (1, 1, 3))[1]
    exact = 2 + 2**0.5  # 2 + 2 cos(pi / 4), of the matrix [2, -1, 0], [-1, 2, -1], [0, -1, 2]
    assert exact <= spectral_norm(node.layer.to(torch.float64), node.shape) <= 4


def test_what_is_added_adds_its_slope() -> None:
    body = nn.Conv2d(2, 2, 1, bias=False)
    with torch.no_grad():
        body.weight.copy_(torch.eye(2).reshape(2, 2, 1, 1))
    net = nn.Sequential(Residual(body), nn.Flatten())  # 2 x
    assert float(lipschitz_bounds(network_of(net, SHAPE))[0, 1]) == pytest.approx(2 * 2**0.5)


def test_a_pixel_in_nine_windows_moves_them_all() -> None:
    net = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Flatten())
    spike = torch.zeros(1, 1, 7, 7)
    spike[0, 0, 3, 3] = 1.0
    bound = float(lipschitz_bounds(network_of(net, (1, 7, 7)))[0, 1]) / 2**0.5
    assert float((net(spike) - net(0 * spike)).norm()) == pytest.approx(bound) == 3.0


def test_batch_norm_is_part_of_the_convolution_before() -> None:
    convolution, norm, tail = nn.Conv2d(2, 4, 3, bias=False), normalised(4), nn.Flatten()
    folded = nn.Conv2d(2, 4, 3, bias=False)
    factor = norm.weight / (norm.running_var + norm.eps).sqrt()
    with torch.no_grad():
        folded.weight.copy_(convolution.weight * factor[:, None, None, None])
    two = nn.Sequential(convolution, norm, tail).eval()
    one = nn.Sequential(folded, tail)
    first, second = (lipschitz_bounds(network_of(net, SHAPE))[0, 1] for net in (two, one))
    assert float(first) == pytest.approx(float(second), rel=1e-5)


def images_for(net: nn.Module, n: int = 20) -> ImageSet:
    pixels = np.random.default_rng(0).integers(0, 256, (n, 6, 5, 2)).astype(np.uint8)
    with torch.no_grad():
        labels = net(to_batch(pixels)).argmax(1).numpy()
    return ImageSet(pixels, labels)


def test_the_radius_of_a_linear_net_is_the_distance_to_the_nearest_plane() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(60, 4))
    images = images_for(net)
    exact = nearest_planes(net, images)
    proved = certify_lipschitz(net, images)
    assert proved.radius == pytest.approx(exact, rel=1e-5)
    in_linf = certify_lipschitz(net, images, norm="linf")
    assert in_linf.radius == pytest.approx(proved.radius / 60**0.5)
    assert in_linf.to_json([0.1])["norm"] == "linf"


def nearest_planes(net: nn.Sequential, images: ImageSet) -> list[float]:
    weight, found = net[1].weight.detach().double(), []
    for image, own in zip(images.images, images.labels.tolist()):
        with torch.no_grad():
            scores = net(to_batch(image[None]))[0].double()
        others = [k for k in range(len(weight)) if k != own]
        found.append(
            min(float((scores[own] - scores[k]) / (weight[own] - weight[k]).norm()) for k in others)
        )
    return found


@pytest.mark.parametrize("name", NETS)
def test_no_image_within_the_radius_is_called_something_else(name: str) -> None:
    net = net_of(name)
    images = images_for(net)
    proved = certify_lipschitz(net, images)
    assert proved.certified_accuracy(0).value == 1.0 and proved.radius.max() > 0
    x, y = to_batch(images.images).requires_grad_(), torch.tensor(images.labels)
    logits = net(x)
    rival = logits.scatter(1, y[:, None], -torch.inf).amax(1) - logits.gather(1, y[:, None])[:, 0]
    (slope,) = torch.autograd.grad(rival.sum(), x)
    length = torch.from_numpy(proved.radius).float() / slope.flatten(1).norm(dim=1).clamp_min(1e-9)
    assert (net(x + 0.999 * length[:, None, None, None] * slope).argmax(1) == y).all()


def test_a_net_that_always_says_the_same_has_a_finite_radius() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(60, 3))
    with torch.no_grad():
        net[1].weight.zero_()
    assert np.isfinite(certify_lipschitz(net, images_for(net)).radius).all()


def test_what_no_bound_goes_through_is_refused_by_name() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(60, 3), nn.Softplus())
    with pytest.raises(Unsupported, match="softplus"):
        certify_lipschitz(net, images_for(net))
    with pytest.raises(ModelError, match="only answers"):
        certify_lipschitz(lambda x: net(x), images_for(net))
    with pytest.raises(UsageError, match="unknown norm 'l1'"):
        certify_lipschitz(net, images_for(net), norm="l1")
