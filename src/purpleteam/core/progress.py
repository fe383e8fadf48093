"""How long work says where it is: libraries report, only the command line draws."""

from collections.abc import Iterator
from contextlib import contextmanager


class Task:
    """One piece of work under way."""

    def advance(self, steps: float = 1, **facts: object) -> None:
        """Say that `steps` more are done; `facts` (loss, robust so far) are shown beside."""


class Progress:
    """Where a library function reports its progress; this one shows nothing."""

    @contextmanager
    def task(self, description: str, total: float) -> Iterator[Task]:
        """Open a task of `total` steps."""
        yield Task()


SILENT = Progress()  # the default of every library function
