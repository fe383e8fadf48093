"""What an adversary who can only ask may rely on: the budget, the bytes and the refusals."""

from __future__ import annotations

import pytest
import torch
from attack_models import images_of_the_middle, label_of, linear_net
from endpoint import Endpoint, on_bytes

from purpleteam.attacks import ATTACKS
from purpleteam.attacks.evasion import EvasionAttack
from purpleteam.attacks.norms import distance
from purpleteam.core.errors import UsageError

CASES = [
    ("square", "linf"),
    ("square", "l2"),
    ("square", "l1"),
    ("hop_skip_jump", "l2"),
    ("hop_skip_jump", "linf"),
]
BALL: dict[str, float] = {"linf": 0.02, "l2": 0.05, "l1": 0.15}
cases = pytest.mark.parametrize(("name", "norm"), CASES)


def make(name: str, norm: str, epsilon: float, queries: int) -> EvasionAttack:
    return ATTACKS[name](norm=norm, epsilon=epsilon, queries=queries)  # type: ignore[call-arg]


@cases
@pytest.mark.parametrize("queries", [1, 2, 61])
def test_no_image_is_asked_about_more_often_than_allowed(
    name: str, norm: str, queries: int
) -> None:
    net, x = linear_net(), on_bytes(images_of_the_middle(2))
    for one, label in zip(x.split(1), label_of(net, x).split(1), strict=True):
        app = Endpoint(net, 2)
        stands = make(name, norm, 1e-4, queries).run(app, one, label)
        assert app.calls == queries == int(stands.queries) == stands.cost.forward
        app = Endpoint(net, 2)
        falls = make(name, norm, 10 * BALL[norm], queries).run(app, one, label)
        assert app.calls == int(falls.queries) <= queries


@cases
def test_what_is_found_is_made_of_bytes_and_lies_in_the_ball(name: str, norm: str) -> None:
    net, x = linear_net(), on_bytes(images_of_the_middle(12))
    y, app = label_of(net, x), Endpoint(net, 2)
    found = make(name, norm, BALL[norm], 300).run(app, x, y)
    assert 0 < found.broken.sum() < 12
    broken = found.x_adv[found.broken]
    assert torch.equal(on_bytes(broken), broken)
    assert distance(broken, x[found.broken], norm).max() <= BALL[norm] + 1e-6
    assert (label_of(net, broken) != y[found.broken]).all()


@cases
def test_a_refusal_is_never_a_success(name: str, norm: str) -> None:
    net, x = linear_net(), on_bytes(images_of_the_middle(6))
    y = label_of(net, x)
    app = Endpoint(net, 2, refuses=lambda images: net(images).argmax(1) != y[0])
    x, y = x[y == y[0]], y[y == y[0]]  # whoever errs on these is refused
    found = make(name, norm, 10 * BALL[norm], 200).run(app, x, y)
    assert not found.broken.any()
    assert app.refusals > 0 and app.calls <= 200 * len(x)


def test_square_goes_on_after_a_refusal_and_keeps_nothing_that_was_refused() -> None:
    net, x = linear_net(), on_bytes(images_of_the_middle(8))
    y = label_of(net, x)
    app = Endpoint(net, 2, refuses=lambda images: images[:, 0, 0, 0] > 0.5)
    found = make("square", "linf", 0.2, 400).run(app, x, y)
    assert found.broken.all() and app.refusals > 0
    assert not torch.isnan(app(found.x_adv)).any()


@cases
def test_labels_are_enough_for_those_who_say_so(name: str, norm: str) -> None:
    net, x = linear_net(), on_bytes(images_of_the_middle(4))
    app, attack = Endpoint(net, 2, gives="labels"), make(name, norm, 10 * BALL[norm], 300)
    if attack.knowledge == "decision-based":
        assert attack.run(app, x, label_of(net, x)).broken.all()
    else:
        with pytest.raises(UsageError, match=r"gives only labels; .*hop_skip_jump"):
            attack.run(app, x, label_of(net, x))
