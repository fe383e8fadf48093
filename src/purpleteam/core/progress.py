"""How long work says where it is: libraries report, only the command line draws."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Task(Protocol):
    """One piece of work under way."""

    def advance(self, steps: float = 1, **facts: object) -> None:
        """Say that `steps` more are done; `facts` (loss, robust so far) are shown beside."""


class Progress(Protocol):
    """Where a library function reports its progress."""

    def task(self, description: str, total: float) -> AbstractContextManager[Task]:
        """Open a task of `total` steps, as a context manager."""


class _SilentTask:
    def advance(self, steps: float = 1, **facts: object) -> None:
        """Say nothing."""


class _Silent:
    @contextmanager
    def task(self, description: str, total: float) -> Iterator[Task]:
        yield _SilentTask()


SILENT: Progress = _Silent()
"""The progress that shows nothing; the default of every library function."""
