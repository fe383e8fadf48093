"""purple certify --model ... --epsilon: bounds of any net, from a file of code or of a net."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from cli_values import Purple, answer_of, assert_rate

CODE = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3))

def smooth():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.GELU(), nn.Linear(8, 3))
"""
ASKED = ("certify", "--dataset", "few.npz", "--json")


def prepare(here: Path) -> None:
    (here / "brought.py").write_text(CODE, encoding="utf-8")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)
    np.savez("few.npz", images=pixels, labels=np.arange(40) % 3)


def test_a_brought_net_is_certified_in_colour_at_each_radius(purple: Purple, here: Path) -> None:
    prepare(here)
    asked = ("--model", "brought:build", "--epsilon", "1/255", "--epsilon", "0.1")
    found = purple(*ASKED, *asked).json
    assert [point["epsilon"] for point in found["curve"]] == [1 / 255, 0.1]
    for point in found["curve"]:
        assert_rate(point["certified_accuracy"], n=40)
        assert sum(point["counts"].values()) == 40
        assert point["certified_accuracy"]["value"] <= found["clean_accuracy"]["value"]
    first, last = (point["counts"]["verified"] for point in found["curve"])
    assert first >= last
    assert (found["norm"], found["complete"], found["deterministic"]) == ("linf", False, True)


def test_its_onnx_file_gets_the_same_verdicts(purple: Purple, here: Path) -> None:
    prepare(here)
    purple("export", "--model", "brought:build", "--dataset", "few.npz", "--out", "net")
    asked = ("--epsilon", "0.02", "--method", "complete")
    ours = purple(*ASKED, *asked, "--model", "brought:build").json
    theirs = purple(*ASKED, *asked, "--model", "net.onnx").json
    assert ours["counts"] == theirs["counts"]
    assert ours["counts"]["unknown"] == 0


def test_a_layer_without_bound_is_named_in_one_line(purple: Purple, here: Path) -> None:
    prepare(here)
    ended = purple(*ASKED[:-1], "--model", "brought:smooth", "--epsilon", "0.1")
    assert ended.code == 2
    assert "no bound goes through layer 2 (gelu)" in ended.err
    assert len(ended.err.strip().splitlines()) == 1


def test_a_run_keeps_the_verdict_of_each_image(purple: Purple, here: Path) -> None:
    prepare(here)
    asked = ("--model", "brought:build", "--epsilon", "0.05", "--run", "r")
    answer_of(purple(*ASKED, *asked).json)
    (outcomes,) = (here / "r" / "outcomes").glob("certified-*.npz")
    with np.load(outcomes) as rows:
        assert set(rows["verdicts"]) <= {"verified", "falsified", "unknown"}
        assert len(rows["verdicts"]) == len(rows["margins"]) == 40


def test_images_that_are_wrong_as_they_are_are_told_from_those_that_were_turned(
    purple: Purple, here: Path
) -> None:
    prepare(here)
    asked = ("--model", "brought:build", "--epsilon", "0.01", "--run", "r")
    found = purple(*ASKED, *asked).json
    wrong, falsified = found["wrong"], found["counts"]["falsified"]
    assert wrong == round(40 * (1 - found["clean_accuracy"]["value"])) and 0 < wrong < falsified
    told = f"{falsified} falsified ({wrong} of them wrong as they are)"
    assert told in purple(*ASKED[:-1], *asked[:4]).out
    page = (here / "r" / "report.md").read_text("utf-8").splitlines()
    start = next(number for number, line in enumerate(page) if "wrong as they are |" in line)
    head, _, row = page[start : start + 3]
    place = head.split("|").index(" Of them wrong as they are ")
    assert row.split("|")[place - 1 : place + 1] == [f" {falsified} ", f" {wrong} "]
