"""purple certify: how many training images may come or go before an answer can change."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from cli_values import Purple, answer_of, assert_rate

from purpleteam.data.sources.digits import load_digits

ASKED = ("certify", "--method", "dpa", "--dataset", "digits", "--limit", "40")


def test_every_change_that_was_asked_has_its_certified_accuracy(purple: Purple, here: Path) -> None:
    found = purple(*ASKED, "--changes", "10,1", "--out", "certificate.json", "--json").json
    assert [row["changes"] for row in found["stages"]] == [1, 10]
    for row in found["stages"]:
        assert_rate(row["certified_accuracy"], n=40)
    assert (found["method"], found["epsilon"]) == ("dpa", 10)
    assert found["certified_accuracy"] == answer_of(found)["stages"][-1]["certified_accuracy"]
    assert found["clean_accuracy"]["value"] >= found["certified_accuracy"]["value"] > 0.5
    assert sum(found["counts"].values()) == 40
    assert json.loads((here / "certificate.json").read_text("utf-8")) == answer_of(found)


def test_tiny_networks_are_drawn_from_the_seed(purple: Purple) -> None:
    digits, few = load_digits(), {}
    for name, images in (
        ("train", digits.train),
        ("val", digits.validation),
        ("test", digits.test),
    ):
        few |= {f"x_{name}": images.images[:40, :, :, 0], f"y_{name}": images.labels[:40]}
    np.savez("few.npz", **few)  # type: ignore[arg-type]
    asked = ("certify", "--method", "dpa", "--dataset", "few.npz", "--learner", "networks")
    asked = (*asked, "--parts", "3", "--changes", "1", "--json")
    found = [purple(*asked, "--seed", seed).json for seed in ("1", "1", "2")]
    assert [one["learner"]["seed"] for one in found] == [1, 1, 2]
    assert found[0]["digest"] == found[1]["digest"] != found[2]["digest"]
    assert found[0]["part_accuracy"] == found[1]["part_accuracy"] != found[2]["part_accuracy"]


def test_people_see_the_same_in_words(purple: Purple) -> None:
    out = purple(*ASKED, "--changes", "3", "--parts", "30").out
    assert "certified against 3 insertions or removals" in out
    assert "note: the first 40 of 300 images are no random sample" in out


def test_what_is_not_known_is_refused(purple: Purple) -> None:
    for given, said in (
        (("--changes", "ten"), "--changes must be numbers from 0"),
        (("--changes=-1",), "not '-1'"),
        (("--method", "ibq"), "unknown method 'ibq' (did you mean 'ibp'?); known: alpha_crown"),
        (("--parts", "2000"), "parts must be from 1 to 1297"),
        (("--learner", "svm"), "unknown learner 'svm'; known: networks, readout"),
        (("--learner", "networks", "--parts", "1"), "1 parts would have room for 2048"),
    ):
        ended = purple(*ASKED, *given)
        assert ended.code == 2
        assert said in ended.err
