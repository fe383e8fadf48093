"""Soundness stays quiet on honest models: other trainings, norms, precisions, forms and sizes."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from attack_models import Deceiver
from soundness_models import Ramp, colour_net, honest, labelled_by_colour, small_digits
from torch import Tensor, nn

from purpleteam.attacks import FGSM, PGD, Soundness, evaluate, soundness_of
from purpleteam.attacks.evasion import ATTACKS, EvasionAttack
from purpleteam.attacks.wrappers import Averaged, BackwardPass
from purpleteam.data.images import ImageSet
from purpleteam.models.inference import Classifier


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return small_digits().test.first(40)  # of fewer than 35 no number is called sound


LADDERS: dict[str, EvasionAttack] = {
    "linf": ATTACKS["ladder"](epsilon=0.1),
    "small": ATTACKS["ladder"](epsilon=0.03),
    "l2": ATTACKS["ladder"](norm="l2", epsilon=0.5),
    "l1": ATTACKS["ladder"](norm="l1", epsilon=2.0),
}


def verdict(model: Classifier, images: ImageSet, *attacks: EvasionAttack) -> Soundness:
    return soundness_of(model, images, attacks, [evaluate(model, images, *attacks)])


PAIRS = [
    *(("standard", ladder) for ladder in LADDERS),
    *((name, "linf") for name in ("adversarially trained", "interval trained", "input ramp")),
    *(("large margin", "small"), ("perceptron", "l1"), ("batch norm", "l2")),
]
"""Every net, and every norm with two nets; benchmarks/soundness_grid.py goes through them all."""


@pytest.mark.parametrize(("name", "ladder"), PAIRS)
def test_an_honest_net_raises_no_doubt(images: ImageSet, name: str, ladder: str) -> None:
    found = verdict(honest(name), images, LADDERS[ladder])
    assert (found.verdict, found.reasons) == ("sound", ())
    assert found.checks["zero_gradients"] <= 0.05 and found.checks["steps_that_do_not_climb"] == 0


@pytest.mark.parametrize("name", ["standard", "adversarially trained", "large margin"])
def test_a_single_step_against_an_honest_net_is_weak_and_no_more(
    images: ImageSet, name: str
) -> None:
    assert verdict(honest(name), images, FGSM(epsilon=0.05)).verdict == "weak"


@pytest.mark.parametrize(("name", "epsilon"), [("standard", 0.06), ("adversarially trained", 0.1)])
def test_the_strongest_ladder_is_sound(images: ImageSet, name: str, epsilon: float) -> None:
    ladder = [ATTACKS[one](epsilon=epsilon, steps=60) for one in ("apgd_ce", "apgd_dlr")]
    assert verdict(honest(name), images, *ladder).reasons == ()


def in_precision(net: nn.Module, precision: torch.dtype) -> Classifier:
    coarse = copy.deepcopy(net).to(precision)
    return lambda x: coarse(x.to(precision))


FORMS: dict[str, Callable[[nn.Module], Classifier]] = {
    "log-probabilities": lambda net: lambda x: net(x).log_softmax(1),
    "shifted logits": lambda net: lambda x: net(x) + 100,
    "float64": lambda net: in_precision(net, torch.float64),
    "bfloat16": lambda net: in_precision(net, torch.bfloat16),
    "standardised input": lambda net: lambda x: net(((x - 0.5) / 0.5 + 1) / 2),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_form_of_a_model_raises_no_doubt(form: str) -> None:
    images = small_digits().test.first(60)  # of which one falls to the check
    found = verdict(FORMS[form](honest("standard")), images, PGD(epsilon=0.06, steps=40))
    assert (found.verdict, found.reasons) == ("sound", ())


@pytest.mark.parametrize("count", [1, 30])
def test_a_few_images_are_too_few_to_call_a_number_sound(images: ImageSet, count: int) -> None:
    found = verdict(honest("large margin"), images.first(count), LADDERS["small"])
    assert found.verdict == "weak" and found.overstates.value == 0
    assert "too few images" in found.reasons[0] and len(found.reasons) == 1


@pytest.mark.parametrize("epsilon", [0.02, 0.06, 0.3])
def test_colour_images_of_another_size_and_three_classes_raise_no_doubt(epsilon: float) -> None:
    images = labelled_by_colour()
    assert verdict(colour_net(), images, PGD(epsilon=epsilon, steps=40)).reasons == ()


def test_a_robust_net_that_is_very_sure_of_itself_is_not_called_masked(images: ImageSet) -> None:
    sure = Deceiver(honest("large margin"), lambda net, x: 10_000 * net(x))
    found = verdict(sure, images, PGD(epsilon=0.002, steps=40))
    assert found.checks["zero_gradients"] > 0.5  # cross-entropy is flat in float32
    assert found.checks["masked_gradients"] == 0 and found.verdict == "sound"


def test_a_model_that_is_constant_hides_nothing(images: ImageSet) -> None:
    zeros = images.take(np.flatnonzero(images.labels == 0))
    always_zero = Deceiver(
        nn.Identity(), lambda _, x: 0 * x.flatten(1)[:, :10] + torch.linspace(3, -2, 10)
    )
    found = verdict(always_zero, zeros, LADDERS["linf"])
    assert found.verdict != "not_established"  # weak at most: so few zeros tell little


def test_a_steep_ramp_attacked_in_its_box_is_sound(images: ImageSet) -> None:
    """The ramp is flat at both ends; a backward pass in its place lets the attack move there."""
    net = honest("input ramp")
    steep = BackwardPass(Ramp(0.2, 0.8), net[1:])
    assert verdict(steep, images, LADDERS["linf"]).verdict == "sound"


def noisy(net: nn.Module, x: Tensor) -> Tensor:
    return net(x + 0.05 * torch.randn_like(x))


def test_a_random_model_is_sound_where_the_attack_averages(images: ImageSet) -> None:
    model = Deceiver(honest("standard"), noisy)
    averaging = ATTACKS["apgd_ce"](epsilon=0.1, steps=10, samples=4)
    found = verdict(model, images.first(20), averaging)
    assert found.checks["randomised"] and found.verdict != "not_established"  # of 20 images
    found = verdict(Averaged(model, 4), images.first(20), LADDERS["linf"])
    assert found.checks["depends_on_neighbours"] and found.verdict != "not_established"


def test_the_same_seed_gives_the_same_verdict_and_leaves_the_generator_alone(
    images: ImageSet,
) -> None:
    model, attacks = Deceiver(honest("standard"), noisy), [LADDERS["small"]]
    evaluation = evaluate(model, images.first(20), *attacks)
    before = torch.random.get_rng_state()
    one, other = (
        soundness_of(model, images.first(20), attacks, [evaluation], seed=3) for _ in range(2)
    )
    assert one.to_json() == other.to_json()
    assert torch.equal(before, torch.random.get_rng_state())
