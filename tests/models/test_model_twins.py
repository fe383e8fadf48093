"""Doubles of a net: the same answers, the net itself untouched, and none where none can be."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from purpleteam.models.architectures import ARCHITECTURES, initialise
from purpleteam.models.devices import frozen, has_fast_bf16
from purpleteam.models.twins import Twins

X = torch.rand((6, 1, 28, 28), generator=torch.Generator().manual_seed(0))
fast_bf16 = pytest.mark.skipif(not has_fast_bf16("cpu"), reason="no bfloat16 units here")


def net_of(name: str = "small_cnn") -> nn.Module:
    return initialise(ARCHITECTURES[name], (1, 28, 28), 10, 0)


def twins(net: nn.Module) -> Twins:
    with frozen(net), torch.random.fork_rng():
        return Twins.of(net, X)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_the_doubles_of_every_architecture_answer_alike(name: str) -> None:
    net = net_of(name)
    found = twins(net)
    with torch.no_grad(), frozen(net):
        scores = net(X)
        torch.testing.assert_close(found.exact(X), scores, rtol=1e-4, atol=1e-4)
        spread = float(scores.amax() - scores.amin())
        assert float((found.fast(X).float() - scores).abs().amax()) < 0.1 * spread
    assert found.classes == 10 and found.model is net


def test_the_net_itself_is_left_as_it_was() -> None:
    net = net_of()
    before = copy.deepcopy(net.state_dict())
    names = [name for name, _ in net.named_modules()]
    twins(net)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert [name for name, _ in net.named_modules()] == names
    assert not any(module._forward_hooks for module in net.modules())
    assert net.training


@fast_bf16
def test_the_last_layer_of_the_fast_double_is_not_rounded_to_bfloat16() -> None:
    scores = twins(net_of()).fast(X)
    assert scores.dtype == torch.float32
    assert not torch.equal(scores, scores.bfloat16().float())


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3] + torch.rand(len(x), 3)


class Unique(nn.Module):
    def __deepcopy__(self, memo: object) -> nn.Module:
        raise RuntimeError("there is but one of me")

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3]


class Rounding(nn.Module):
    """Its scores depend on the last bits of the input, which bfloat16 has not."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.linspace(-1, 1, 3 * 784).view(784, 3))

    def forward(self, x: Tensor) -> Tensor:
        return (1e4 * (x.flatten(1) @ self.weight)).sin()


@pytest.mark.parametrize("net", [Noisy(), Unique()])
def test_a_random_net_and_one_that_cannot_be_copied_are_asked_themselves(net: nn.Module) -> None:
    found = twins(net)
    assert found.exact is net
    if isinstance(net, Noisy):
        assert found.fast is net


def test_a_net_that_bfloat16_would_change_is_not_asked_in_it() -> None:
    found = twins(Rounding())
    assert found.fast is found.exact


def test_a_classifier_without_gradients_is_asked_nothing_beforehand() -> None:
    class Endpoint(nn.Module):
        differentiable, quantised, classes = False, True, 7

        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError("a query was spent")

    found = twins(Endpoint())
    assert (found.classes, found.differentiable, found.quantised) == (7, False, True)
