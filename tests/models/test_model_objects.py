"""Models that the user holds: nets, functions on tensors or arrays, and what was loaded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from models_tiny import bars
from torch import Tensor, nn

from purpleteam.core.errors import ModelError, UsageError
from purpleteam.data.images import ImageSet
from purpleteam.models import LoadedModel, evaluate, load
from purpleteam.models.adapters import NORMALISATIONS
from purpleteam.models.black_box import BlackBox, ObjectClassifier, ObjectNet
from purpleteam.models.devices import to_batch
from purpleteam.models.loading import opened

IMAGES: ImageSet = bars(30)
X = to_batch(IMAGES.images)
SHAPE = (1, 12, 12)
ROWS = torch.eye(3).repeat_interleave(48, 1) / 2 - 1 / 6


class Bars(nn.Module):
    """A net that knows the bars."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(ROWS.clone())

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T


def on_tensors(x: Tensor) -> Tensor:
    return x.flatten(1) @ ROWS.T


def on_arrays(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    assert isinstance(x, np.ndarray)
    return np.asarray(x.reshape(len(x), -1) @ ROWS.numpy().T)


def test_a_net_is_copied_and_named_by_its_class() -> None:
    net = Bars().train()
    loaded = load(net, shape=SHAPE)
    assert loaded.name == "Bars" and loaded.module is not net
    assert net.training and not loaded.module.training
    assert loaded.notes == ("its digest is of its state dict; its code is no part of it",)
    assert evaluate(loaded.module, IMAGES, classes=3).clean_accuracy.value == 1
    net.weight.data.zero_()
    torch.testing.assert_close(loaded.module(X), on_tensors(X))


def test_the_digest_of_a_net_follows_its_weights_alone() -> None:
    other = Bars()
    other.weight.data[0, 0] += 1
    digests = [load(net).digest for net in (Bars(), Bars().eval(), other)]
    assert digests[0] == digests[1] != digests[2]


def test_a_net_of_other_precision_or_around_another_becomes_the_plain_one() -> None:
    loaded = load(nn.DataParallel(Bars().double()))
    assert (loaded.name, loaded.converted_from) == ("Bars", "float64")
    assert loaded.notes[0] == "the net is float64: made float32"
    assert loaded.module(X).dtype == torch.float32


def test_dropout_that_was_on_is_noted_and_the_users_net_left_alone() -> None:
    net = nn.Sequential(nn.Dropout(0.5), Bars())
    assert "it was in train mode (Dropout); it is used in eval mode" in load(net).notes
    assert net.training and all(one.requires_grad for one in net.parameters())


def test_a_net_that_cannot_be_copied_is_used_itself() -> None:
    net = Bars()
    net.kept = net.weight * 1
    loaded = load(net)
    assert loaded.module is net and loaded.notes[0].startswith("it cannot be copied")


def test_what_was_loaded_is_returned_as_it_is() -> None:
    loaded = load(Bars())
    assert load(loaded) is loaded


def test_a_function_that_lets_gradients_through_is_white_box() -> None:
    loaded = load(on_tensors, shape=SHAPE)
    assert isinstance(loaded.module, BlackBox) and loaded.name == "on_tensors"
    loaded = opened(loaded, IMAGES)
    assert isinstance(loaded.module, ObjectNet) and loaded.notes[-1].endswith("white-box")
    torch.testing.assert_close(loaded.module(X), on_tensors(X))


@pytest.mark.parametrize(
    "model",
    [on_arrays, lambda x: on_arrays(x.numpy()), lambda x: on_arrays(np.array(x)).tolist()],
    ids=["arrays", "detached", "lists"],
)
def test_a_function_without_gradients_is_a_black_box(model: Any) -> None:
    loaded = opened(load(model, shape=SHAPE), IMAGES)
    assert isinstance(loaded.module, ObjectClassifier) and not loaded.module.differentiable
    assert loaded.notes[-1].endswith("black-box attacks only")
    assert evaluate(loaded.module, IMAGES, classes=3).clean_accuracy.value == 1


def test_the_digest_of_a_function_is_of_its_name_and_answers_and_says_so() -> None:
    def model(x: Tensor) -> Tensor:
        return on_tensors(x) * factor

    factor = 1.0
    first, again = load(model, shape=SHAPE), load(model, shape=SHAPE)
    factor = 2.0
    other = load(model, shape=SHAPE)
    assert first.digest == again.digest != other.digest
    assert "answers to 4 images of noise: its code is no part" in first.notes[0]
    assert "of its name alone" in load(model).notes[0]


def test_a_net_without_tensors_is_told_from_another_by_its_answers() -> None:
    class Sums(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :3] * self.factor  # type: ignore[operator]

    one, other = Sums(), Sums()
    one.factor, other.factor = 1.0, 2.0  # type: ignore[assignment]
    assert load(one, shape=SHAPE).digest != load(other, shape=SHAPE).digest


def test_a_method_of_a_net_has_the_digest_of_its_weights() -> None:
    assert load(Bars().forward).digest == load(Bars()).digest


def test_an_object_behind_a_normalisation_sees_what_that_gives() -> None:
    layer = NORMALISATIONS["inverted"]
    for model in (Bars(), on_tensors, on_arrays):
        loaded = opened(load(model, normalisation=layer), IMAGES)
        torch.testing.assert_close(loaded.module(X), on_tensors(1 - X))


def test_a_maite_model_is_taken_as_such() -> None:
    class Model:
        metadata = {"id": "bars", "index2label": {0: "top", 1: "middle", 2: "bottom"}}  # noqa: RUF012

        def __call__(self, batch: Any) -> Any:
            return on_tensors(torch.stack(list(batch)))

    loaded = load(Model())
    assert loaded.names == ("top", "middle", "bottom") and "MAITE" in loaded.notes[0]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Bars, "model is the class Bars, not a net: give Bars()"),
        (3, "model is a int, not a classifier that is called with images"),
        ({"weight": ROWS}, "model is a dict, not a classifier"),
    ],
    ids=["class", "number", "state"],
)
def test_what_is_no_model_is_refused(model: Any, message: str) -> None:
    with pytest.raises(UsageError) as error:
        load(model)
    assert message in str(error.value)


def test_options_of_names_do_not_go_with_objects(tmp_path: Any) -> None:
    with pytest.raises(UsageError, match="go with a name, not with a Bars"):
        load(Bars(), weights=tmp_path / "w.safetensors")


def test_a_function_that_answers_otherwise_is_told_in_a_line() -> None:
    with pytest.raises(ModelError, match="look like labels"):
        load(lambda x: on_tensors(x).argmax(1), shape=SHAPE)
    with pytest.raises(ModelError, match=r"does not take images of shape \(1, 12, 12\)"):
        load(lambda x: x @ torch.zeros(5, 5), shape=SHAPE)


def test_a_loaded_model_is_what_load_returns() -> None:
    assert all(isinstance(load(one), LoadedModel) for one in (Bars(), on_tensors, on_arrays))
