"""What a person sees: progress on standard error, the answer on standard output."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any, TextIO

from purpleteam.core.progress import SILENT, Progress, Task
from purpleteam.verbs.outputs import json_text

_answered = False
_out: TextIO | None = None
"""Standard output, while it is kept from everybody but `answer`."""


def expect_answer() -> None:
    """Begin a command: nothing is answered yet."""
    global _answered
    _answered = False


def only_answers(verb: Callable[..., None]) -> Callable[..., None]:
    """Return a verb that answers on standard output alone: a net's own print goes elsewhere."""

    @functools.wraps(verb)
    def kept(**given: Any) -> None:
        global _out
        _out = sys.stdout
        try:
            with redirect_stdout(sys.stderr):
                verb(**given)
        finally:
            _out = None

    return kept


def answer(values: Mapping[str, Any], lines: Sequence[str], *, as_json: bool) -> None:
    """Print the one JSON object, or the lines for people."""
    global _answered
    _answered = True
    text = json_text(values) if as_json else "\n".join(map(_printable, lines))
    _write(_out or sys.stdout, text + "\n")


def end() -> None:
    """Write what others left in standard output: help, the version."""
    _write(sys.stdout, "")


def _write(out: TextIO, text: str) -> None:
    """Write it all, and leave nothing that would fail once more as the interpreter ends."""
    try:
        out.write(text)
        out.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
        if not isinstance(error, BrokenPipeError):  # a reader that has seen enough is no error
            raise


def refuse(kind: str, text: str, code: int, *, as_json: bool, **facts: str) -> int:
    """Say why there is no answer, as a line and as the one JSON object; return the exit code.

    Where an answer was printed already, such as a scan's that is not whole, the line is all.
    """
    message = " ".join(text.split())
    say(text if text.startswith("Usage:") else f"error: {message}")
    if as_json and not _answered:
        error = {"kind": kind, "message": message, "exit_code": code, **facts}
        with suppress(OSError):  # the disk is full, and the line has been said
            answer({"error": error}, [], as_json=True)
    return code


def say(text: str) -> None:
    """Write a line to standard error."""
    sys.stderr.write(_printable(text) + "\n")


def _printable(text: str) -> str:
    """Return text of which no character moves the cursor: names of files may be a stranger's."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or one in "\n\t" else one.encode("unicode_escape").decode()
        for one in text
    )


@contextmanager
def progress(quiet: bool) -> Iterator[Progress]:
    """Yield where to report: a live bar on a terminal, nothing elsewhere or when quiet."""
    if quiet or not sys.stderr.isatty():
        yield SILENT
        return
    from rich import progress as bars
    from rich.console import Console

    live = bars.Progress(
        bars.SpinnerColumn(style="magenta"),
        bars.TextColumn("{task.description}"),
        bars.BarColumn(complete_style="magenta"),
        bars.TaskProgressColumn(),
        bars.TimeRemainingColumn(),
        bars.TextColumn("{task.fields[facts]}"),
        console=Console(stderr=True),
        transient=True,
    )
    with live:
        yield _Live(live)


class _Live:
    """`core.progress` drawn by rich."""

    def __init__(self, bars: Any) -> None:
        self._bars = bars

    @contextmanager
    def task(self, description: str, total: float) -> Iterator[Task]:
        number = self._bars.add_task(description, total=total, facts="")
        try:
            yield _LiveTask(self._bars, number)
        finally:
            self._bars.remove_task(number)


class _LiveTask:
    def __init__(self, bars: Any, number: int) -> None:
        self._bars = bars
        self._number = number

    def advance(self, steps: float = 1, **facts: object) -> None:
        shown = {"facts": "  ".join(f"{k} {v}" for k, v in facts.items())} if facts else {}
        self._bars.update(self._number, advance=steps, **shown)
