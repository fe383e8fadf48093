"""Which input and which order of classes a net learned, as its loss on a few images tells."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from purpleteam.data.images import ImageSet
from purpleteam.models.adapters import GREY, Normalisation
from purpleteam.models.fit import InputFit, _is_worse, _standing, hints

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
        (1, "mean=0.449,std=0.226"),
        (1, "mean=0.473,std=0.251"),
        (3, "cifar10"),
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


@pytest.mark.parametrize(
    ("wants", "name"),
    [
        ("mean=0,std=1", ""),
        ("signed", "signed"),
        ("mean=0.406/0.456/0.485,std=0.225/0.224/0.229", "imagenet"),
    ],
)
def test_a_net_that_wants_blue_first_is_told_so(wants: str, name: str) -> None:
    images, means, noise = spots(600, 4, 3)
    means[..., 0] += 0.2 * np.arange(4).reshape(4, 1, 1)  # the more red, the higher the class
    rng = np.random.default_rng(1)
    spread = noise[images.labels][:, None, None, None] * rng.normal(size=images.images.shape)
    pixels = ((means[images.labels] + spread).clip(0, 1) * 255).round().astype(np.uint8)
    shown = ImageSet(pixels, images.labels)
    net = Bayes((shown, means[..., ::-1].copy(), noise), wants)
    found = hints(net, shown, "abcd")
    assert "blue, green, red" in found[-1] and found[-1].endswith("wrap it, net(x.flip(1))")
    assert len(found) == 1 and named(found) == name
    right = hints(Bayes((shown, means, noise), wants), shown, "abcd")
    assert not any("blue" in one for one in right)


def fit_of(name: str, losses: np.ndarray) -> InputFit:
    """Return how a net of two classes reads images of the first with such losses."""
    margin = -np.log(np.expm1(losses))
    scores = np.stack([margin, 0 * margin], 1)
    return InputFit(Normalisation.parse(name), scores, np.zeros(len(losses), np.int64))


@pytest.mark.parametrize(
    ("gap", "first"), [(0.5, "mnist"), (1.5, GREY[-1].name)], ids=["an error", "more"]
)
def test_of_inputs_that_fit_alike_a_name_is_worth_one_standard_error(
    gap: float, first: str
) -> None:
    less = np.full(400, 0.3)
    error = np.where(np.arange(400) % 2, 1, -1) * 0.2
    more = less + error + 0.01 + gap * 0.2 / 20
    best, named = fit_of(GREY[-1].name, less), fit_of("mnist", more)
    own = fit_of("mean=0.1416,std=0.2665", less - 0.001)
    order = sorted([own, named, best], key=lambda one: _standing(one, best))
    assert (order[0].name, order[-1]) == (first, own)


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


def fit(wrong: float, temperature: float = 1.0, n: int = 20_000) -> InputFit:
    """Return answers of two classes, of which a share is wrong; at 1 as sure as they are right."""
    ahead = temperature * np.log((1 - wrong) / wrong)
    right = np.arange(n) >= round(wrong * n)
    return InputFit(None, np.where(right[:, None], [ahead, 0], [0, ahead]), np.zeros(n, np.int64))


def grid(steps: int) -> float:
    """Return a temperature of those that are tried: so many thirds of a doubling."""
    return float(2 ** (steps / 3))


@pytest.mark.parametrize(
    ("one", "other", "beats"),
    [
        (fit(0.17), fit(0.3), True),  # three quarters of the loss
        (fit(0.18), fit(0.3), False),
        (fit(0.01), fit(0.01, grid(4)), True),  # half of it at another scale, beyond 2.5
        (fit(0.1), fit(0.1, grid(4)), False),
        (fit(0.1, grid(2)), fit(0.1, 20.0), True),  # itself as sure as it is right, below 2
        (fit(0.1, grid(4)), fit(0.1, 20.0), False),
        (fit(0.003), fit(0.003, 20.0), True),  # a loss of 0.02 is good enough
        (fit(0.002), fit(0.002, 20.0), False),
    ],
)
def test_an_input_beats_another_where_it_is_clearly_and_far_better(
    one: InputFit, other: InputFit, beats: bool
) -> None:
    assert one.beats(other) == beats


@pytest.mark.parametrize(("ahead", "learned"), [(4.7, True), (4.85, False)])
def test_what_a_net_has_learned_brings_its_loss_to_seven_tenths_of_chance(
    ahead: float, learned: bool
) -> None:
    found = fit(0.1, ahead / np.log(9))
    assert found.has_learned() == learned


@pytest.mark.parametrize("each", [4, 5])
def test_an_order_of_classes_needs_five_images_of_each(each: int) -> None:
    labels = np.repeat([0, 1], [each, 30])
    found = InputFit(None, np.eye(2)[1 - labels], labels)
    assert found.has_enough() == (found.reordered() is not found) == (each == 5)


@pytest.mark.parametrize(("gap", "worse"), [(0.009, False), (0.011, True)])
def test_a_hundredth_of_loss_is_no_difference(gap: float, worse: bool) -> None:
    assert _is_worse(np.full(9, 1 + gap), np.ones(9)) == worse


@pytest.mark.parametrize(("spread", "worse"), [(0.09, True), (0.11, False)])
def test_a_difference_of_two_standard_errors_is_none(spread: float, worse: bool) -> None:
    gap = 0.1 + spread * np.array([1.0, -1.0, 1.0, -1.0])
    assert _is_worse(1 + gap, np.ones(4)) == worse


def test_twenty_images_say_something_and_nineteen_nothing() -> None:
    known = spots(600, 3, 3)
    assert hints(Bayes(known, "inverted"), known[0].first(20), "abc") != ()
    assert hints(Bayes(known, "inverted"), known[0].first(19), "abc") == ()
