"""What every architecture promises; a new one is covered by being registered."""

from __future__ import annotations

import re

import pytest
import torch
from models_tiny import equal_weights
from torch import nn

from purpleteam.core.errors import UsageError
from purpleteam.models import ARCHITECTURES, Provenance, build, load, store
from purpleteam.models.architectures import Normalise

SHAPES = [(1, 28, 28), (3, 32, 32), (1, 20, 24), (1, 8, 8)]
OWN = [
    name for name, net in ARCHITECTURES.items() if net.__module__.startswith("purpleteam.models")
]
every = pytest.mark.parametrize("name", OWN)


def noise(n: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))


@every
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("classes", [2, 10, 17])
def test_images_of_any_size_become_one_row_of_logits_each(name, shape, classes):
    net = build(name, shape, classes, seed=0)
    out = net(noise(3, *shape))
    assert (out.shape, out.dtype) == ((3, classes), torch.float32)
    assert torch.isfinite(out).all()


@every
def test_weights_are_a_function_of_the_seed(name):
    one, same, other = (build(name, (1, 8, 8), 3, seed=seed) for seed in (7, 7, 8))
    assert equal_weights(one, same)
    assert not equal_weights(one, other)


@every
def test_making_a_net_leaves_the_global_random_numbers_alone(name):
    before = torch.get_rng_state()
    build(name, (1, 8, 8), 3, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


@every
def test_the_same_image_gets_the_same_logits_alone_and_in_company(name):
    net = build(name, (1, 28, 28), 10, seed=0).eval()
    x = noise(8, 1, 28, 28)
    with torch.inference_mode():
        assert torch.equal(net(x), net(x))
        assert torch.allclose(net(x)[3], net(x[3:4])[0], atol=1e-5)


@every
def test_normalisation_is_inside_and_part_of_the_weights(name):
    net = build(name, (1, 8, 8), 3, seed=0)
    (layer,) = [one for one in net.modules() if isinstance(one, Normalise)]
    held = [key for key in net.state_dict() if key.endswith(("mean", "deviation"))]
    assert len(held) >= 2
    assert not layer.mean.requires_grad
    x = torch.full((1, 1, 2, 2), float(layer.mean + layer.deviation))
    assert torch.allclose(layer(x), torch.ones(1))
    assert torch.allclose(layer.mean, torch.tensor(0.13))


@every
def test_every_weight_gets_a_gradient(name):
    net = build(name, (1, 28, 28), 10, seed=0)
    nn.functional.cross_entropy(net(noise(4, 1, 28, 28)), torch.arange(4)).backward()
    for parameter in net.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


@every
def test_it_can_be_stored_exported_and_loaded(name, tmp_path):
    classes = tuple(map(str, range(17)))
    provenance = Provenance(architecture=name, shape=(1, 20, 24), classes=classes, recipe={})
    net = build(name, (1, 20, 24), 17, seed=3)
    stored = store(net, tmp_path / "net", provenance)
    assert stored.card.onnx_difference < 1e-4
    assert equal_weights(load(str(stored.weights)).module, net)


def test_an_unknown_architecture_gives_the_nearest():
    with pytest.raises(UsageError, match=r"unknown architecture 'smal_cnn' .*'small_cnn'"):
        build("smal_cnn", (1, 8, 8), 3, seed=0)


@every
def test_the_number_of_weights_that_a_docstring_states_is_true(name):
    stated = re.findall(r"([\d,]+) weights for MNIST", ARCHITECTURES[name].__doc__)
    count = sum(one.numel() for one in build(name, (1, 28, 28), 10, seed=0).parameters())
    assert stated in ([], [f"{count:,}"])
