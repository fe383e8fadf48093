"""What every evasion attack promises, in every norm that it knows; a new one needs no test file."""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from contract_nets import curved_net, fit_set, label_of, linear_net, whole_range
from safetensors.torch import save_model
from torch import Tensor, nn

from purpleteam.attacks.evasion import ATTACKS, Attacked, EvasionAttack, autoattack
from purpleteam.attacks.norms import distance
from purpleteam.core.config import build
from purpleteam.core.errors import ConfigError

CASES = [(name, norm) for name in ATTACKS for norm in ATTACKS[name].norms]
BALLS = ("linf", "l2", "l1", "l0")
TINY = {"corruption": 0.0}
SMALL = {"linf": 0.1, "l2": 0.4, "l1": 1.2, "l0": 3.0, "spatial": 0.1, "corruption": 1.0}
LARGE = {"linf": 0.9, "l2": 3.9, "l1": 15.0, "l0": 16.0, "spatial": 1.0, "corruption": 5.0}
QUICK = {"steps": 10, "queries": 100}
PUBLISHED = {"STEPS": 8, "QUERIES": 50, "SAMPLES": 2}
"""What takes their place here; tests/attacks holds the ensembles to the published settings."""
ORDER = {"linf": torch.inf, "l2": 2, "l1": 1, "l0": 0, "spatial": 2, "corruption": 2}
pytestmark = pytest.mark.parametrize(("name", "norm"), CASES)


