"""docs/assignment.md, command by command; and Purpleteam without the folder that it is about."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pages

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "purpleteam"
PAGE = (ROOT / "docs" / "assignment.md").read_text("utf-8")
FEW = "--dataset digits"
QUICK = f"{FEW} --arch small_cnn --epochs 1"
RUN = (
    f"{FEW} --quiet --set models.epochs=1 --set poison.epochs=1 --set poison.trainings=1 "
    "--set architecture=small_cnn --set options.assignment.architecture=small_cnn "
    "--set evasion.limit=5 --set evasion.curve_images=5 --set evasion.curve=[] "
    "--set evasion.checked=5 --set models.redrawn=0 --set defences.recipes=[] "
    """--set 'options.assignment.defences=["report_a"]' """
    """--set 'stages=["data","models","attacks"]'"""
)
SMALLER = {
    "purple train": QUICK,
    "purple evaluate": FEW,
    "purple poison": f"{QUICK} --count 20",
    "purple --plugin assignment poison": f"{QUICK} --count 20",
    "purple attack": f"{FEW} --limit 5 --checked 5",
    "purple harden": f"{QUICK} --recipe pgd:steps=1,validation_images=20",
    "purple --plugin assignment harden": QUICK,
    "purple run": RUN,
}
"""Options that make a command small enough for a test; it is otherwise what the page says."""
ELSEWHERE = {
    "purple data fetch": "data/test_data_fetch.py",
    "purple demo": "assignment/test_demo.py",
    "purple serve": "cli/test_cli_serve.py",
}
"""Commands that another test runs: one needs a network, one takes long, one does not end."""

WORDS = re.compile(
    r"seed[-_]?[ab]\b|report[-_][ab]\b|course report|seed report|\bassignment\b", re.I
)
IGNORED = re.compile(
    r"type: ignore\[assignment\]|the discriminant and the assignment|Permission Assignment"
)
"""What a type checker calls it, Hungarian assignment in a clustering, and CWE-732."""

pytestmark = pytest.mark.slow


SARIF = (" --sarif before.sarif", " --against before.sarif")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[pages.Step]]:
    folder = tmp_path_factory.mktemp("assignment")
    return folder, pages.do(PAGE, folder, SMALLER, leave=ELSEWHERE)


def test_every_command_of_the_page_works(done: tuple[Path, list[pages.Step]]) -> None:
    codes = {step.text.partition(" --dataset")[0]: step.code for step in done[1]}
    bad = {text: code for text, code in codes.items() if code}
    # 1 is the right answer of these: there is something to find, and something open.
    threats = "purple threats --model models/clean.safetensors --code my_app.py"
    scans = [f"purple scan my_app.py{how}" for how in ("", *SARIF)]
    errors = [step.error for step in done[1] if step.code]
    assert bad == dict.fromkeys([*scans, threats], 1), errors
    assert len(codes) >= 12


def test_a_command_that_is_left_out_is_run_by_another_test() -> None:
    for start, test in ELSEWHERE.items():
        assert any(line.startswith(start) for line in pages.commands(PAGE))
        assert (ROOT / "tests" / test).is_file()


def test_the_numbers_that_the_page_explains_are_printed(
    done: tuple[Path, list[pages.Step]],
) -> None:
    by_verb: dict[str, str] = {}
    for step in done[1]:
        words = step.text.removeprefix("purple ").removeprefix("--plugin assignment ").split()
        by_verb[words[0]] = by_verb.get(words[0], "") + step.out
    assert "clean accuracy" in by_verb["evaluate"]
    assert "attack success rate" in by_verb["poison"] and "base rate" in by_verb["poison"]
    assert "robust accuracy" in by_verb["attack"] and "soundness" in by_verb["attack"]
    assert {"PT003", "B602"} <= set(re.findall(r"\b(?:B|PT)\d{3}\b", by_verb["scan"]))
    assert re.search(r"^open +T-", by_verb["threats"], re.MULTILINE)


def test_the_profile_repeats_both_poisons_and_publishes_the_figures(
    done: tuple[Path, list[pages.Step]],
) -> None:
    lines = (done[0] / "runs" / "assignment" / "records.jsonl").read_text("utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    models = {one.get("subject", {}).get("model_name") for one in records if "value" in one}
    assert {"report-a-poisoned", "report-b-poisoned"} <= models
    assert any(one.get("name") == "published-figures" for one in records)


SCRIPT = """
import sys

import pytest

import purpleteam as pt
from purpleteam.cli import main

pt.attack, pt.attacks, pt.pipeline
for command in ("--help", "ls", "attack --attack fgsm --limit 5 --checked 5"):
    try:
        main(command.split())
    except SystemExit as ended:
        assert not ended.code, command
print("=== tests")
sys.exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", *sys.argv[1:]]))
"""
ROOMS = ("core/test_core_registry", "verbs/test_verb_gates", "cli/test_cli_help")
NO_PROCESS = "not heavy and not seconds and not module_is"


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return what a Purpleteam that lacks the folder prints: its commands, then tests of it."""
    folder = tmp_path_factory.mktemp("without")
    ignored = shutil.ignore_patterns("__pycache__", "assignment")
    shutil.copytree(SOURCE, folder / "purpleteam", ignore=ignored)
    known = {**os.environ, "PYTHONPATH": str(folder), "XDG_CACHE_HOME": str(folder / ".cache")}
    some = [f"{ROOT}/tests/{name}.py" for name in ROOMS]
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, f"--rootdir={ROOT}", "-c", f"{ROOT}/pyproject.toml",
         "-k", NO_PROCESS, *some],
        cwd=folder, env=known, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout.split("=== tests")


def test_the_rest_works_without_the_folder(said: list[str]) -> None:
    assert "robust accuracy" in said[0] and "assignment" not in said[0]


def test_tests_of_other_rooms_pass_without_it(said: list[str]) -> None:
    assert re.search(r"\d{2,} passed", said[1])


@pytest.mark.parametrize("room", sorted(p.name for p in SOURCE.iterdir() if p.is_dir()))
def test_no_other_room_names_the_course_reports(room: str) -> None:
    if room in ("assignment", "__pycache__"):
        return
    named = [
        f"{path.relative_to(SOURCE)}: {line.strip()}"
        for path in (SOURCE / room).rglob("*")
        if path.suffix in (".py", ".toml", ".yaml", ".md", ".html", ".css", ".js")
        for line in path.read_text("utf-8").splitlines()
        if WORDS.search(IGNORED.sub("", line))
    ]
    assert named == []
