"""What the documents tell people to type exists, and what README says is done as written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import pages
from purpleteam.cli.app import app
from purpleteam.pipeline.config import profiles

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
DOCUMENTS = [
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "Makefile"]
    if "purple " in path.read_text("utf-8")
]
RUN_IN = {"detect": "cli/test_cli_detect.py", "repair": "cli/test_cli_detect.py"}
"""Where a verb of README's shell blocks is run, if not here: it takes too long on its files."""
SMALLER = {"purple run ": "--set backdoors.own=false"}
"""What is left out of a line here, since another test does it: a scan takes long."""
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
MENTION = re.compile(r"`(purple [^`\n]+)`|^(?:\$ )?(purple [^`\n]+)$", re.MULTILINE)


def mentions() -> Iterator[tuple[str, str]]:
    for path in DOCUMENTS:
        for inline, line in MENTION.findall(path.read_text("utf-8")):
            yield path.name, (inline or line).partition("#")[0].strip()


def verb_of(words: list[str]) -> object:
    """Return the command that the first word, or the first two, names."""
    assert words[0] in COMMANDS, words
    found = COMMANDS[words[0]]
    return found.commands[words[1]] if hasattr(found, "commands") and len(words) > 1 else found


@pytest.mark.parametrize(("where", "line"), sorted(set(mentions())))
def test_every_mention_is_a_verb_with_options_that_it_has(where: str, line: str) -> None:
    words = [word.rstrip(",.;:") for word in line.split()[1:]]
    if words[0] == "--plugin":
        words = words[2:]
    if words[0].startswith("-") or not words[0].isalpha():
        return
    known = {name for one in getattr(verb_of(words), "params", []) for name in one.opts}
    for word, following in zip(words, [*words[1:], ""], strict=True):
        assert not word.startswith("--") or word in known | {"--help"}, line
        assert word != "--profile" or following in profiles(), line


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, pages.Step]]:
    """Do what README says, and return where, and each step by what it runs."""
    folder = tmp_path_factory.mktemp("readme")
    steps = pages.do(README, folder, SMALLER, leave=[f"purple {verb} " for verb in RUN_IN])
    return folder, {" ".join(step.text.split()[:2]): step for step in reversed(steps)}


def test_every_step_of_readme_works_as_written(done: tuple[Path, dict[str, pages.Step]]) -> None:
    folder, steps = done
    assert len(steps) >= 6
    assert {name: step.out for name, step in steps.items() if step.code} == {}
    for name in ("attack", "evaluate", "model"):
        assert (folder / "runs" / name / "report.html").is_file()
    assert (folder / "tests.xml").is_file() and (folder / "log.sarif").is_file()


def test_it_prints_what_readme_shows(done: tuple[Path, dict[str, pages.Step]]) -> None:
    shown = pages.blocks(README, "text")
    for text, step in zip(shown, [done[1]["purple attack"], done[1]["import torch"]]):
        robust = next(line for line in text.splitlines() if line.startswith("robust accuracy"))
        assert robust.split("(")[0][:22] in step.out and "soundness        sound" in step.out


def test_every_verb_of_a_shell_block_is_run_by_some_test() -> None:
    lines = [line for block in pages.blocks(README, "sh") for line in pages.commands(block)]
    assert lines
    for verb, test in RUN_IN.items():
        assert any(line.startswith(f"purple {verb} ") for line in lines)
        assert f'"{verb}"' in (ROOT / "tests" / test).read_text("utf-8")
