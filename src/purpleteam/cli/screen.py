"""What a person sees: progress on standard error, the answer on standard output."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any, TextIO

from purpleteam.core.progress import SILENT, Progress, Task
from purpleteam.verbs.outputs import json_text

_answered = False
_out: TextIO | None = None  # standard output, while it is kept from everybody but `answer`


def expect_answer() -> None:
    """Begin a command: nothing is answered yet."""
    global _answered
    _answered = False


@contextmanager
def only_answers() -> Iterator[None]:
    """Let only answers through to standard output: a net's own print goes elsewhere."""
    global _out
    _out = sys.stdout
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _out = None


def answer(values: Mapping[str, Any], lines: Sequence[str], *, as_json: bool) -> None:
    """Print the one JSON object, or the lines for people."""
    global _answered
    _answered = True
    write(json_text(values) if as_json else "\n".join(map(_printable, lines)), _out)


def write(text: str = "", out: TextIO | None = None) -> None:
    """Write a line, and what others left there; nothing is left that would fail at the end."""
    out = out or sys.stdout
    try:
        out.write(text + "\n" if text else "")
        out.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
        if not isinstance(error, BrokenPipeError):  # a reader that has seen enough is no error
            raise


def refuse(error: Mapping[str, Any], *, as_json: bool) -> int:
    """Say why there is no answer, as a line and as the one JSON object; return the exit code.

    Where an answer was printed already, the line is all.
    """
    text, message = error["message"], " ".join(error["message"].split())
    say(text if text.startswith("Usage:") else f"error: {message}")
    if as_json and not _answered:
        with suppress(OSError):  # the disk is full, and the line has been said
            answer({"error": {**error, "message": message}}, [], as_json=True)
    return int(error["exit_code"])


def say(text: str) -> None:
    """Write a line to standard error."""
    sys.stderr.write(_printable(text) + "\n")


def _printable(text: str) -> str:
    """Return text of which no character moves the cursor: names of files may be a stranger's."""
    letters = (
        letter if letter.isprintable() or letter in "\n\t" else ascii(letter)[1:-1]
        for letter in text
    )
    return "".join(letters)


@contextmanager
def progress(quiet: bool) -> Iterator[Progress]:
    """Yield where to report: a live bar on a terminal, nothing elsewhere or when quiet."""
    if quiet or not sys.stderr.isatty():
        yield SILENT
        return
    from rich import progress as bars
    from rich.console import Console

    what, facts = (bars.TextColumn(text) for text in ("{task.description}", "{task.fields[facts]}"))
    turning, bar = bars.SpinnerColumn(style="magenta"), bars.BarColumn(complete_style="magenta")
    columns = (turning, what, bar, bars.TaskProgressColumn(), bars.TimeRemainingColumn(), facts)
    with bars.Progress(*columns, console=Console(stderr=True), transient=True) as live:
        yield _Live(live)


class _Live(Progress, Task):
    """`core.progress` drawn by rich: all bars, or the one that a task advances."""

    def __init__(self, bars: Any, number: Any = None) -> None:
        self._bars, self._number = bars, number

    @contextmanager
    def task(self, description: str, total: float) -> Iterator[Task]:
        number = self._bars.add_task(description, total=total, facts="")
        try:
            yield _Live(self._bars, number)
        finally:
            self._bars.remove_task(number)

    def advance(self, steps: float = 1, **facts: object) -> None:
        shown = {"facts": "  ".join(f"{k} {v}" for k, v in facts.items())} if facts else {}
        self._bars.update(self._number, advance=steps, **shown)
