"""Every verb that measures leaves a run: new, or added to; the same number is one record."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import purpleteam as pt
from purpleteam.core.errors import PurpleError, RunError
from purpleteam.core.verification import verify_records
from purpleteam.data.images import ImageSet
from purpleteam.pipeline.replay import replay
from purpleteam.serve import running_app

Purple = Callable[..., tuple[int, str, str]]
ATTACK = ("attack", "--model", "net.py:build", "--dataset", "digits", "--limit", 20)
FGSM = ("--attack", "fgsm", "--epsilon", 0.1)


def numbers(run: Path) -> dict[str, Any]:
    """Return the measurements of a run by id."""
    lines = (run / "records.jsonl").read_text("utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    return {one["id"]: one for one in records if one.get("kind") == "measurement"}


def attack(run: Path | str | None = None, **more: Any) -> Any:
    given = {"attack": "fgsm", "epsilon": 0.1, "limit": 20, **more}
    return pt.attack("net.py:build", "digits", **given, run=run)


def test_a_run_is_left_where_one_is_asked_for(here: Path) -> None:
    result = attack(here / "runs" / "mine")
    assert result.run == here / "runs" / "mine" and result.report.is_file()
    assert list(numbers(result.run)) == [result.records[0].id]
    assert repr(result).endswith(f"report: {result.report}")
    assert verify_records(result.run).verdict == "pass"
    assert not (here / "runs" / "attack").exists()


def test_none_is_left_where_none_is_asked_for(here: Path) -> None:
    result = attack()
    assert (result.run, result.report) == (None, None)
    assert [path.name for path in here.iterdir() if path.name != "__pycache__"] == ["net.py"]


def test_the_command_line_leaves_a_new_one_each_time(purple: Purple, here: Path) -> None:
    for name in ("attack", "attack-2"):
        code, out, _ = purple(*ATTACK, *FGSM)
        assert code == 0 and out.rstrip().endswith(f"report: runs/{name}/report.html")
        assert (here / "runs" / name / "report.html").is_file()


def test_a_run_is_added_to(purple: Purple, here: Path) -> None:
    first = attack(here / "run")
    code, out, _ = purple(*ATTACK, "--attack", "bim", "--epsilon", 0.1, "--run", "run")
    assert code == 0 and "report: run/report.html" in out
    assert len(numbers(here / "run")) == 2 and first.records[0].id in numbers(here / "run")
    page = (here / "run" / "report.html").read_text("utf-8")
    assert all(name in page for name in numbers(here / "run"))
    assert verify_records(here / "run").verdict == "pass"


def test_the_same_call_adds_nothing(here: Path) -> None:
    attack(here / "run")
    before = (here / "run" / "records.jsonl").read_bytes()
    attack(here / "run")
    assert (here / "run" / "records.jsonl").read_bytes() == before


def test_python_command_line_and_run_make_the_same_record(purple: Purple, here: Path) -> None:
    left = attack(here / "by-python", epsilon=0.3, limit=None, checked=20)
    purple(*ATTACK[:5], "--attack", "fgsm", "--epsilon", 0.3, "--checked", 20, "--run", "by-verb")
    code, out, err = purple(
        *("run", "--model", "net.py:build", "--dataset", "digits", "--out", "by-run", "--quiet"),
        *("--set", 'evasion.attacks=["fgsm"]', "--set", "evasion.curve=[]"),
        *("--set", "evasion.checked=20"),
        *("--set", "evasion.curve_images=20"),
        *("--set", 'stages=["data", "models", "attacks"]'),
    )
    assert code == 0, out + err
    wanted = left.records[0].id
    assert wanted in numbers(here / "by-verb") and wanted in numbers(here / "by-run")


@pytest.mark.parametrize(
    "more", [{"attack": "nosuch"}, {"limit": 0}, {"epsilon": -1.0}, {"split": "nosuch"}]
)
def test_an_error_leaves_no_folder(here: Path, more: dict[str, Any]) -> None:
    with pytest.raises(PurpleError):
        attack(here / "runs" / "mine", **more)
    assert not (here / "runs" / "mine").exists()


def test_nor_does_one_on_the_command_line(purple: Purple, here: Path) -> None:
    code, _, err = purple(*ATTACK, "--attack", "nosuch")
    assert code == 2 and "nosuch" in err
    assert list(here.glob("runs/*")) == []


def test_a_folder_that_is_no_run_is_left_alone(here: Path) -> None:
    (here / "full").mkdir()
    (here / "full" / "mine.txt").write_text("keep")
    with pytest.raises(RunError, match="'full' is neither a run nor an empty folder"):
        attack("full")
    assert (here / "full" / "mine.txt").read_text() == "keep"


def test_a_record_is_measured_again_and_agrees(purple: Purple, here: Path) -> None:
    result = attack(here / "run")
    again = replay(here / "run", result.records[0].id)
    assert again.agrees and again.before == again.after
    code, out, _ = purple("replay", "run", result.records[0].id)
    assert code == 0 and "agrees" in out


def test_what_came_as_an_object_is_said_to_be_measured_again_only_there(
    here: Path, net: nn.Module, images: ImageSet
) -> None:
    result = pt.attack(net, images, attack="fgsm", epsilon=0.1, run=here / "run")
    with pytest.raises(RunError, match="images and model came through Python"):
        replay(here / "run", result.records[0].id)


def test_no_file_of_a_run_holds_the_password_of_an_address(here: Path) -> None:
    with running_app(without=("rate",)) as url:
        asked = url.replace("//", "//me:hush@")
        result = pt.evaluate(asked, "digits", limit=5, run=here / "run")
    files = [path for path in result.run.rglob("*") if path.is_file()]
    assert len(files) > 2 and not any(b"hush" in path.read_bytes() for path in files)
