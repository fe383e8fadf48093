"""Attacks borrowed from other libraries: same ball, same judge, every model call on the bill."""

from __future__ import annotations

import logging
import random
import sys
from typing import Any

import numpy as np
import pytest
import torch
from attack_models import images_of_the_middle, label_of, linear_net
from torch import Tensor, nn

from purpleteam.attacks.evasion import EvasionAttack, MinimumNormAttack
from purpleteam.attacks.evasion.pgd import PGD
from purpleteam.attacks.norms import distance
from purpleteam.attacks.peers import LIBRARIES, peer_attack
from purpleteam.core.errors import PurpleError, UsageError
from purpleteam.verbs.ladders import attack_from

PGDS = [
    "foolbox:LinfPGD:steps=10,abs_stepsize=0.03",
    "art:ProjectedGradientDescent:max_iter=10,eps_step=0.03",
    "torchattacks:PGD:steps=10,alpha=0.03",
]


def borrowed(text: str, **values: Any) -> EvasionAttack:
    pytest.importorskip(text.partition(":")[0], reason="the library is not installed: make peers")
    return attack_from(text, **values)


@pytest.fixture
def net() -> nn.Module:
    return linear_net(3)


@pytest.fixture
def x() -> Tensor:
    return images_of_the_middle(8)


@pytest.mark.parametrize("text", PGDS)
def test_a_borrowed_attack_breaks_what_can_be_broken(text: str, net: nn.Module, x: Tensor) -> None:
    found = borrowed(text, epsilon=0.3).run(net, x, label_of(net, x))
    assert found.broken.all()
    assert torch.equal(label_of(net, found.x_adv) != label_of(net, x), found.broken)
    assert distance(found.x_adv, x, "linf").max() <= 0.3 + 1e-6
    assert found.x_adv.min() >= 0 and found.x_adv.max() <= 1


@pytest.mark.parametrize("text", PGDS)
def test_a_borrowed_pgd_agrees_with_ours_image_by_image(
    text: str, net: nn.Module, x: Tensor
) -> None:
    y = label_of(net, x)
    ours = PGD(epsilon=0.015, steps=10, step_size=0.03, random_start=False)
    broken = ours.run(net, x, y).broken
    assert 0 < broken.sum() < len(x)
    start = {"foolbox": ",random_start=False", "torchattacks": ",random_start=False"}
    text += start.get(text.partition(":")[0], "")
    assert torch.equal(borrowed(text, epsilon=0.015).run(net, x, y).broken, broken)


@pytest.mark.parametrize("text", PGDS)
def test_every_call_is_counted(text: str, net: nn.Module, x: Tensor) -> None:
    y, seen = label_of(net, x), [0]
    net.register_forward_hook(lambda _, args, __: seen.append(seen[-1] + len(args[0])))
    apart = []
    for steps in (10, 20):
        before = seen[-1]
        attacked = borrowed(text.replace("=10", f"={steps}"), epsilon=0.01).run(net, x, y)
        assert attacked.cost.backward == steps * len(x) <= attacked.cost.forward
        assert (attacked.queries >= steps).all()
        apart.append(seen[-1] - before - attacked.cost.forward)
    assert apart[0] == apart[1] >= 0  # what the model is asked about itself, before any attack


@pytest.mark.parametrize("text", PGDS)
def test_the_same_seed_and_batch_make_the_same_images(text: str, net: nn.Module, x: Tensor) -> None:
    attack, y = borrowed(text, epsilon=0.05), label_of(net, x)
    assert torch.equal(attack(net, x, y, seed=3), attack(net, x, y, seed=3))


def test_another_seed_makes_other_images(net: nn.Module, x: Tensor) -> None:
    attack = borrowed("foolbox:LinfPGD:steps=1,abs_stepsize=0.001", epsilon=0.05)
    y = label_of(net, x)
    assert not torch.equal(attack(net, x, y, seed=3), attack(net, x, y, seed=4))


@pytest.mark.parametrize("text", [*PGDS, "art:HopSkipJump:max_iter=2"])
def test_the_process_wide_generators_are_left_as_they_were(
    text: str, net: nn.Module, x: Tensor
) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    norm = "l2" if "HopSkip" in text else None
    borrowed(text, epsilon=0.05, norm=norm).run(net, x, label_of(net, x))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert random.getstate() == before[2]


@pytest.mark.parametrize("text", PGDS)
def test_the_model_and_the_images_are_left_as_they_were(
    text: str, net: nn.Module, x: Tensor
) -> None:
    copy, y = x.clone(), label_of(net, x)
    borrowed(text, epsilon=0.1).run(net.train(), x, y)
    assert net.training and torch.equal(x, copy)
    assert all(one.requires_grad and one.grad is None for one in net.parameters())


@pytest.mark.parametrize("text", PGDS)
def test_a_plain_function_can_be_attacked(text: str, net: nn.Module, x: Tensor) -> None:
    found = borrowed(text, epsilon=0.3).run(lambda images: net(images), x, label_of(net, x))
    assert found.broken.all()


