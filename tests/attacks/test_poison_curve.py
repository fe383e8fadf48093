"""The poison curve: means and intervals by hand, and a stopped one goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from purpleteam.attacks.poison.badnets import BadNets
from purpleteam.attacks.poison.curve import Curve, poison_curve
from purpleteam.attacks.poison.evaluate import evaluate_backdoor
from purpleteam.attacks.poison.triggers import Trigger
from purpleteam.attacks.poison.witches_brew import WitchesBrew
from purpleteam.core.errors import UsageError
from purpleteam.core.statistics import mean_over_seeds
from purpleteam.data.images import Dataset
from purpleteam.models import RECIPES, build, train

POISON = BadNets(trigger=Trigger(size=4))
RECIPE = RECIPES["plain"](epochs=3)


@pytest.fixture(scope="module")
def small(digits: Dataset) -> Dataset:
    return Dataset(
        "small",
        digits.train.first(400),
        digits.validation.first(100),
        digits.test.first(150),
        digits.classes,
    )


def curve(data: Dataset, journal: Path | None = None, counts: tuple[int, ...] = (80,)) -> Curve:
    return poison_curve(
        POISON,
        data,
        counts=counts,
        seeds=(3, 4),
        architecture="small_cnn",
        recipe=RECIPE,
        journal=journal,
    )


@pytest.fixture(scope="module")
def kept(small: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Curve, Path]:
    folder = tmp_path_factory.mktemp("journal")
    return curve(small, folder), folder


def test_a_point_is_the_mean_of_trainings_that_anybody_can_make(
    kept: tuple[Curve, Path], small: Dataset
) -> None:
    values = []
    for seed in (3, 4):
        poisoned = BadNets(trigger=Trigger(size=4), count=80).apply(small.train, seed=seed)
        net = build("small_cnn", (1, 28, 28), 10, seed=seed)
        model = train(net, poisoned.images, small.validation, RECIPE, seed=seed).module
        values.append(evaluate_backdoor(model, small.test, POISON).attack_success_rate.value)
    found = kept[0].points[1].attack_success_rate
    assert found == mean_over_seeds(values, bounds=(0, 1))


def test_no_poisons_at_all_come_first_and_are_the_base_rate(kept: tuple[Curve, Path]) -> None:
    first, last = kept[0].points
    assert (first.count, last.count) == (0, 80)
    assert first.attack_success_rate.value < last.attack_success_rate.value


def test_a_finished_training_is_never_made_again(kept: tuple[Curve, Path], small: Dataset) -> None:
    folder = kept[1]
    files = sorted(folder.iterdir())
    assert len(files) == 4 and not [one for one in files if one.suffix != ".json"]
    for file in files:
        file.write_text(json.dumps({"attack_success_rate": 0.5, "clean_accuracy": 1.0}), "utf-8")
    again = curve(small, folder)
    assert {point.attack_success_rate.value for point in again.points} == {0.5}
    for rate in (again.points[1].attack_success_rate, again.points[1].clean_accuracy):
        assert 0 <= rate.low <= rate.value <= rate.high <= 1 and rate.high - rate.low > 0.5


def test_the_least_count_for_a_success_is_read_off_the_means(kept: tuple[Curve, Path]) -> None:
    found = kept[0]
    success = found.points[1].attack_success_rate.value
    assert found.count_for(success) == 80 and found.count_for(min(1.0, success + 0.01)) in (
        None,
        80,
    )
    assert found.count_for(0) == 0
    assert set(found.to_json()["count_for"]) == {"0.5", "0.9", "0.99"}


def test_the_curve_of_a_poison_with_a_victim_counts_hits(small: Dataset) -> None:
    found = poison_curve(
        WitchesBrew(steps=1, restarts=1, epochs=1, surrogates=1),
        small,
        counts=[2],
        seeds=[0, 1],
        architecture="small_cnn",
        recipe=RECIPES["plain"](epochs=1),
    )
    assert all(set(p.attack_success_rate.values) <= {0.0, 1.0} for p in found.points)


def test_one_seed_and_impossible_counts_are_refused(small: Dataset) -> None:
    common = {"architecture": "small_cnn", "recipe": RECIPE}
    with pytest.raises(UsageError, match="at least 2 seeds for its intervals, not 1"):
        poison_curve(POISON, small, counts=[5], seeds=[1, 1], **common)
    for counts in ([], [0]):
        with pytest.raises(UsageError, match="counts of a curve are at least 1"):
            poison_curve(POISON, small, counts=counts, seeds=[1, 2], **common)
    with pytest.raises(UsageError, match="count 4000 is more than"):
        poison_curve(POISON, small, counts=[4000], seeds=[1, 2], **common)
