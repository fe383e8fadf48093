"""Who does the cells of a sweep: one file an engine, which registers itself in ENGINES.

An engine takes jobs and gives back what became of them, in any order. It writes nothing: whoever
asked keeps the results, so no filesystem has to be shared.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from purpleteam.core.errors import UsageError
from purpleteam.core.registry import Registry

__all__ = ["ENGINES", "TRIES", "Engine", "Job", "Outcome", "refuse_address"]

TRIES = 3
"""How often a job is begun whose process dies: once, and twice again."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """The call of a verb as plain data, so that any process can do it."""

    key: str
    """The digest of all that its result depends on."""
    verb: str
    options: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a job: records as JSON, or why there are none."""

    key: str
    records: Sequence[Mapping[str, Any]] = ()
    seconds: float = 0.0
    error: str = ""
    """In a line; empty where the job was done."""


class Engine(Protocol):
    """Does jobs."""

    def run(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """Do all jobs, and yield each outcome as it comes, one for each job."""
        ...

    def close(self) -> None:
        """End what was started; a job that is under way is lost."""
        ...


class EngineMaker(Protocol):
    """What an engine is registered as."""

    def __call__(self, *, workers: int | None, threads: int, address: str | None) -> Engine:
        """Return an engine; `None` workers are as many as it chooses."""
        ...


ENGINES: Registry[EngineMaker] = Registry("engine")


def refuse_address(name: str, address: str | None) -> None:
    """Refuse the address of a cluster for an engine that has none."""
    if address is not None:
        raise UsageError(f"--address {address!r} is for --engine ray; {name} works on this machine")


ENGINES.load(sys.modules[__name__])
