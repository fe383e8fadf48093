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
from purpleteam.attacks.norms import Noise
from purpleteam.core.errors import PurpleError
from purpleteam.data.images import Dataset, ImageSet
from purpleteam.defences.detection.model import scan_model
from purpleteam.defences.detection.training_set import scan_training_set
from purpleteam.models import LoadedModel, logits
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
    "an array": (X.numpy(), r"x is a ndarray, not a torch tensor.*from_numpy\(x.astype"),
    "objects": (np.array([X[0].numpy(), None], object), r"a ndarray, .*from_numpy\(np.stack"),
    "a list": ([*X], r"x is a list, .*: torch.stack\(list\(x\)\)"),
    "int32": ((X * 255).int(), r"x is int32 .*: x.float\(\) / 255"),
    "complex": (X.to(torch.complex64), "x is complex64 .*images are real: x.real"),
    "sparse": (X.to_sparse(), r"x is sparse; .*: x.to_dense\(\)"),
    "meta": (X.to("meta"), "x is on the meta device, where there are no values"),
    "nested": (
        torch.nested.nested_tensor([*X], layout=torch.jagged),
        r"x is nested; .*torch.stack\(x.unbind",
    ),
    "mkldnn": (X.to_mkldnn(), r"mkldnn.*: x.to_dense\(\)"),
}
AS_GOOD = {
    "requires grad": X.clone().requires_grad_(True),
    "a parameter": torch.nn.Parameter(X.clone()),
    "not contiguous": X.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
    "channels last": X.clone().to(memory_format=torch.channels_last),
    "a subclass": X.clone().as_subclass(type("Image", (Tensor,), {})),
}
LABELS = {
    "one-hot": (torch.eye(3)[Y], r"y is float32 \(6, 3\); wanted: int64 labels.*y.argmax\(1\)"),
    "a column": (Y[:, None], r"y is int64 \(6, 1\); .*: y.flatten\(\).long"),
    "float": (Y.float(), r"y is float32 \(6,\); .*long"),
    "from 1": (torch.tensor([1, 2, 3, 1, 2, 3]), r"from 1 to 3; wanted: 0 to 2.*y - 1"),
    "too high": (torch.tensor([0, 0, 0, 0, 0, 9]), "reach from 0 to 9; wanted: 0 to 2"),
    "below 0": (Y - 1 - Y.min(), "reach from -1 to"),
    "too few": (Y[:4], "y holds 4 labels for 6 images"),
    "an array": (Y.numpy(), r"y is a ndarray, not a torch tensor.*from_numpy\(y\)"),
    "a list": (Y.tolist(), r"y is a list, .*: torch.tensor\(y\)"),
    "sparse": (Y.to_sparse(), r"y is sparse; .*: y.to_dense\(\)"),
    "meta": (Y.to("meta"), "y is on the meta device"),
    "nested": (torch.nested.nested_tensor([Y], layout=torch.jagged), "y is nested"),
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


@pytest.mark.parametrize("name", AS_GOOD)
def test_images_stored_in_another_way_get_the_same_answer_and_are_left_alone(name: str) -> None:
    x, net, attack = AS_GOOD[name], linear_net(3), PGD(epsilon=0.1, steps=5)
    found, kept = attack(net, x, Y), x.detach().clone()
    assert torch.equal(found, attack(net, X, Y)) and type(found) is Tensor
    assert not found.requires_grad and x.grad is None and torch.equal(x.detach(), kept)


@pytest.mark.parametrize("epsilon", ["8/255", None, [0.1, 0.2], torch.tensor(0.1)])
def test_an_epsilon_that_is_no_number_is_told(epsilon: object) -> None:
    with pytest.raises(ValueError, match="a number such as 8 / 255, not ") as error:
        FGSM(epsilon=epsilon)
    assert str(error.value).endswith(repr(epsilon))


@pytest.mark.parametrize("steps", [2.5, "2"])
def test_a_count_that_is_not_whole_is_told(steps: object) -> None:
    with pytest.raises(ValueError, match=f"steps must be whole and at least 1, not {steps!r}"):
        PGD(steps=steps)


@pytest.mark.parametrize("index", [[0] * 6, torch.arange(4), torch.arange(6.0)])
def test_places_that_are_none_are_told(index: object) -> None:
    with pytest.raises(PurpleError, match=r"index is .*; wanted: an int64 tensor \(6,\)"):
        PGD(steps=2)(linear_net(3), X, Y, index=index)


PIXELS = (X * 255).byte().permute(0, 2, 3, 1).contiguous().numpy()
DATA = ImageSet(PIXELS, Y.numpy())
WHOLE = Dataset("mine", DATA, DATA, DATA, ("a", "b", "c"))


@pytest.mark.parametrize(
    ("images", "told"),
    [
        (X, r"a Tensor, not an ImageSet: give ImageSet\(\(255 \* x\).round\(\).byte\(\)"),
        ((PIXELS, Y.numpy()), r"a tuple, not an ImageSet: give ImageSet\(images, labels\)"),
        (WHOLE, "a Dataset, not an ImageSet: give one of its splits, such as dataset.test"),
    ],
)
def test_what_is_no_set_is_told_with_how_to_make_one(images: object, told: str) -> None:
    net = linear_net(3)
    for ask in (
        lambda: evaluate(net, images, FGSM()),
        lambda: evaluate_clean(net, images, classes=3),
        lambda: scan_model(net, images, classes=3),
        lambda: scan_training_set(images, classes=3),
    ):
        with pytest.raises(PurpleError, match=told):
            ask()


@pytest.mark.parametrize(
    ("attack", "told"),
    [
        (PGD, r"the class PGD: give PGD\(steps=40\)"),
        ("pgd", "but 'pgd': give PGD"),
        ([PGD()], r"but \[PGD"),
    ],
)
def test_what_is_no_attack_is_told(attack: object, told: str) -> None:
    with pytest.raises(PurpleError, match=told):
        evaluate(linear_net(3), DATA, attack)


@pytest.mark.parametrize(
    ("images", "told"),
    [
        (PIXELS / 255, r"float64 \(6, 4, 4, 1\); wanted: a NumPy array of uint8"),
        (PIXELS[..., 0], r"uint8 \(6, 4, 4\)"),
        (X, r"float32 \(6, 1, 4, 4\)"),
        ([0], "list"),
    ],
)
def test_floats_are_not_taken_for_bytes(images: object, told: str) -> None:
    with pytest.raises(PurpleError, match=told):
        logits(linear_net(3), images)


def test_bytes_stored_in_another_way_get_the_same_answer() -> None:
    expected = logits(linear_net(3), PIXELS)
    flipped = np.ascontiguousarray(PIXELS[:, ::-1])[:, ::-1]
    for pixels in (np.asfortranarray(PIXELS), flipped, PIXELS.copy()):
        pixels.flags.writeable = False
        assert np.array_equal(logits(linear_net(3), pixels), expected)


def test_no_images_at_once_are_told() -> None:
    for ask in (
        lambda: evaluate(linear_net(3), DATA, FGSM(), batch_size=0),
        lambda: evaluate_clean(linear_net(3), DATA, classes=3, batch_size=0),
    ):
        with pytest.raises(PurpleError, match="batch_size must be at least 1, not 0"):
            ask()


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
