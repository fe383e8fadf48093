"""`purple harden --recipe dp_sgd`: a budget is kept, and told wherever the model is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import purpleteam as pt
from purpleteam.core.errors import UsageError
from purpleteam.data.images import Dataset
from purpleteam.defences.training.dp_sgd import epsilon_of

RECIPE = "dp_sgd:epochs=2,batch_size=500"


def test_the_card_the_records_and_the_answer_say_what_is_spent(here: Path, few: Dataset) -> None:
    found = pt.harden(few, recipe=RECIPE, epsilon=4, arch="small_cnn", out="private")
    told = json.loads(Path("private.json").read_text("utf-8"))["recipe"]
    spent = told["privacy"]
    assert (told["name"], told["epsilon"], told["delta"]) == ("dp_sgd", 4.0, 1e-5)
    case = (spent["noise_multiplier"], spent["sampling_rate"], spent["steps"], spent["delta"])
    assert spent["epsilon"] == pytest.approx(epsilon_of(*case, "prv"), abs=1e-5)
    assert 3.9 < spent["epsilon"] <= 4
    (note,) = (record for record in found.records if record.name == "training")
    assert note.facts["recipe"]["privacy"] == found.privacy == spent
    assert f"epsilon {spent['epsilon']:.2f} at delta 1e-05 is spent" in str(found)


def test_a_training_that_is_stopped_has_spent_less_and_goes_on(here: Path, few: Dataset) -> None:
    asked: dict[str, Any] = {"recipe": RECIPE, "epsilon": 4, "arch": "small_cnn", "out": "private"}
    first = pt.harden(few, budget=1e-9, **asked)
    again, whole = pt.harden(few, **asked), pt.harden(few, **asked | {"out": "whole"})
    assert first.privacy["epsilon"] < again.privacy["epsilon"]
    assert again.digest == whole.digest and again.privacy == whole.privacy


def test_a_net_with_batch_normalisation_is_refused_before_it_is_trained(
    here: Path, few: Dataset
) -> None:
    with pytest.raises(UsageError, match=r"layer 2, a BatchNorm2d, .*--arch scattering"):
        pt.harden(few, recipe="dp_sgd", arch="certified_cnn_bn", out="private")
    assert not list(here.glob("*private*"))


def test_the_users_own_net_is_trained_too(here: Path, few: Dataset) -> None:
    found = pt.harden(few, recipe=RECIPE, epsilon=4, arch="net.py:build", out="private")
    assert found.privacy["epsilon"] <= 4
