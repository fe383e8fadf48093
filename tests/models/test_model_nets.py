"""What attacks ask: the model with its fast replica, none where none can be, and what it is."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from purpleteam.models.architectures import ARCHITECTURES, initialise
from purpleteam.models.devices import frozen
from purpleteam.models.inference import Nets

X = torch.rand((6, 1, 28, 28), generator=torch.Generator().manual_seed(0))


def net_of(name: str = "small_cnn") -> nn.Module:
    return initialise(ARCHITECTURES[name], (1, 28, 28), 10, 0)


def nets(net: nn.Module) -> Nets:
    with frozen(net):
        return Nets.of(net, X)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_the_replica_of_every_architecture_answers_alike(name: str) -> None:
    net = net_of(name)
    found = nets(net)
    with torch.no_grad(), frozen(net):
        torch.testing.assert_close(found.fast(X), net(X), rtol=1e-4, atol=1e-4)
    assert found.classes == 10 and found.model.model is net
    assert (found.differentiable, found.random, found.inward) == (True, False, 0)


def test_the_net_itself_is_left_as_it_was() -> None:
    net = net_of()
    before, state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    names = [name for name, _ in net.named_modules()]
    nets(net)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert [name for name, _ in net.named_modules()] == names
    assert not any(module._forward_hooks for module in net.modules())
    assert net.training and torch.equal(torch.get_rng_state(), state)


class Linear(nn.Module):
    """Scores that are sums of pixels; a subclass spoils something."""

    def __init__(self) -> None:
        super().__init__()
        weight = torch.randn(784, 3, generator=torch.Generator().manual_seed(0))
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight


class Unique(Linear):
    def __deepcopy__(self, memo: object) -> nn.Module:
        raise RuntimeError("there is but one of me")


class ByMemory(Linear):
    """Reads what a convolution gives in the order in which it lies in memory."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            self.conv = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x.as_strided((len(x), 784), (2 * 784, 1)) @ self.weight


@pytest.mark.parametrize("kind", [Unique, ByMemory])
def test_a_net_of_which_no_replica_answers_alike_is_asked_itself(kind: type[Linear]) -> None:
    found = nets(kind())
    assert found.fast is found.model


class Noisy(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + 0.1 * torch.randn_like(x))


class Coin(Linear):
    """Errs in one call of ten, by a generator of its own or by torch's."""

    def __init__(self, own: bool) -> None:
        super().__init__()
        self.own = torch.Generator().manual_seed(0) if own else None

    def forward(self, x: Tensor) -> Tensor:
        scores = super().forward(x)
        errs = torch.rand(len(x), 1, generator=self.own) < 0.1
        return torch.where(errs, scores.roll(1, 1), scores)


@pytest.mark.parametrize("make", [Noisy, lambda: Coin(False), lambda: Coin(True)])
def test_a_net_that_draws_random_numbers_is_known_by_it(make: type[Linear]) -> None:
    found = nets(make())
    assert found.random and found.fast is found.model


class Drawing(Linear):
    """Draws numbers and does not use them."""

    def forward(self, x: Tensor) -> Tensor:
        torch.rand(1)
        return super().forward(x)


def test_a_net_whose_answers_do_not_change_is_not_random() -> None:
    assert not nets(Drawing()).random


class Detached(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.detach())


class Inference(Linear):
    def forward(self, x: Tensor) -> Tensor:
        with torch.inference_mode():
            return super().forward(x)


class Underivable(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.special.zeta(2 + x, 1 + x))


@pytest.mark.parametrize("kind", [Detached, Inference, Underivable])
def test_a_net_that_no_gradient_leaves_is_not_differentiable(kind: type[Linear]) -> None:
    assert not nets(kind()).differentiable


@pytest.mark.parametrize("clip", [torch.relu_, lambda x: nn.functional.hardtanh_(x, 0, 1)])
def test_of_a_net_without_a_slope_at_the_ends_it_is_taken_inside(clip: object) -> None:
    net = Linear()
    net.forward = lambda x: Linear.forward(net, clip(x))  # type: ignore
    assert nets(net).inward > 0


def test_a_classifier_without_gradients_is_asked_nothing_beforehand() -> None:
    class Endpoint(nn.Module):
        differentiable, quantised, classes = False, True, 7

        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError("a query was spent")

    found = nets(Endpoint())
    assert (found.classes, found.differentiable, found.model.quantised) == (7, False, True)
