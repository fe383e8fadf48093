"""What the documents tell people to type: it is run, or, where it takes hours, understood.

Quick lines of README's shell blocks are run below, in order, beside the Python file that README
shows. `purple demo` is run in test_demo.py, `purple run` in tests/pipeline, `purple serve` in
tests/cli; of those, and of every other mention, verb, options and profile must exist.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
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
ELSEWHERE = ("demo", "run", "serve")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
MENTION = re.compile(r"`(purple [^`\n]+)`|^(?:\$ )?(purple [^`\n]+)$", re.MULTILINE)


def quick_lines() -> list[str]:
    """Return the lines of README's shell blocks that are run here, without their comments."""
    blocks = [body for kind, body in FENCE.findall(README) if kind in ("sh", "console", "bash")]
    lines = [line.removeprefix("$ ").strip() for body in blocks for line in body.splitlines()]
    return [
        shlex.join(shlex.split(line, comments=True))
        for line in lines
        if line.startswith("purple ") and line.split()[1] not in ELSEWHERE
    ]


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


def test_readme_has_quick_lines_to_run() -> None:
    assert len(quick_lines()) >= 2


def test_the_quick_lines_of_readme_work_one_after_the_other(tmp_path: Path) -> None:
    import torch

    (module,) = [body for kind, body in FENCE.findall(README) if kind == "python"]
    name = re.match(r"# (\w+)\.py", module)
    assert name is not None, "the Python block does not say which file it is"
    (tmp_path / f"{name[1]}.py").write_text(module, "utf-8")
    make = (
        f"import torch, {name[1]} as own; torch.manual_seed(0); "
        "torch.save(own.net().state_dict(), 'my_weights.pt')"
    )
    assert torch.__version__
    subprocess.run([sys.executable, "-c", make], cwd=tmp_path, check=True, timeout=60)
    for line in quick_lines():
        if "mnist" in line:
            continue  # needs the network, or hours
        code = "from purpleteam.cli import main; main()"
        ended = subprocess.run(
            [sys.executable, "-c", code, *shlex.split(line)[1:]],
            cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert (ended.returncode, ended.stderr) == (0, ""), (line, ended.stderr)
