"""What holds for every classifier that only answers."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from black_box_tiny import labels_of
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from purpleteam.core.errors import ModelError
from purpleteam.data.images import ImageSet
from purpleteam.models import evaluate
from purpleteam.models.black_box import BlackBox, as_bytes
from purpleteam.models.devices import device_of, frozen
from purpleteam.models.inference import correct, logits

NAN = float("nan")


class Says(BlackBox):
    """Scores are the pixels of a 1x1x3 image; a bright first pixel is refused."""

    def __init__(self) -> None:
        super().__init__("says", digest="d", shape=(1, 1, None), classes=3, gives="scores")
        self.got: list[Tensor] = []

    def ask(self, images: Tensor) -> Tensor:
        self.got.append(images)
        self.calls += len(images)
        rows = images.flatten(1).clone()
        rows[rows[:, 0] > 0.9] = NAN
        return rows


def image(*pixels: float) -> Tensor:
    return torch.tensor(pixels).reshape(1, 1, 1, -1)


def test_what_is_sent_is_rounded_to_the_nearest_byte():
    model = Says()
    model(image(0.001, 0.5019, 0.9999) * 0.5)
    assert (model.got[0] * 255).flatten().tolist() == [0, 64, 127]


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=8))
def test_a_byte_is_never_further_than_half_a_step(pixels):
    x = torch.tensor(pixels)
    sent = torch.from_numpy(as_bytes(x)).double() / 255
    assert (sent - x.double()).abs().max() <= 0.5 / 255 + 1e-7


def test_every_byte_arrives_as_itself():
    levels = torch.arange(256, dtype=torch.float32) / 255
    assert as_bytes(levels).tolist() == list(range(256))


def test_rounding_again_changes_nothing():
    model = Says()
    x = torch.rand(1, 1, 1, 3, generator=torch.Generator().manual_seed(0)) * 0.8
    assert torch.equal(model(x), model(model.got[0]))


@pytest.mark.parametrize("amiss", [NAN, float("inf")])
def test_what_is_no_number_is_not_sent(amiss):
    model = Says()
    with pytest.raises(ModelError, match="NaN or infinity, which cannot be sent"):
        model(image(0.1, amiss, 0.1))
    assert model.calls == 0


def test_a_refusal_is_a_row_of_nan_and_no_label():
    model = Says()
    x = torch.cat([image(1.0, 0.2, 0.3), image(0.1, 0.2, 0.3)])
    assert model(x).isnan().all(1).tolist() == [True, False]
    assert labels_of(model, x) == [-1, 2]
    assert (model.refusals, model.calls) == (2, 4)


def test_a_refused_image_is_not_right_whatever_its_label():
    pixels = np.array([[250, 0, 0], [250, 0, 0], [10, 200, 0]], np.uint8)[:, None, :, None]
    images = ImageSet(pixels, np.array([0, 2, 1]))
    assert correct(Says(), images).tolist() == [False, False, True]
    assert np.isnan(logits(Says(), images.images)).all(1).tolist() == [True, True, False]


def test_an_evaluation_counts_refusals_as_wrong_and_leaves_them_out_of_the_loss():
    pixels = np.array([[250, 0, 0], [10, 200, 0], [0, 0, 9]], np.uint8)[:, None, :, None]
    found = evaluate(Says(), ImageSet(pixels, np.array([0, 1, 2])), classes=3)
    assert found.correct.tolist() == [False, True, True]
    assert (found.clean_accuracy.value, found.clean_accuracy.n) == (pytest.approx(2 / 3), 3)
    assert (found.loss.n, found.confusion_matrix.n) == (2, 2)
    assert np.isfinite(found.loss.value)
    with pytest.raises(ModelError, match="gave no label to any of 1 images"):
        evaluate(Says(), ImageSet(pixels[:1], np.array([0])), classes=3)


def test_scores_of_a_black_box_that_are_partly_nan_are_a_clear_error():
    class Broken(Says):
        def ask(self, images: Tensor) -> Tensor:
            return torch.tensor([[0.1, NAN, 0.2]])

    with pytest.raises(ModelError, match="NaN or infinite"):
        logits(Broken(), np.zeros((1, 1, 3, 1), np.uint8))


@pytest.mark.parametrize("quantised", [True, False])
def test_no_gradient_comes_out_and_none_is_asked_for(quantised):
    model = Says()
    model.quantised = quantised
    x = image(0.1001, 0.2, 0.3).requires_grad_(True)
    assert not model(x).requires_grad
    assert torch.equal(model.got[0], x) != quantised


def test_it_is_asked_like_a_net():
    model = Says()
    with frozen(model):
        assert device_of(model) == torch.device("cpu")
        assert not model.training
    assert model.to(memory_format=torch.channels_last) is model
    assert logits(model, np.full((5, 1, 3, 1), 51, np.uint8), batch_size=2).shape == (5, 3)


def test_a_copy_of_it_is_the_same_app():
    model = Says()
    assert copy.deepcopy(model) is model


def test_no_image_is_no_question():
    model = Says()
    assert model(torch.zeros(0, 1, 1, 3)).shape == (0, 3)
    assert model.got == []


@pytest.mark.parametrize("shape", [(3, 1, 3), (1, 2, 3), (1, 3)])
def test_images_of_another_shape_are_a_clear_error(shape):
    with pytest.raises(ModelError) as error:
        Says()(torch.zeros(2, *shape))
    assert str(error.value) == f"model 'says' takes images (1, 1, any), not {shape}"
