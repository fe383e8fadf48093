"""Recipes: numbers that a training can be made of, and nothing else."""

from __future__ import annotations

import math

import pytest

from purpleteam.core.config import build
from purpleteam.core.errors import ConfigError, UsageError
from purpleteam.models.recipes import AUGMENTATIONS, RECIPES, Recipe


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_made_without_a_choice(name):
    made = RECIPES[name]()
    assert isinstance(made, Recipe)
    assert made.augmentation in AUGMENTATIONS


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"epochs": -1},
        {"batch_size": 0},
        {"learning_rate": 0},
        {"learning_rate": -0.1},
        {"learning_rate": math.nan},
        {"learning_rate": math.inf},
        {"weight_decay": -0.1},
        {"weight_decay": math.nan},
    ],
)
def test_numbers_that_no_training_can_have_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Recipe(**wrong)
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        build(Recipe, wrong, "recipe")


def test_an_unknown_recipe_gives_the_nearest():
    with pytest.raises(UsageError, match=r"unknown recipe 'planes' .*known: accurate"):
        RECIPES["planes"]


def test_one_cycle_rises_for_a_quarter_and_falls_to_nothing():
    recipe = Recipe(learning_rate=2.0, schedule="one_cycle")
    rates = [recipe.rate(done / 100) for done in range(101)]
    assert rates[0] == pytest.approx(0.08)
    assert max(rates) == rates[25] == pytest.approx(2.0)
    assert rates[100] == pytest.approx(0.0)
    assert rates[:26] == sorted(rates[:26])
    assert rates[25:] == sorted(rates[25:], reverse=True)


def test_a_constant_rate_is_constant():
    recipe = Recipe(learning_rate=0.5, schedule="constant")
    assert {recipe.rate(done / 10) for done in range(11)} == {0.5}
