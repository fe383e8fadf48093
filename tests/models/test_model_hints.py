"""Which input and which order of classes a net learned, as its loss on a few images tells."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from purpleteam.data.images import ImageSet
from purpleteam.models.hints import hints
from purpleteam.models.normalisation import Normalisation

SIDE = 6


def spots(n: int, classes: int, channels: int) -> tuple[ImageSet, np.ndarray, np.ndarray]:
    """Return noisy images, a bright spot in another place for each class; means and noise."""
    rng = np.random.default_rng(0)
    means = np.full((classes, SIDE, SIDE, channels), 0.4) + np.linspace(0, 0.2, channels)
    for number in range(classes):
        means[number].reshape(-1, channels)[number] += 0.3 / channels**0.5
    noise = np.where(np.arange(classes) % 2, 0.13, 0.15)
    labels = rng.integers(0, classes, n)
    spread = noise[labels][:, None, None, None] * rng.normal(size=(n, SIDE, SIDE, channels))
    pixels = ((means[labels] + spread).clip(0, 1) * 255).round().astype(np.uint8)
    return ImageSet(pixels, labels), means, noise


class Bayes(nn.Module):
    """Knows the means and the noise: as sure as it is right, of the input that it wants."""

    def __init__(self, known: Any, wants: str = "mean=0,std=1", order: list[int] | None = None):
        super().__init__()
        self.means = torch.tensor(known[1]).permute(0, 3, 1, 2).flatten(1).float()
        self.noise = torch.tensor(known[2]).float()
        layer = Normalisation.parse(wants)
        self.mean, self.std = (
            torch.tensor(one).view(1, -1, 1, 1) for one in (layer.mean, layer.std)
        )
        self.order = order
        self.temperature = 1.0

    def forward(self, x: Tensor) -> Tensor:
        x = (x * self.std + self.mean).flatten(1)
        away = (x[:, None] - self.means).square().sum(2) / (2 * self.noise**2)
        scores = -(away + x.shape[1] * self.noise.log()) / self.temperature
        return scores if self.order is None else scores[:, self.order]


def named(notes: tuple[str, ...]) -> str:
    """Return what a note says to type."""
    return " ".join(found for one in notes for found in re.findall(r"--normalise (\S+)", one))


@pytest.mark.parametrize("classes", [3, 10])
@pytest.mark.parametrize(
    ("channels", "wants"),
    [
        (1, "bytes"),
        (1, "signed"),
        (1, "inverted"),
        (1, "mnist"),
        (3, "signed"),
        (3, "imagenet"),
        (3, "inverted"),
        (3, "bytes"),
    ],
)
def test_the_input_that_a_net_wants_is_named(channels: int, wants: str, classes: int) -> None:
    known = spots(600, classes, channels)
    assert hints(Bayes(known), known[0], "abcdefghij"[:classes]) == ()
    found = hints(Bayes(known, wants), known[0], "abcdefghij"[:classes])
    assert named(found) == wants, found


def test_the_statistics_of_the_images_are_tried_too() -> None:
    known = spots(600, 5, 3)
    pixels = known[0].images.reshape(-1, 3) / 255
    own = ["/".join(f"{value:.3f}" for value in one) for one in (pixels.mean(0), pixels.std(0))]
    found = named(hints(Bayes(known, f"mean={own[0]},std={own[1]}"), known[0], "abcde"))
    layer = Normalisation.parse(found)
    np.testing.assert_allclose(layer.mean, pixels.mean(0), atol=1e-3)
    np.testing.assert_allclose(layer.std, pixels.std(0), atol=1e-3)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_a_net_that_has_learned_nothing_is_left_in_peace(classes: int, seed: int) -> None:
    images, *_ = spots(300, classes, 1)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, classes))
    assert hints(net, images, "abcdefghij"[:classes]) == ()


@pytest.mark.parametrize("temperature", [0.5, 1.5, 2])
def test_a_net_that_is_not_as_sure_as_it_is_right_is_left_in_peace(temperature: float) -> None:
    known = spots(600, 10, 1)
    net = Bayes(known)
    net.temperature = temperature
    assert hints(net, known[0], "abcdefghij") == ()


def test_the_order_of_classes_that_a_net_learned_is_spelled_out() -> None:
    known = spots(600, 4, 1)
    net = Bayes(known, order=[2, 0, 3, 1])  # its first output is class 2, c
    (note,) = hints(net, known[0], ("a", "b", "c", "d"))
    assert "--classes c,a,d,b:" in note
    swapped = Bayes(known, order=[1, 0, 2, 3])
    (note,) = hints(swapped, known[0], ("a", "b", "c", "d"))
    assert "--classes b,a,c,d:" in note


def test_input_and_order_are_named_together() -> None:
    known = spots(600, 4, 3)
    found = hints(Bayes(known, "imagenet", order=[3, 1, 0, 2]), known[0], ("a", "b", "c", "d"))
    assert named(found) == "imagenet" and "--classes d,b,a,c:" in found[1]


def test_few_images_say_nothing() -> None:
    known = spots(600, 10, 1)
    assert hints(Bayes(known, "signed"), known[0].first(12), "abcdefghij") == ()
    turned = Bayes(known, order=[*range(1, 10), 0])
    assert hints(turned, known[0].first(40), "abcdefghij") == ()


def test_a_net_that_another_input_makes_a_little_less_bad_is_left_in_peace() -> None:
    images, means, noise = spots(600, 10, 1)
    other = np.random.default_rng(1).integers(0, 10, len(images))
    labels = np.where(np.arange(len(images)) % 5 < 3, other, images.labels)
    net = Bayes((images, means, noise), "signed")
    net.temperature = 20.0
    assert hints(net, ImageSet(images.images, labels), "abcdefghij") == ()


class Contrast(nn.Module):
    """Hears contrast alone: a scale makes it surer of the same answers, a shift does nothing."""

    def __init__(self, known: Any, temperature: float) -> None:
        super().__init__()
        flat = torch.tensor(known[1]).permute(0, 3, 1, 2).flatten(1).float()
        self.weight = (flat - flat.mean(1, keepdim=True)) / (0.14**2 * temperature)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T


def test_more_contrast_is_not_taken_for_the_input_that_a_net_wants() -> None:
    known = spots(600, 10, 1)
    assert hints(Contrast(known, 2.3), known[0], "abcdefghij") == ()
