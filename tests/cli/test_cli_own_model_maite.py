"""A classifier and data sets that follow MAITE's protocol, through the verbs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from cli_values import Purple, assert_rate

MODULE = '''
"""What a MAITE user has; the package itself is only needed for type checks."""
import numpy as np


class Bars:
    """Three classes of 8x6 grey floats: which third is bright."""

    def __init__(self, n, seed):
        self.labels = np.arange(n) % 3
        self.images = np.random.default_rng(seed).integers(0, 120, (n, 1, 6, 8)) / 255
        for image, label in zip(self.images, self.labels):
            image[:, 2 * label : 2 * label + 2] += 0.4
        self.images = np.rint(self.images * 255) / 255
        self.metadata = {"id": "bars", "index2label": {0: "top", 1: "middle", 2: "bottom"}}

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.images[index], np.eye(3)[self.labels[index]], {"id": index}


class Reader:
    metadata = {"id": "reader", "index2label": {0: "top", 1: "middle", 2: "bottom"}}

    def __call__(self, batch):
        thirds = [np.asarray(image).reshape(3, 2, 8).mean((1, 2)) for image in batch]
        scores = np.exp(20 * np.stack(thirds))
        return list(scores / scores.sum(1, keepdims=True))


def data():
    return Bars(60, 0), Bars(30, 1)


def one():
    return Bars(60, 0)
'''

OWN = ("--model", "bars_maite:Reader", "--dataset", "bars_maite:data")


@pytest.fixture(autouse=True)
def module(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "bars_maite", raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (here / "bars_maite.py").write_text(MODULE, "utf-8")


def test_a_model_that_only_answers_is_evaluated(purple: Purple) -> None:
    ended = purple("evaluate", *OWN, "--json")
    assert (ended.code, ended.err) == (0, "")
    assert_rate(ended.json["clean_accuracy"], 30)
    assert ended.json["clean_accuracy"]["value"] > 0.9
    assert "black-box attacks only" in " ".join(ended.json["notes"])
    assert ended.json["subject"]["dataset_name"] == "bars"


def test_one_data_set_is_used_whole_and_cut_in_three_where_that_is_asked(purple: Purple) -> None:
    asked = ("evaluate", *OWN[:2], "--dataset", "bars_maite:one", "--json")
    assert purple(*asked).json["clean_accuracy"]["n"] == 60
    assert purple(*asked, "--split", "test").json["clean_accuracy"]["n"] < 30


def test_a_net_of_ours_is_trained_on_its_data(purple: Purple) -> None:
    asked = ("--arch", "small_cnn", "--dataset", "bars_maite:data", "--epochs", 1, "--out", "net")
    assert purple("train", *asked, "--json").code == 0
    ended = purple("evaluate", "--model", "net", "--dataset", "bars_maite:data", "--json")
    assert ended.code == 0 and ended.json["notes"] == []


@pytest.mark.parametrize(
    ("model", "data", "reason"),
    [
        ("bars_maite:Reader", "bars_maite:Reader", "returned Reader, not a MAITE data set"),
        ("bars_maite:Reader", "bars_maite:nothing", "has no 'nothing'"),
        (
            "bars_maite:one",
            "bars_maite:data",
            "returned Bars, not a torch nn.Module, a MAITE model, a",
        ),
        ("bars_maite:Reader --weights w.pt", "bars_maite:data", "with no net for --weights"),
        ("bars_maite:Reader", "digits", "in bars_maite.py, line 28"),
    ],
)
def test_what_does_not_fit_is_one_line(purple: Purple, model: str, data: str, reason: str) -> None:
    ended = purple("evaluate", "--model", *model.split(), "--dataset", data)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert reason in ended.err


def test_what_only_answers_has_no_weights_to_export(purple: Purple) -> None:
    ended = purple("export", *OWN, "--out", "copy/net")
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert "no weights to export" in ended.err