@pytest.fixture(autouse=True, scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the nets where a transfer finds them: the surrogate is the attacked net itself."""
    folder = tmp_path_factory.mktemp("surrogates")
    for net in (linear_net, curved_net):
        save_model(net(), str(folder / f"{net.__name__}.safetensors"))
        SURROGATES[net.__name__] = {
            "surrogate": f"contract_nets:{net.__name__}",
            "weights": str(folder / f"{net.__name__}.safetensors"),
        }


class Case(NamedTuple):
    """What many tests look at, and none changes."""

    attack: EvasionAttack
    net: nn.Sequential
    x: Tensor
    y: Tensor
    found: Attacked


SURROGATES: dict[str, dict[str, str]] = {}


@pytest.fixture(autouse=True)
def short_ensembles(monkeypatch: pytest.MonkeyPatch) -> None:
    for setting, value in PUBLISHED.items():
        monkeypatch.setattr(autoattack, setting, value)


def make(name: str, norm: str, epsilon: float, surrogate: str = "linear_net") -> EvasionAttack:
    attack = ATTACKS[name]
    known = {field.name for field in dataclasses.fields(attack)}
    quick = {field: value for field, value in QUICK.items() if field in known}
    needed = SURROGATES[surrogate] if "surrogate" in known else {}
    return build(attack, {"norm": norm, "epsilon": epsilon} | quick | needed, name)


def ready(net: nn.Sequential, name: str, norm: str, epsilon: float) -> EvasionAttack:
    surrogate = "curved_net" if isinstance(net[0], nn.Conv2d) else "linear_net"
    return make(name, norm, epsilon, surrogate).prepare(net, fit_set(net))


@cache
def once(name: str, norm: str) -> Case:
    """Attack the curved net; the first three images are wrong from the start."""
    net, x = curved_net(), whole_range(20)
    y, attack = label_of(net, x), ready(net, name, norm, SMALL[norm])
    y[:3] = (y[:3] + 1) % 3
    return Case(attack, net, x, y, attack.run(net, x, y, seed=3))


@cache
def once_linear(name: str, norm: str) -> Case:
    net, x = linear_net(), whole_range(6)
    y, attack = label_of(net, x), ready(net, name, norm, SMALL[norm])
    return Case(attack, net, x, y, attack.run(net, x, y))


def refusal(name: str, values: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        build(ATTACKS[name], values, name)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 200
    return message


def test_it_stays_in_ball_and_range(name: str, norm: str) -> None:
    _, net, x, y, small = once(name, norm)
    made = {SMALL[norm]: small.x_adv}
    for epsilon in (TINY.get(norm, 1e-3), LARGE[norm]):
        made[epsilon] = ready(net, name, norm, epsilon)(net, x[2:10], y[2:10])
    for epsilon, x_adv in made.items():
        start = x if len(x_adv) == len(x) else x[2:10]
        assert x_adv.dtype == torch.float32 and x_adv.shape == start.shape
        assert norm not in BALLS or distance(x_adv, start, norm).max() <= epsilon + 1e-6
        assert x_adv.min() >= 0 and x_adv.max() <= 1 and not x_adv.requires_grad


def test_it_fools_a_linear_net(name: str, norm: str) -> None:
    net, x = linear_net(), whole_range(20)
    broken = ready(net, name, norm, LARGE[norm]).run(net, x, label_of(net, x)).broken
    one_for_all = ATTACKS[name].prepare is not EvasionAttack.prepare
    assert broken.sum() >= 10 if one_for_all or norm not in BALLS else broken.all()


def test_with_epsilon_zero_it_changes_nothing(name: str, norm: str) -> None:
    net, x = linear_net(), whole_range(6)
    found = ready(net, name, norm, 0.0).run(net, x, label_of(net, x))
    assert torch.equal(found.x_adv, x)
    assert not found.broken.any() and not found.distance.any()


def test_called_with_the_same_seed_it_makes_the_images_that_it_found_when_run(
    name: str, norm: str
) -> None:
    attack, net, x, y, found = once(name, norm)
    assert torch.equal(attack(net, x, y, seed=3), found.x_adv)


def test_neither_order_nor_batch_size_changes_a_verdict(name: str, norm: str) -> None:
    attack, net, x, y, found = once(name, norm)
    assert 3 < found.broken.sum() < 20
    for i in torch.arange(20).flip(0)[:12].split(7):
        again = attack.run(net, x[i], y[i], index=i, seed=3)
        assert torch.equal(again.broken, found.broken[i])
        apart = (again.x_adv - found.x_adv[i]).flatten(1).abs().amax(1)
        assert (apart > 1e-4).sum() <= 1  # its noise follows an image; rounding may tip one


def test_it_leaves_the_model_as_it_was(name: str, norm: str) -> None:
    net, x = curved_net().train(), whole_range(6)
    net[0].eval()
    net[5].bias.requires_grad_(False)
    net[5].weight.grad = torch.ones_like(net[5].weight)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    ready(net, name, norm, SMALL[norm]).run(net, x, label_of(net, x))
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert [module.training for module in net] == [False, True, True, True, True, True]
    assert not net[5].bias.requires_grad and net[5].weight.requires_grad
    assert torch.equal(net[5].weight.grad, torch.ones_like(net[5].weight))
    assert net[0].weight.grad is None


def test_it_leaves_its_inputs_and_the_global_generator_alone(name: str, norm: str) -> None:
    net, x = linear_net(), whole_range(6).requires_grad_(True)
    y = label_of(net, x)
    copies, state = (x.detach().clone(), y.clone()), torch.get_rng_state()
    ready(net, name, norm, SMALL[norm])(net, x, y)
    assert torch.equal(x, copies[0]) and torch.equal(y, copies[1])
    assert x.requires_grad and x.grad is None
    assert torch.equal(torch.get_rng_state(), state)


def test_broken_is_true_exactly_where_the_model_errs(name: str, norm: str) -> None:
    _, net, _, y, found = once(name, norm)
    assert torch.equal(found.broken, label_of(net, found.x_adv) != y)
    assert found.broken[:3].all() and not found.broken.all()


def test_the_distance_is_that_of_the_images(name: str, norm: str) -> None:
    _, _, x, _, found = once_linear(name, norm)
    moved = (found.x_adv.double() - x.double()).flatten(1)
    expected = torch.linalg.vector_norm(moved, ord=ORDER[norm], dim=1)
    torch.testing.assert_close(found.distance, expected, rtol=0, atol=1e-12)


def test_what_it_cost_is_counted(name: str, norm: str) -> None:
    found = once_linear(name, norm).found
    assert found.cost.forward >= 6 and found.seconds > 0


def test_a_plain_function_is_attacked_as_a_net_is(name: str, norm: str) -> None:
    attack, net, x, y, found = once_linear(name, norm)
    again = attack.run(lambda z: net(z), x[:2], y[:2])
    assert torch.equal(again.broken, found.broken[:2])


def test_it_is_a_frozen_description_that_can_be_recorded(name: str, norm: str) -> None:
    attack = make(name, norm, SMALL[norm])
    assert attack.name == name
    again = build(ATTACKS[name], json.loads(json.dumps(dataclasses.asdict(attack))), name)
    assert again == attack
    with pytest.raises(dataclasses.FrozenInstanceError):
        attack.epsilon = 0.5  # type: ignore[misc]


def test_what_makes_no_sense_is_refused_in_one_line(name: str, norm: str) -> None:
    assert "unknown key 'epsilom' (did you mean 'epsilon'?)" in refusal(name, {"epsilom": 0.1})
    for epsilon in (-0.1, float("inf"), float("nan"), "much"):
        assert "epsilon" in refusal(name, {"norm": norm, "epsilon": epsilon})
    assert "norm" in refusal(name, {"norm": "l7"})
    for count in {"steps", "restarts", "queries", "samples"} & {
        field.name for field in dataclasses.fields(ATTACKS[name])
    }:
        assert f"{count} must be at least 1, not 0" in refusal(name, {count: 0})


def test_an_epsilon_in_grey_levels_is_met_with_the_one_in_pixel_units(name: str, norm: str) -> None:
    if norm == "linf":
        assert "8/255 = 0.0314" in refusal(name, {"norm": norm, "epsilon": 8})
