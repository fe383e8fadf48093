"""Devices, and a model that is the same before and after."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from models_tiny import SHAPE
from torch import nn

from purpleteam.core.errors import UsageError
from purpleteam.models import build
from purpleteam.models.devices import (
    choose_device,
    device_of,
    fast_autocast,
    frozen,
    has_fast_bf16,
    to_batch,
    use_threads,
)


def test_auto_takes_a_gpu_where_there_is_one():
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose_device("auto").type == choose_device().type == expected
    assert choose_device("cpu").type == "cpu"


def test_an_unknown_device_names_the_choices():
    with pytest.raises(UsageError, match=r"unknown device 'tpu'.*known: auto, cpu, cuda"):
        choose_device("tpu")


@pytest.mark.parametrize("name", ["gpu", "GPU", "cuda:0", "gpu:1", "CUDA", "nvidia"])
def test_what_people_call_a_gpu_is_told_by_its_name(name):
    told = f"unknown device '{name}': .* GPU .* called 'cuda'; known: auto, cpu, cuda"
    with pytest.raises(UsageError, match=told):
        choose_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_a_clear_error():
    with pytest.raises(UsageError, match="device 'cuda' is not here"):
        choose_device("cuda")


def test_a_device_is_where_the_weights_are():
    assert device_of(build("small_cnn", SHAPE, 3, seed=0)).type == "cpu"
    assert device_of(nn.Linear(2, 2, device="meta")).type == "meta"
    assert device_of(nn.Flatten()).type == "cpu"
    assert device_of(lambda x: x).type == "cpu"


@pytest.mark.parametrize("threads", [0, -1])
def test_fewer_threads_than_one_are_refused(threads):
    with pytest.raises(UsageError, match=f"not {threads}"):
        use_threads(threads)


def test_threads_are_set_and_told():
    before = torch.get_num_threads()
    assert use_threads(None) == before
    assert use_threads(before) == before == torch.get_num_threads()


@pytest.mark.parametrize("most", ["SSE41", "AVX2", "avx512_core"])
def test_bfloat16_that_would_be_emulated_is_not_used(monkeypatch, most):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", most)
    assert not has_fast_bf16.__wrapped__("cpu")


def test_autocast_is_a_context_on_the_cpu():
    with fast_autocast(torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).sum() == 8


def test_every_byte_becomes_its_255th():
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    images.flags.writeable = False
    batch = to_batch(images)
    assert (batch.shape, batch.dtype) == ((1, 1, 16, 16), torch.float32)
    assert torch.equal(batch.flatten(), torch.arange(256) / 255)
    assert batch.min() == 0.0 and batch.max() == 1.0


def test_channels_are_moved_and_not_mixed():
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 5)).astype(np.uint8)
    batch = to_batch(images)
    assert batch.shape == (2, 5, 3, 4)
    assert batch[1, 4, 2, 3] == pytest.approx(images[1, 2, 3, 4] / 255)


class Modes:
    """The modes of a net's modules and the wishes of its parameters."""

    def __init__(self, net: nn.Module) -> None:
        self.training = [module.training for module in net.modules()]
        self.gradients = [parameter.requires_grad for parameter in net.parameters()]


@pytest.fixture
def mixed() -> nn.Module:
    """A net in training whose batch normalisation and first weights are frozen by their owner."""
    net = build("residual_cnn", SHAPE, 3, seed=0).train()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    next(net.parameters()).requires_grad_(False)
    return net


def test_a_frozen_net_is_in_eval_mode_without_gradients(mixed):
    with frozen(mixed):
        inside = Modes(mixed)
    assert not any(inside.training)
    assert not any(inside.gradients)


@pytest.mark.parametrize("fails", [False, True])
def test_frozen_gives_every_module_its_own_mode_back(mixed, fails):
    before = Modes(mixed)
    try:
        with frozen(mixed):
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert vars(Modes(mixed)) == vars(before)
    assert len(set(before.training)) == len(set(before.gradients)) == 2


def test_frozen_inside_frozen_restores_the_outer_state_first(mixed):
    before = Modes(mixed)
    with frozen(mixed):
        with frozen(mixed):
            pass
        assert not any(Modes(mixed).training)
    assert vars(Modes(mixed)) == vars(before)


def test_a_plain_function_can_be_frozen():
    with frozen(lambda x: x):
        pass
