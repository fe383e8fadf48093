"""Who does the cells of a sweep or a run: one file an engine, which registers itself in ENGINES.

An engine takes jobs and gives back what became of them, in any order, with the files that they made
elsewhere. It writes nothing: whoever asked keeps all, so no filesystem has to be shared.
"""

import os
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from purpleteam.core.errors import UsageError
from purpleteam.core.registry import Registry

__all__ = [
    "CELL",
    "ENGINES",
    "OPEN",
    "TRIES",
    "Engine",
    "Job",
    "Outcome",
    "refuse_cluster",
    "write_file",
]

TRIES = 3
"""How often a job is begun whose process dies: once, and twice again."""


CELL = "cell of a run"
"""What stands in the place of a verb where a job is a cell of a run: see `pipeline.ahead`."""
OPEN = "digests"
"""The same where a job is to open what a call is about, which may be code of the user's."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """The call of a verb, or a cell of a run, as plain data, so that any process can do it."""

    key: str
    """The digest of all that its result depends on."""
    verb: str
    options: Mapping[str, Any]
    makes: str = ""
    """Where in a sweep's folder its product goes; empty where nothing is kept."""
    uses: Sequence[str] = ()
    """Options that name what another job made, by where it is in the folder `root`."""
    root: str = ""
    seconds: float | None = None
    """How long it may take."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a job: records as JSON, or why there are none."""

    key: str
    records: Sequence[Mapping[str, Any]] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    """What it made, by where in the folder of the sweep or run it goes."""
    seconds: float = 0.0
    error: str = ""
    """In a line; empty where the job was done."""
    needs: str = ""
    """The key of a cell that has to be done before; empty where the job was done or failed."""


class Engine(Protocol):
    """Does jobs."""

    def run(self, jobs: deque[Job]) -> Iterator[Outcome]:
        """Do all jobs, from the first, and yield each outcome as it comes, one for each job.

        Whoever reads the outcomes may put more into `jobs` meanwhile.
        """
        ...

    def close(self) -> None:
        """End what was started; a job that is under way is lost."""
        ...


class EngineMaker(Protocol):
    """What an engine is registered as."""

    def __call__(
        self, *, workers: int | None, threads: int, address: str | None, gpus: float = 0.0
    ) -> Engine:
        """Return an engine; `None` workers are as many as it chooses, `gpus` are for each job."""
        ...


ENGINES: Registry[EngineMaker] = Registry("engine")


def write_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, in a folder that need not be there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    fresh.write_bytes(content)
    fresh.replace(path)


def refuse_cluster(name: str, address: str | None, gpus: float) -> None:
    """Refuse what is for a cluster, of an engine that has none."""
    if gpus:
        remedy = f"{name} takes the GPU that --device names"
        raise UsageError(f"--gpus {gpus:g} is for --engine ray; {remedy}")
    if address is not None:
        raise UsageError(f"--address {address!r} is for --engine ray; {name} works on this machine")


ENGINES.load(sys.modules[__name__])
