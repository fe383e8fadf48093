"""purple attack: ensembles, resuming, bytes, comparison with other libraries, what only answers."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
from cli_values import Purple, assert_rate

module = importlib.import_module("purpleteam.attacks.evaluate")  # its name is also a function's
ASKED = ("attack", "--model", "standard", "--dataset", "digits", "--limit", "20")


def test_an_ensemble_names_its_members_and_what_each_left(purple: Purple) -> None:
    found = purple(*ASKED, "--attack", "autoattack", "--epsilon", "0.3", "--json").json
    (row,) = found["attacks"]
    assert row["name"] == "autoattack"
    assert [one["name"] for one in row["members"]] == ["apgd_ce", "apgd_t", "fab_t", "square"]
    for one in row["members"]:
        assert_rate(one["survived"])
    assert row["survived"] == row["members"][-1]["survived"] == found["robust_accuracy"]


def test_people_see_the_members_too(purple: Purple) -> None:
    out = purple(*ASKED, "--attack", "autoattack", "--epsilon", "0.3").out
    assert out.index("apgd_ce") < out.index("square") < out.index("autoattack linf 0.3")


def test_a_killed_attack_goes_on_where_it_was(
    purple: Purple, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = (*ASKED, "--attack", "fgsm", "--attack", "pgd:steps=5", "--batch-size", "5")
    whole = purple(*asked, "--json").json
    left = {"batches": 3}
    do = module.Journal.save

    def killed(self: object, *args: object) -> object:
        done = do(self, *args)  # type: ignore[arg-type]
        left["batches"] -= 1
        if left["batches"] == 0:
            raise KeyboardInterrupt
        return done

    monkeypatch.setattr(module.Journal, "save", killed)
    purple(*asked, "--json")
    monkeypatch.setattr(module.Journal, "save", do)
    assert list(cache.rglob("*.npz"))
    ended = purple(*asked, "--json")
    assert "went on where it was stopped: 3 batches were done" in ended.json["notes"]
    assert ended.json["robust_accuracy"] == whole["robust_accuracy"]
    assert ended.json["cost"]["queries"] == whole["cost"]["queries"]
    assert not list(cache.rglob("*.npz"))


def test_what_the_check_broke_is_counted_and_told(purple: Purple) -> None:
    asked = ("attack", "--dataset", "digits", "--limit", "40", "--attack", "fgsm")
    found = purple(*asked, "--epsilon", "0.1", "--json").json
    sound, left = found["soundness"], found["attacks"][-1]["survived"]["value"]
    assert (sound["verdict"], sound["direction"]) == ("weak", "too_high")
    assert found["robust_accuracy"]["value"] == pytest.approx(left - sound["overstates"]["value"])
    assert found["curve"][-1]["robust_accuracy"] == found["robust_accuracy"]
    assert sound["cost"]["forward"] > sound["cost"]["backward"] > 0
    out = purple(*asked, "--epsilon", "0.1").out
    points = f"{100 * sound['overstates']['value']:.1f} points"
    assert f"overstate robust accuracy by {points}" in out and "of the check" in out


def test_where_no_image_stands_none_is_said_to_be_breakable(purple: Purple) -> None:
    out = purple(*ASKED, "--attack", "pgd", "--epsilon", "0.3", "--checked", "5").out
    assert "robust accuracy  0.00%" in out and "points more" not in out
    assert "sound: no image is left that a stronger attack could break" in out


def test_where_no_attack_is_named_the_time_decides_and_is_told(
    purple: Purple, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = (*ASKED, "--epsilon", "0.3", "--json")
    found = purple(*asked).json
    assert [row["name"] for row in found["attacks"]] == ["ladder"]
    assert any(
        note.startswith("attack ladder: at most ") and "s are allowed" in note
        for note in found["notes"]
    )
    monkeypatch.setattr("purpleteam.verbs.ladders.ALLOWED", 0)
    found = purple(*asked).json
    assert [row["name"] for row in found["attacks"]] == ["pgd"]
    assert any("--attack ladder makes it all the same" in note for note in found["notes"])


def test_as_bytes_says_how_many_still_break_it(purple: Purple) -> None:
    ended = purple(*ASKED, "--epsilon", "0.2", "--as-bytes", "--out", "x.npz", "--json")
    found = ended.json
    assert 0 < found["as_bytes"]["broken_as_bytes"] <= found["as_bytes"]["broken"]
    assert any("still break it" in note for note in found["notes"])
    with np.load("x.npz", allow_pickle=False) as rows:
        assert rows["bytes_images"].dtype == np.uint8
        assert rows["bytes_breaks"].sum() == found["as_bytes"]["broken_as_bytes"]


def test_a_search_for_the_nearest_gives_a_curve(purple: Purple) -> None:
    radii = ("--epsilon", "0.1", "--epsilon", "0.5", "--epsilon", "3")
    found = purple(*ASKED, "--attack", "ddn:steps=20", *radii, "--json").json
    values = [point["robust_accuracy"]["value"] for point in found["curve"]]
    assert values == sorted(values, reverse=True) and values[0] > values[-1]
    assert {point["norm"] for point in found["curve"]} == {"l2"}


def test_an_onnx_file_is_attacked_through_its_layers_as_its_net_is(
    purple: Purple, here: Path
) -> None:
    purple("export", "--model", "standard", "--out", "mine/net")
    (file,) = here.rglob("*.onnx")
    asked = ("--dataset", "digits", "--limit", "5", "--epsilon", "0.05", "--attack", "pgd:steps=5")
    found, net = (purple("attack", "--model", m, *asked, "--json") for m in (file, "standard"))
    assert any(note.endswith("white-box") for note in found.json["notes"])
    assert found.json["robust_accuracy"] == net.json["robust_accuracy"]
    assert found.json["soundness"]["verdict"] == net.json["soundness"]["verdict"]


def test_other_libraries_make_the_same_attacks(purple: Purple) -> None:
    pytest.importorskip("foolbox", reason="make peers installs it")
    found = purple(*ASKED, "--epsilon", "0.3", "--attack", "fgsm", "--cross-check", "--json").json
    rows = found["cross_check"]["rows"]
    assert {one["attack"] for one in rows} >= {"fgsm", "pgd"}
    assert all(one["ours"]["n"] == 20 for one in rows)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hop_skip_jump:queries=0", "queries must be at least 1, not 0"),
        ("deepfool:norm=l0", "unknown norm 'l0'"),
        ("foolbox:LinfPDG", "LinfPGD"),
        ("autoattack:version=plus", "version = 'plus'"),
    ],
)
def test_what_cannot_be_is_one_line(purple: Purple, text: str, words: str) -> None:
    if text.startswith("foolbox"):
        pytest.importorskip("foolbox", reason="make peers installs it")
    ended = purple(*ASKED, "--attack", text)
    assert ended.code == 2 and words in ended.err
    assert len(ended.err.strip().splitlines()) == 1


def test_attacks_in_other_balls_are_not_mixed(purple: Purple) -> None:
    ended = purple(*ASKED, "--attack", "pgd:norm=linf", "--attack", "ddn")
    assert ended.code == 2 and "attack ddn: unknown norm 'linf'; known: l2" in ended.err
