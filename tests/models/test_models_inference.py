"""What is asked of a model, and what it may not answer."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from models_tiny import SHAPE, Says, scores_as_pixels
from torch import nn

from purpleteam.core.errors import ModelError
from purpleteam.models import build, logits
from purpleteam.models.inference import correct

PIXELS = np.arange(6 * 4 * 5 * 1, dtype=np.uint8).reshape(6, 4, 5, 1)


def test_a_model_gets_floats_from_0_to_1_with_channels_first():
    seen = []

    def model(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.clone())
        return x.flatten(1)[:, :2]

    image = np.zeros((1, 2, 3, 3), np.uint8)
    image[0, 1, 2] = (255, 51, 0)
    logits(model, image)
    x = seen[0]
    assert (x.shape, x.dtype) == ((1, 3, 2, 3), torch.float32)
    assert x[0, :, 1, 2].tolist() == pytest.approx([1.0, 0.2, 0.0])
    assert x.sum() == pytest.approx(1.2)


@pytest.mark.parametrize("batch_size", [1, 4, 6, 100])
def test_logits_are_float32_rows_in_order(batch_size):
    out = logits(Says(), PIXELS, batch_size=batch_size)
    assert out.dtype == np.float32
    assert np.allclose(out, PIXELS.reshape(6, -1))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda out: {"logits": out, "hidden": 1},
        lambda out: (out, out[:, :1]),
        lambda out: (out.sum(), out),
        lambda out: [out],
        lambda out: SimpleNamespace(logits=out),
        lambda out: out.double(),
        lambda out: out.half().float(),
    ],
)
def test_logits_are_taken_out_of_what_hubs_return(wrap):
    out = logits(lambda x: wrap(x.flatten(1)), PIXELS)
    assert np.allclose(out, PIXELS.reshape(6, -1) / 255, atol=1e-3)


def test_a_plain_function_is_a_classifier():
    assert logits(lambda x: x.mean(1).flatten(1), PIXELS).shape == (6, 20)


def test_a_model_of_less_precision_is_answered_in_float32():
    assert logits(lambda x: x.flatten(1).to(torch.bfloat16), PIXELS).dtype == np.float32


def test_correct_compares_labels_in_order():
    images = scores_as_pixels([[9, 0], [0, 9], [9, 0]], [0, 1, 1])
    assert correct(Says(), images).tolist() == [True, True, False]


def test_no_gradient_is_kept_and_modes_are_restored():
    model = Says().train()
    logits(model, PIXELS)
    assert model.training
    assert model.factor.requires_grad
    assert model.factor.grad is None


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: {"scores": x}, "returned dict with 'scores', not logits"),
        (lambda x: {"logits": x}, r"returned \(6, 1, 4, 5\).*, not logits"),
        (lambda x: x.sum((1, 2, 3)) - 9, r"torch.stack\(\[-z, z\], 1\) with z = net\(x\)"),
        (lambda x: x.mean((1, 2, 3))[:, None], r"with z = torch.logit\(net\(x\).flatten\(\)"),
        (lambda _: None, "returned NoneType, not logits"),
        (lambda x: x, r"returned \(6, 1, 4, 5\).*, not logits"),
        (lambda x: x.flatten(1).argmax(1), r"returned \(6,\), not logits"),
        (lambda x: x.flatten(1)[:3], r"returned \(3, 20\), not logits \(6, classes\)"),
        (lambda x: x.flatten(1) * float("nan"), "returned NaN or infinite logits"),
        (lambda x: x.flatten(1) / 0, "returned NaN or infinite logits"),
    ],
)
def test_what_is_no_logits_is_a_clear_error(answer, message):
    with pytest.raises(ModelError, match=message):
        logits(answer, PIXELS)


@pytest.mark.parametrize(
    "model",
    [
        build("small_cnn", (3, 28, 28), 10, seed=0),
        nn.Sequential(nn.Flatten(), nn.Linear(3, 2)),
        nn.Embedding(3, 2),
        lambda x: x.no_such_method(),
        lambda x: {}[x.shape],
        lambda x: [][len(x)],
    ],
)
def test_a_model_that_does_not_take_the_images_is_a_clear_error(model):
    with pytest.raises(ModelError) as error:
        logits(model, PIXELS)
    assert str(error.value).startswith("the model does not take images of shape (1, 4, 5): ")
    assert "\n" not in str(error.value)


def test_a_model_that_fails_is_left_as_it_was():
    model = build("small_cnn", SHAPE, 3, seed=0).train()
    with pytest.raises(ModelError):
        logits(model, PIXELS.repeat(3, axis=3))
    assert model.training
    assert all(one.requires_grad for one in model.parameters())


def test_an_interrupt_is_not_swallowed():
    def model(x: torch.Tensor) -> torch.Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        logits(model, PIXELS)
