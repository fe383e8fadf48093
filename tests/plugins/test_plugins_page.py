"""Every example of docs/plugins.md, used through the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import pages

PAGE = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text("utf-8")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, pages.Step]]:
    """Do what the page says; return where, and each step by its verb."""
    folder = tmp_path_factory.mktemp("plugins")
    less = {
        "purple --plugin my_module train": "--epochs 4",
        "purple --plugin my_module detect": "--trusted 100",
    }
    steps = pages.do(PAGE, folder, less)
    return folder, {step.text.replace("--plugin my_module ", "").split()[1]: step for step in steps}


def records(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "records.jsonl").read_text("utf-8").splitlines()]


def test_every_line_does_its_work(done: tuple[Path, dict[str, pages.Step]]) -> None:
    codes = {name: step.code for name, step in done[1].items()}
    # 1 of threats: the example's own file begins with no licence
    want = ("attack", "train", "harden", "detect", "my-verb", "report", "run")
    assert codes == dict.fromkeys(want, 0) | {"threats": 1}


def test_the_attack_is_in_the_record_with_its_fields(
    done: tuple[Path, dict[str, pages.Step]],
) -> None:
    (record,) = [
        one for one in records(done[0] / "runs" / "attack") if one["kind"] == "measurement"
    ]
    how = record["how"]
    assert isinstance(how, dict)
    assert (how["attack"], how["steps"], how["epsilon"]) == ("halving", 3, 0.1)


def test_the_data_set_and_the_defence_train_a_model(
    done: tuple[Path, dict[str, pages.Step]],
) -> None:
    card = json.loads((done[0] / "models" / "noisy.json").read_text("utf-8"))
    assert (card["recipe"]["name"], card["recipe"]["epsilon"]) == ("jitter", 0.1)
    assert card["classes"][1] == "30 degrees"


def test_the_detector_is_asked_beside_the_others(done: tuple[Path, dict[str, pages.Step]]) -> None:
    detectors = json.loads(done[1]["detect"].out)["detectors"]
    assert {"grey", "patch", "max_margin"} <= set(detectors)


def test_the_check_fails_on_what_it_should(done: tuple[Path, dict[str, pages.Step]]) -> None:
    (check,) = [
        one for one in records(done[0] / "runs" / "threats") if one.get("check") == "code.licence"
    ]
    assert check["verdict"] == "fail" and check["message"] == "my_module.py"
    assert check["negative_control"] == {"ran": True, "failed_as_required": True}


def test_the_verb_shows_gates_and_leaves_a_run(done: tuple[Path, dict[str, pages.Step]]) -> None:
    out = done[1]["my-verb"].out
    assert re.search(r"^sure  \d+\.\d+% \(.*n=40\)$", out, re.MULTILINE)
    assert "reached: sure>=0.1: " in out and "report: runs/my-verb/report.html" in out


def test_the_chapter_stands_in_the_report(done: tuple[Path, dict[str, pages.Step]]) -> None:
    page = (done[0] / "runs" / "my-verb" / "report.md").read_text("utf-8")
    chapter = page.split("## Sureness")[1].split("\n## ")[0]
    assert "How often it is sure" in chapter and "n\u202f=\u202f40" in chapter


def test_the_profile_loads_it_by_itself(done: tuple[Path, dict[str, pages.Step]]) -> None:
    made = records(done[0] / "runs" / "my_profile")
    attacks = {one["how"]["attack"] for one in made if one.get("name") == "robust_accuracy"}  # type: ignore[index]
    assert "halving" in attacks


def test_it_is_asked_again_for_its_measurements_and_one_that_is_none_is_refused(
    done: tuple[Path, dict[str, pages.Step]],
) -> None:
    again = "verify runs/attack --replay 1"
    # In this order: a plug-in registers itself for as long as the process lives.
    lines = f"purple {again}\npurple --plugin my_module {again}\npurple --plugin nosuch ls\n"
    not_asked, asked, no_plugin = pages.do(f"```sh\n{lines}```\n", done[0])
    assert asked.code == 0, asked.out + asked.error
    told = not_asked.out + not_asked.error
    assert not_asked.code == 2 and "add --plugin my_module" in told  # a run may be a stranger's
    assert no_plugin.code == 2 and no_plugin.error.count("\n") == 1
    assert no_plugin.error.startswith("error: plug-in 'nosuch' is no module on the Python path")
