"""The driver: what is dropped, what is confirmed, what is counted."""

from __future__ import annotations

import pytest
import torch
from attack_models import Deceiver, images_of_the_middle, label_of, linear_net, with_gradient_times
from endpoint import Endpoint, on_bytes
from torch import Tensor, nn

from purpleteam.attacks import driver as driver_module
from purpleteam.attacks.driver import Cost, Driver, Search
from purpleteam.attacks.evasion import ATTACKS
from purpleteam.attacks.evasion.square import Square
from purpleteam.models import devices
from purpleteam.models.inference import Nets


def start(model: nn.Module, x: Tensor, y: Tensor | None = None, *, epsilon: float = 0.3) -> Driver:
    y = label_of(model, x) if y is None else y
    return Driver(Nets.of(model, x), x, y, Search(epsilon=epsilon, norm="linf"), Cost())


def test_the_gradient_is_that_of_the_loss() -> None:
    net, x = linear_net(), images_of_the_middle(3)
    weight = net[1].weight.detach()
    found = start(net, x).gradient(x, lambda logits, _: logits[:, 1])
    torch.testing.assert_close(found.flatten(1), weight[1].expand(3, -1), rtol=0.01, atol=0.01)


@pytest.mark.parametrize("name", ["fgsm", "pgd", "apgd_ce", "fmn", "deepfool", "mifgsm"])
def test_everything_is_computed_in_float32_whatever_units_there_are(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exact(net: nn.Module, x: Tensor) -> Tensor:
        assert x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        return net(x)

    monkeypatch.setattr(devices, "has_fast_bf16", lambda _: True)
    x = images_of_the_middle(3)
    attack = ATTACKS[name](epsilon=0.1, norm=ATTACKS[name].norms[0])
    assert attack.run(Deceiver(linear_net(), exact), x, label_of(linear_net(), x)).cost.forward


def test_an_image_that_fell_is_asked_no_more_and_has_gradient_zero() -> None:
    net, x = linear_net(), images_of_the_middle(4)
    y = label_of(net, x)
    y[1] = 1 - y[1]  # wrong from the start
    driver = start(net, x, y)
    driver.gradient(x)
    assert driver.broken.tolist() == [False, True, False, False]
    before = driver.cost.forward
    gradient = driver.gradient(x)
    assert not gradient[1].any() and gradient[0].any()
    assert driver.cost.forward - before == 3


def test_the_first_example_that_broke_an_image_is_kept() -> None:
    net, x = linear_net(), images_of_the_middle(1)
    y = 1 - label_of(net, x)
    driver = start(net, x, y)
    driver.gradient(x)
    assert torch.equal(driver.settle(x + 0.1), x)


def test_a_candidate_outside_the_ball_breaks_nothing() -> None:
    net, x = linear_net(), images_of_the_middle(8)
    direction = (net[1].weight[1] - net[1].weight[0]).detach().sign().view(1, 4, 4)
    far = x + torch.where(label_of(net, x).view(-1, 1, 1, 1) == 0, 1.0, -1.0) * direction
    assert (label_of(net, far) != label_of(net, x)).all()
    driver = start(net, x, epsilon=1e-4)
    driver.gradient(far)
    settled = driver.settle(far)
    assert not driver.broken.any()
    assert (settled - x).abs().max() <= 1e-4 + 1e-6


def test_what_only_the_rounded_net_gets_wrong_is_not_broken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[int] = []

    def unsure(net: nn.Module, x: Tensor) -> Tensor:
        calls.append(len(x))
        return -net(x) if x.requires_grad else net(x)  # errs only where gradients are taken

    x = images_of_the_middle(5)
    driver = start(Deceiver(linear_net(), unsure), x)
    driver.gradient(x)
    assert not driver.broken.any()
    assert driver.cost.forward == 10 and calls[-2:] == [5, 5]


@pytest.mark.parametrize("size", [8, 9, 64])
def test_the_size_of_a_micro_batch_does_not_matter(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, x = linear_net(3), images_of_the_middle(20)
    expected = start(net, x).gradient(x)
    monkeypatch.setattr(driver_module, "CACHED_VALUES", size * 16)
    driver = start(net, x)
    torch.testing.assert_close(driver.gradient(x), expected, rtol=1e-3, atol=1e-6)
    assert (driver.cost.forward, driver.cost.backward) == (20, 20)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_nan_gradient_moves_nothing(norm: str) -> None:
    x = images_of_the_middle(2)
    driver = start(Deceiver(linear_net(), with_gradient_times(float("nan"))), x)
    assert not driver.gradient(x).any()


def test_a_model_without_gradients_has_gradient_zero() -> None:
    x = images_of_the_middle(2)
    driver = start(Deceiver(linear_net(), lambda net, x: net(x.detach()).detach()), x)
    assert not driver.gradient(x).any()
    learnt = Deceiver(linear_net(), lambda net, x: net(x.detach()))  # weights have one, x has none
    assert not start(learnt, x).gradient(x).any()


def test_a_candidate_that_is_not_finite_is_the_image_itself() -> None:
    net, x = linear_net(), images_of_the_middle(2)
    candidate = x.clone()
    candidate[0, 0, 0, 0] = float("nan")
    driver = start(net, x)
    assert torch.equal(driver.settle(candidate)[0], x[0])
    assert not driver.broken.any()


def test_gradients_are_taken_where_the_caller_has_switched_them_off() -> None:
    net, x = linear_net(), images_of_the_middle(2)
    with torch.no_grad():
        assert start(net, x).gradient(x).any()


@pytest.mark.parametrize("quantised", [True, False])
def test_a_success_at_the_last_query_is_not_asked_about_again(quantised: bool) -> None:
    app = Endpoint(linear_net(), 2)
    app.quantised = quantised
    x = on_bytes(images_of_the_middle(20))
    y = label_of(linear_net(), x)
    for queries in (1, 5, 30):
        app.received.clear()
        found = Square(epsilon=0.2, queries=queries).run(app, x, y)
        assert found.queries.max() <= queries
        assert len(app.received) == found.queries.sum()
    assert found.broken.any()
