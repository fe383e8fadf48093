"""What is given through Python: one line that says what came and what is wanted; the ball kept.

Rebuilt from foolbox#602, ART#348, lightning#14783 and torchattacks#136.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from attack_models import SHAPE, images_of_the_middle, label_of, linear_net
from torch import Tensor

from purpleteam.attacks import FGSM, PGD, evaluate
from purpleteam.attacks.driver import Driver
from purpleteam.attacks.evasion import EvasionAttack
from purpleteam.attacks.noise import Noise
from purpleteam.core.errors import PurpleError
from purpleteam.data.images import ImageSet
from purpleteam.models import LoadedModel
from purpleteam.models import evaluate as evaluate_clean

X = images_of_the_middle(6)
Y = label_of(linear_net(3), X)
HOLE = X.clone()
HOLE[2, 0, 0, 0] = torch.nan

IMAGES = {
    "in 0..255": (X * 255, r"x reaches from 1\d\d\.?\d* to 15\d\.?\d*: x / 255; wanted: float32"),
    "a little over 1": (X * 0 + 1.3, r"to 1.3: x.clamp\(0, 1\), if it only overshoots"),
    "normalised": ((X - 0.5) / 0.5, r"reaches from -0.* to 0.*normalisation.*in the model"),
    "float64": (
        X.double(),
        r"x is float64 \(6, 1, 4, 4\); wanted: float32 .*: x.float",
    ),
    "half": (X.half(), r"x is float16 .*: x.float\(\)"),
    "uint8": ((X * 255).byte(), r"x is uint8 .*: x.float\(\) / 255"),
    "no channels": (X[:, 0], r"x is float32 \(6, 4, 4\); .*: x.unsqueeze\(1\)"),
    "one image": (X[0], r"x.unsqueeze\(0\), if it is one image"),
    "channels last": (torch.rand(6, 8, 8, 3), r"x.permute\(0, 3, 1, 2\)"),
    "flat": (X.flatten(1), "it has 2 axes"),
    "empty": (X[:0], "it holds no image"),
    "NaN": (HOLE, "x holds NaN or infinity in 1 of 6 images"),
    "an array": (X.numpy(), "x is a ndarray, not a torch tensor"),
}
LABELS = {
    "one-hot": (torch.eye(3)[Y], r"y is float32 \(6, 3\); wanted: int64 labels.*y.argmax\(1\)"),
    "a column": (Y[:, None], r"y is int64 \(6, 1\); .*: y.flatten\(\).long"),
    "float": (Y.float(), r"y is float32 \(6,\); .*long"),
    "from 1": (torch.tensor([1, 2, 3, 1, 2, 3]), r"from 1 to 3; wanted: 0 to 2.*y - 1"),
    "too high": (torch.tensor([0, 0, 0, 0, 0, 9]), "reach from 0 to 9; wanted: 0 to 2"),
    "below 0": (Y - 1 - Y.min(), "reach from -1 to"),
    "too few": (Y[:4], "y holds 4 labels for 6 images"),
    "an array": (Y.numpy(), "y is a ndarray, not a torch tensor"),
}


@pytest.mark.parametrize("call", [FGSM().__call__, FGSM().run])
@pytest.mark.parametrize("name", IMAGES)
def test_what_are_no_images_is_told_in_a_line(call: object, name: str) -> None:
    x, message = IMAGES[name]
    with pytest.raises(PurpleError, match=message) as error:
        call(linear_net(3), x, Y[: len(x)])
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


@pytest.mark.parametrize("name", LABELS)
def test_what_are_no_labels_is_told_in_a_line(name: str) -> None:
    y, message = LABELS[name]
    with pytest.raises(PurpleError, match=message) as error:
        PGD(steps=2).run(linear_net(3), X, y)
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


@pytest.mark.parametrize("epsilon", ["8/255", None])
def test_an_epsilon_that_is_no_number_is_told(epsilon: object) -> None:
    with pytest.raises(ValueError, match=f"a number such as 8 / 255, not {epsilon!r}"):
        FGSM(epsilon=epsilon)


@pytest.mark.parametrize("y", [Y.int(), Y.to(torch.uint8)])
def test_labels_of_another_width_are_labels(y: Tensor) -> None:
    net, attack = linear_net(3), PGD(steps=2)
    assert torch.equal(attack(net, X, y), attack(net, X, Y))


def test_what_rounding_left_outside_the_range_is_taken_for_its_end() -> None:
    x = torch.where(X < 0.45, -2.98e-8, X)
    assert FGSM(epsilon=0.1)(linear_net(3), x, Y).min() >= 0


def test_something_that_is_no_classifier_is_told_with_what_is() -> None:
    loaded = LoadedModel("m", "sha256:0", linear_net(3))
    with pytest.raises(PurpleError, match=r"LoadedModel, not a classifier .* its .module is one"):
        FGSM()(loaded, X, Y)  # type: ignore[arg-type]


def test_labels_that_no_score_stands_for_are_told_by_both_evaluations() -> None:
    pixels = (X * 255).byte().permute(0, 2, 3, 1).contiguous().numpy()
    images = ImageSet(pixels, np.arange(1, 7) % 4)
    for ask in (
        lambda: evaluate(linear_net(3), images, FGSM()),
        lambda: evaluate_clean(linear_net(3), images, classes=3),
    ):
        with pytest.raises(PurpleError, match="labels reach from 0 to 3"):
            ask()


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_the_callers_mode_changes_nothing(mode: object) -> None:
    net, attack = linear_net(3), PGD(epsilon=0.1, steps=5)
    expected = attack(net, X, Y)
    with mode():
        assert torch.equal(attack(net, X.clone(), Y.clone()), expected)


@dataclass(frozen=True, kw_only=True)
class Sly(EvasionAttack):
    """Reports what lies outside of the ball, past everything that would have moved it back."""

    def perturb(self, driver: Driver, x: Tensor, noise: Noise) -> Tensor:
        driver.nearest[:] = 1 - x
        driver.nearest_distance[:] = 0
        driver.dropped[:] = True
        return x


def test_an_attack_that_leaves_its_ball_is_an_error_that_names_it() -> None:
    with pytest.raises(RuntimeError, match=r"'Sly' broke its promise: an image lies .* in linf"):
        Sly(epsilon=0.01).run(linear_net(3), X, Y)
    assert X.shape[1:] == SHAPE
