"""What the documents tell people to type: verb, options and profile exist, and tests run it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from purpleteam.cli.app import app
from purpleteam.pipeline.config import profile_names

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
DOCUMENTS = [
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "Makefile"]
    if "purple " in path.read_text("utf-8")
]
RUN_IN = {
    "attack": "repository/test_repository_readme.py",
    "demo": "end_to_end/test_demo.py",
    "detect": "cli/test_cli_detect.py",
    "repair": "cli/test_cli_detect.py",
    "run": "pipeline/test_pipeline_run.py",
    "serve": "cli/test_cli_serve.py",
}
"""Where a verb of README's shell blocks is run."""
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
MENTION = re.compile(r"`(purple [^`\n]+)`|^(?:\$ )?(purple [^`\n]+)$", re.MULTILINE)


def shell_lines() -> list[str]:
    """Return the lines of README's shell blocks that call us."""
    blocks = [body for kind, body in FENCE.findall(README) if kind in ("sh", "console", "bash")]
    lines = [line.removeprefix("$ ").strip() for body in blocks for line in body.splitlines()]
    return [line for line in lines if line.startswith("purple ")]


def mentions() -> Iterator[tuple[str, str]]:
    for path in DOCUMENTS:
        for inline, line in MENTION.findall(path.read_text("utf-8")):
            yield path.name, (inline or line).partition("#")[0].strip()


def verb_of(words: list[str]) -> object:
    """Return the command that the first word, or the first two, names."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert words[0] in commands, words
    found = commands[words[0]]
    return found.commands[words[1]] if hasattr(found, "commands") and len(words) > 1 else found


@pytest.mark.parametrize(("where", "line"), sorted(set(mentions())))
def test_every_mention_is_a_verb_with_options_that_it_has(where: str, line: str) -> None:
    words = [word.rstrip(",.;:") for word in line.split()[1:]]
    if words[0].startswith("-") or not words[0].isalpha():
        return
    known = {name for one in getattr(verb_of(words), "params", []) for name in one.opts}
    for word, following in zip(words, [*words[1:], ""], strict=True):
        assert not word.startswith("--") or word in known | {"--help"}, line
        assert word != "--profile" or following in profile_names(), line


def test_every_verb_of_a_shell_block_is_run_by_some_test() -> None:
    verbs = {line.split()[1] for line in shell_lines()}
    assert verbs and verbs <= set(RUN_IN)
    for verb, test in RUN_IN.items():
        assert (ROOT / "tests" / test).is_file(), f"{verb} is run nowhere"
