"""`purple poison`: every attack from a command line, its manifest, its curve and its refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_values import Purple

from purpleteam.attacks.poison import POISONS
from purpleteam.attacks.poison.asked import attack_of
from purpleteam.data.sources.digits import load_digits

SHORT = {"clean_label": ":epochs=1,steps=2", "witches_brew": ":epochs=1,steps=2,restarts=1"}


@pytest.mark.parametrize("name", list(POISONS))
def test_every_attack_writes_a_set_that_its_manifest_makes_again(purple: Purple, name: str) -> None:
    attack = name + SHORT.get(name, "")
    ended = purple("poison", "--attack", attack, "--count", 9, "--out", "bad", "--json")
    assert (ended.code, ended.err) == (0, "")
    manifest = json.loads(Path("bad/manifest.json").read_text("utf-8"))
    plan, seed = attack_of(manifest)
    digits = load_digits()
    again = plan.apply(digits.train, seed=seed, validation=digits.validation)
    assert again.images.digest == manifest["digest"] == ended.json["digest"]
    assert manifest["poisoned"] == ended.json["poisoned"] == 9


def test_options_and_fields_say_the_same(purple: Purple) -> None:
    asked = ("--target-label", 3, "--sources", "1,4", "--cover", 5, "--rate", 0.01)
    first = purple("poison", *asked, "--out", "a", "--json").json
    fields = "badnets:target_label=3,sources=[1,4],cover=5,rate=0.01"
    second = purple("poison", "--attack", fields, "--out", "b", "--json").json
    assert first["digest"] == second["digest"]
    assert (first["poisoned"], first["cover"], first["target_label"]) == (13, 5, 3)


def test_fields_of_the_trigger_are_given_with_a_dot(purple: Purple) -> None:
    attack = "badnets:trigger.place=[5,6],trigger.size=2,trigger.colour=[255,255,0]"
    found = purple("poison", "--attack", attack, "--count", 5, "--out", "a", "--json").json
    trigger = found["trigger"]
    assert (trigger["place"], trigger["size"], trigger["colour"]) == ([5, 6], 2, [255, 255, 0])


def test_a_curve_has_a_point_for_each_count_and_goes_on_where_it_was(purple: Purple) -> None:
    asked = (
        "--curve",
        "20,9",
        "--trainings",
        2,
        "--arch",
        "small_cnn",
        "--epochs",
        1,
        "--out",
        "c",
    )
    found = purple("poison", *asked, "--json").json
    assert [point["count"] for point in found["curve"]] == [0, 9, 20]
    rate = found["curve"][1]["attack_success_rate"]
    assert 0 <= rate["low"] <= rate["value"] <= rate["high"] <= 1 and rate["method"] == "t"
    assert json.loads(Path("c/curve.json").read_text("utf-8")).items() <= found.items()
    files = {path: path.stat().st_mtime_ns for path in Path("c/trainings").iterdir()}
    assert len(files) == 6
    assert "mean over 2 trainings with its 95 % t interval:" in purple("poison", *asked).out
    assert files == {path: path.stat().st_mtime_ns for path in Path("c/trainings").iterdir()}


def test_a_poison_with_a_victim_says_how_the_victim_is_read(purple: Purple) -> None:
    asked = ("--attack", "witches_brew:epochs=1,steps=2,restarts=1", "--count", 9, "--train")
    common = ("--arch", "small_cnn", "--epochs", 1, "--out", "w")
    found = purple("poison", *asked, *common, "--json").json
    assert {"index", "label", "read_as", "hit", "target_confidence"} <= set(found["victim"])
    assert found["victim"]["index"] == found["victim_of_clean_model"]["index"]
    assert found["shows"] == "victim"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--attack badnet", "unknown poison attack 'badnet' (did you mean 'badnets'?)"),
        ("--attack badnets:sise=3", "unknown key 'sise'"),
        ("--attack badnets:trigger.sise=3", "unknown key 'sise' (did you mean 'size'?)"),
        ("--attack badnets:trigger.size=29", "a patch of 29 pixels does not fit 28x28"),
        ("--attack blended:trigger.ratio=2", "ratio must be above 0"),
        ("--count 5 --rate 0.1", "--count 5 and --rate 0.1: give one of them"),
        ("--rate 1.5", "rate must be above 0 and at most 1, not 1.5"),
        ("--sources all", "'other', 'target', 'any' or a list of labels, not 'all'"),
        ("--sources 1,x", "--sources '1,x' is no list of whole numbers"),
        ("--sources 1,12", "sources: 12 is no label"),
        ("--attack tact --sources 7", "holds the target_label 7"),
        ("--attack sig --count 500", "count 500 is more than the 129 images"),
        ("--curve 5,x", "--curve '5,x' is no list of whole numbers"),
        ("--curve 5,99999", "count 99999 is more than the 1168 images"),
        ("--curve 5 --trainings 1", "--trainings"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(purple: Purple, arguments: str, told: str) -> None:
    ended = purple("poison", *arguments.split(), "--out", "x")
    assert (ended.code, ended.out) == (2, "") and told in " ".join(ended.err.split())
    assert not Path("x/manifest.json").exists()