@pytest.mark.parametrize(
    "text",
    [
        "foolbox:L2DeepFoolAttack",
        "torchattacks:CW:c=100",
        "art:CarliniL2Method:max_iter=5,binary_search_steps=3",
    ],
)
def test_a_search_for_the_nearest_example_is_judged_by_its_distance(
    text: str, net: nn.Module, x: Tensor
) -> None:
    attack, y = borrowed(text, norm="l2"), label_of(net, x)
    assert isinstance(attack, MinimumNormAttack)
    found = attack.run(net, x, y)
    nearest = torch.where(found.broken, found.distance, torch.inf)
    radius = float(nearest.median()) + 1e-6
    assert 0 < radius < 1
    found = borrowed(text, norm="l2", epsilon=radius).run(net, x, y)
    assert torch.equal(found.broken, nearest <= radius)


def test_what_left_the_ball_is_said_and_moved_back(
    net: nn.Module, x: Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    attack = borrowed("foolbox:LinfRepeatedAdditiveUniformNoiseAttack", epsilon=0.1)
    with caplog.at_level(logging.WARNING):
        found = attack.run(net, x, label_of(net, x), seed=1)
    assert distance(found.x_adv, x, "linf").max() <= 0.1 + 1e-6
    assert "left the linf ball of 0.1 by up to" in caplog.text and "of 8 images" in caplog.text


def test_what_stays_inside_is_not_spoken_of(
    net: nn.Module, x: Tensor, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    borrowed("art:UniversalPerturbation:max_iter=1", epsilon=0.2).run(net, x, label_of(net, x))
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_a_library_that_fails_is_one_line(net: nn.Module, x: Tensor) -> None:
    with pytest.raises(
        UsageError, match=r"^attack 'art:ProjectedGradientDescent': \w+Error: "
    ) as e:
        borrowed(PGDS[1] + ",decay=-1").run(net, x, label_of(net, x))
    assert "\n" not in str(e.value)


def test_fields_are_the_options_of_the_library() -> None:
    attack = borrowed("art:ProjectedGradientDescent:max_iter=7", epsilon=0.2, norm="l1")
    assert (attack.name, attack.norm, attack.epsilon) == ("art:ProjectedGradientDescent", "l1", 0.2)
    assert attack.planned_steps == 7
    assert not {"targeted", "verbose", "estimator", "eps"} & set(vars(attack))


@pytest.mark.parametrize(
    ("text", "knowledge", "norms"),
    [
        ("foolbox:HopSkipJumpAttack", "decision-based", ("l2", "linf")),
        ("foolbox:L0FMNAttack:steps=3", "white-box", ("l0",)),
        ("art:SquareAttack", "score-based", ("linf", "l2")),
        ("torchattacks:PGDL2", "white-box", ("l2",)),
    ],
)
def test_knowledge_and_norms_are_those_of_the_attack(
    text: str, knowledge: str, norms: tuple[str, ...]
) -> None:
    attack = borrowed(text, epsilon=0.5)
    assert (attack.knowledge, attack.norms, attack.norm) == (knowledge, norms, norms[0])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("foolbox:LinfPDG", "unknown attack 'foolbox:LinfPDG'; nearest: LinfPGD"),
        ("foolbox:LinfPGD:stepz=3", "unknown key 'stepz' (did you mean 'steps'?)"),
        ("foolbox:LinfPGD:norm=l2", "attack foolbox:LinfPGD: unknown norm 'l2'; known: linf"),
        ("torchattacks:Zzz", "unknown attack 'torchattacks:Zzz'; known: APGD, "),
        ("pgd:steps", "'steps' is not of the form field=value"),
    ],
)
def test_what_is_unknown_is_said_with_what_is_known(text: str, said: str) -> None:
    with pytest.raises(PurpleError) as caught:
        borrowed(text) if ":Z" in text or text[0] == "f" else attack_from(text)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_an_unknown_library_is_met_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"'fooldox' \(did you mean 'foolbox'\?\)"):
        peer_attack("fooldox:LinfPGD")


def test_a_library_that_is_not_there_is_named_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("foolbox", "torchattacks"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError) as caught:
        LIBRARIES["foolbox"].attacks("LinfPGD")
    assert str(caught.value) == (
        "attack 'foolbox:LinfPGD' needs foolbox; install purpleteam[peers]"
    )
    with pytest.raises(UsageError, match="pip install --no-deps torchattacks"):
        LIBRARIES["torchattacks"].attacks("PGD")


@pytest.mark.parametrize("library", sorted(LIBRARIES))
def test_every_attack_of_a_library_can_be_described(library: str) -> None:
    pytest.importorskip(library, reason="the library is not installed: make peers")
    for name in LIBRARIES[library].attacks():
        attack = peer_attack(f"{library}:{name}")
        assert attack.norms and attack.knowledge in ("white-box", "score-based", "decision-based")
