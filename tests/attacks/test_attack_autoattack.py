"""AutoAttack: that it is its members, as published, and never called standard where it is not."""

from __future__ import annotations

import pytest
import torch
from attack_models import images_of_the_middle, label_of, linear_net

from purpleteam.attacks.evasion.apgd import APGDCE, APGDT
from purpleteam.attacks.evasion.autoattack import AutoAttack, AutoAttackFewClasses
from purpleteam.attacks.evasion.fab import FABT
from purpleteam.attacks.evasion.square import Square
from purpleteam.core.errors import UsageError


def published(attack: AutoAttack, classes: int = 10) -> list[dict[str, object]]:
    """Return what the papers and the published code fix of each member."""
    fixed = ("steps", "restarts", "samples", "targets", "candidates", "queries", "large_start")
    return [
        {"name": one.name} | {key: getattr(one, key) for key in fixed if hasattr(one, key)}
        for one in attack.members(classes)
    ]


@pytest.mark.parametrize("classes", [4, 10, 1000])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_standard_version_is_the_published_one(norm: str, classes: int) -> None:
    apgd = {"steps": 100, "restarts": 1, "samples": 1, "large_start": False}
    assert published(AutoAttack(norm=norm), classes) == [  # type: ignore[arg-type]
        {"name": "apgd_ce"} | apgd,
        {"name": "apgd_t", "targets": 9} | apgd,
        {"name": "fab_t", "steps": 100, "restarts": 1, "samples": 1, "candidates": 10},
        {"name": "square", "queries": 5000},
    ]


def test_in_l1_it_is_that_of_the_paper_on_l1() -> None:
    apgd = {"steps": 100, "samples": 1, "large_start": True}
    assert published(AutoAttack(norm="l1", epsilon=12.0)) == [
        {"name": "apgd_ce", "restarts": 5} | apgd,
        {"name": "apgd_t", "restarts": 1, "targets": 5} | apgd,
        {"name": "fab_t", "steps": 100, "restarts": 1, "samples": 1, "candidates": 10},
        {"name": "square", "queries": 5000},
    ]


def test_the_version_for_random_nets_averages_twenty_gradients() -> None:
    apgd = {"steps": 100, "restarts": 1, "samples": 20, "large_start": False}
    members = published(AutoAttack(version="rand"))
    assert members == [{"name": "apgd_ce"} | apgd, {"name": "apgd_dlr"} | apgd]


def test_every_member_attacks_in_the_ball_that_was_asked_for() -> None:
    for attack in (
        AutoAttack(norm="l2", epsilon=0.7),
        AutoAttackFewClasses(norm="l2", epsilon=0.7),
    ):
        balls = {(one.norm, one.epsilon) for one in attack.members(10)}
        assert balls == {("l2", 0.7)}
        assert attack.planned_steps == 100


@pytest.mark.parametrize(("version", "classes"), [("standard", 2), ("standard", 3), ("rand", 2)])
def test_where_its_losses_are_undefined_it_refuses_and_names_another(
    version: str, classes: int
) -> None:
    net, x = linear_net(classes), images_of_the_middle(2)
    with pytest.raises(UsageError, match=f"model has {classes}; try autoattack_few_classes") as why:
        AutoAttack(version=version).run(net, x, label_of(net, x))  # type: ignore[arg-type]
    assert "\n" not in str(why.value)


def test_the_one_for_few_classes_is_never_called_standard() -> None:
    assert AutoAttackFewClasses.name == "autoattack_few_classes"
    assert not hasattr(AutoAttackFewClasses(), "version")
    for classes in (2, 3):
        net, x = linear_net(classes), images_of_the_middle(6)
        found = AutoAttackFewClasses(epsilon=0.9).run(net, x, label_of(net, x))
        assert found.broken.all() and found.distance.max() <= 0.9 + 1e-6


def test_it_is_its_members_one_after_the_other_on_what_still_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quick = (
        APGDCE(epsilon=0.02, steps=2),
        APGDT(epsilon=0.02, steps=8),
        FABT(epsilon=0.02, steps=4, stop_inside=True),
        Square(epsilon=0.02, queries=20),
    )
    monkeypatch.setattr(AutoAttack, "members", lambda *_: quick)
    net, x = linear_net(4), images_of_the_middle(40)
    y, index = label_of(net, x), torch.arange(40)
    whole = AutoAttack(epsilon=0.02).run(net, x, y)
    standing, counts = index, []
    for one in quick:
        part = one.run(
            net, x[standing], y[standing], index=standing, stream=f"/autoattack/{one.name}"
        )
        assert torch.equal(part.x_adv[part.broken], whole.x_adv[standing[part.broken]])
        standing = standing[~part.broken]
        counts.append(len(standing))
    assert torch.equal((~whole.broken).nonzero().flatten(), standing)
    assert 40 > counts[0] > counts[1] > 0
