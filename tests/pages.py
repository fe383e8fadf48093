"""Do what a page of the documentation says: its files, Python and shell lines, in their order.

All of it is done in one process of its own, because plug-ins register themselves for good.
A block that begins with `# NAME.py` or `# NAME.toml` is a file, several of one name are one; other
Python blocks are run as a notebook
runs its cells. Of a shell block, lines with `purple` and `python` are run.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\w+\.(?:py|toml))\n")
MARK = "=== ended with"
RUN = ("purple", "python")
SHELL = ("sh", "yaml")


@dataclass(frozen=True)
class Step:
    """A line or a block of a page, what it printed and the exit code it ended with."""

    text: str
    out: str
    error: str
    code: int


def blocks(text: str, *languages: str) -> list[str]:
    """Return the fenced blocks of a page in these languages."""
    return [body for language, body in FENCE.findall(text) if language in languages]


def commands(block: str) -> list[str]:
    """Return the lines of a shell block that are run, continued lines as one."""
    lines = block.replace("\\\n", " ").splitlines()
    stripped = [line.strip().removeprefix("- run: ") for line in lines]
    return [line for line in stripped if line.startswith(tuple(f"{name} " for name in RUN))]


def do(
    text: str, folder: Path, more: Mapping[str, str] | None = None, *, leave: Iterable[str] = ()
) -> list[Step]:
    """Do what a page says in a folder.

    Args:
        text: the page, or a part of it.
        folder: where it is done.
        more: options that are added to a line that begins so: they make it smaller.
        leave: beginnings of lines that are left out, since another test runs them.
    """
    steps: list[tuple[str, str]] = []
    files: dict[str, str] = {}
    for language, body in FENCE.findall(text):
        if (named := FILE.match(body)) and language in ("python", "toml"):
            files[named[1]] = files.get(named[1], "") + body
        elif language == "python":
            steps.append(("python", body))
        elif language in SHELL:
            for line in commands(body):
                if not line.startswith(tuple(leave)):
                    added = [add for start, add in (more or {}).items() if line.startswith(start)]
                    words = shlex.split(" ".join([line.partition("  #")[0], *added]))
                    steps.append((words[0], json.dumps(words[1:])))
    for name, content in files.items():
        (folder / name).write_text(content, "utf-8")
    kept = {**os.environ, "XDG_CACHE_HOME": str(folder / ".cache"), "PYTHONPATH": _path()}
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps(steps),
        cwd=folder,
        env=kept,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    outs, errors = done.stdout.split(MARK), done.stderr.split(MARK)
    codes = [int(part.partition("\n")[0]) for part in outs[1:]]
    assert len(codes) == len(steps), done.stdout + done.stderr
    return [
        Step(_text(*step), _after(out), _after(error), code)
        for step, out, error, code in zip(steps, outs, errors, codes)
    ]


def _after(part: str) -> str:
    """Return what was printed, without the exit code of what was done before."""
    return part.partition("\n")[2] if part.startswith(" ") else part


def _path() -> str:
    """Return PYTHONPATH with the package that this process tests in front."""
    import purpleteam

    given = os.environ.get("PYTHONPATH", "")
    return os.pathsep.join([str(Path(purpleteam.__file__).parents[1]), given])


def _text(kind: str, what: str) -> str:
    return f"{kind} {shlex.join(json.loads(what))}" if what.startswith("[") else what


def _run(kind: str, what: str) -> int:
    import runpy
    import traceback

    try:
        if kind == "purple":
            from purpleteam.cli import main

            main(json.loads(what))
        elif what.startswith("["):
            runpy.run_path(json.loads(what)[0], run_name="__main__")
        else:
            exec(compile(what, "page", "exec"), {"__name__": "__main__"})  # noqa: S102
    except SystemExit as ended:
        return int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
        return 99
    return 0


if __name__ == "__main__":
    sys.path[0] = ""
    for asked in json.load(sys.stdin):
        ended_with = _run(*asked)
        for stream in (sys.stdout, sys.stderr):
            stream.write(f"{MARK} {ended_with}\n")
            stream.flush()
