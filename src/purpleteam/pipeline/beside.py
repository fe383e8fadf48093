"""Jobs of one run side by side, each in a process of its own.

A net this small has little work for torch's threads to share, so two cores are used by two
processes. A job leaves its cells as drafts in the run folder; the run then goes through its
stages as if it were alone and takes them over in its own order. One process or four, the records
are the same. A job that fails leaves no draft: the run comes to it, fails itself and says so.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from queue import SimpleQueue

from purpleteam.core.errors import RunError
from purpleteam.pipeline.state import Run

HELPER = "purpleteam.pipeline.helper"
"""What a process runs: it reads a job a line and answers each with a line."""


@dataclass(frozen=True)
class Job:
    """Something to do with one trial of the poison lab."""

    what: str
    """learn, search, scan, plant again, describe, or repair."""
    seed: int
    attack: str | None = None
    """The poison, as `backdoors.attacks` says it; None is the clean trial."""
    repair: str | None = None


Beside = Callable[[Sequence[Job]], None]
"""Does the jobs, and returns when all are done."""


@contextmanager
def beside(run: Run) -> Iterator[Beside]:
    """Yield what does jobs in as many other processes as the run asks for."""
    count = run.processes
    helpers: list[_Helper] = []
    free: SimpleQueue[_Helper] = SimpleQueue()

    def one(job: Job) -> None:
        helper = free.get()
        try:
            helper.do(job)
        finally:
            free.put(helper)

    try:
        for _ in range(count):
            helpers.append(_Helper(run))
            free.put(helpers[-1])
        with ThreadPoolExecutor(count) as pool:

            def together(jobs: Sequence[Job]) -> None:
                with run.progress.task(f"{count} side by side", len(jobs)) as task:
                    waiting = [pool.submit(one, job) for job in jobs]
                    try:
                        for done in as_completed(waiting):
                            done.result()
                            task.advance(1)
                    except BaseException:
                        pool.shutdown(wait=False, cancel_futures=True)
                        for helper in helpers:
                            helper.kill()
                        raise

            yield together
    finally:
        for helper in helpers:
            helper.kill()


class _Helper:
    """One process that works for a run."""

    def __init__(self, run: Run) -> None:
        start = {"run": str(run.folder.path.resolve()), "command": list(run.command)}
        self._process = subprocess.Popen(  # noqa: S603 - our own module, no word of the user's
            [sys.executable, "-m", HELPER, json.dumps(start)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    def do(self, job: Job) -> None:
        """Have the job done, if it can be.

        Raises:
            RunError: the process has ended.
        """
        if self._process.stdin and self._process.stdout:
            with suppress(OSError, ValueError):
                self._process.stdin.write(json.dumps(asdict(job)) + "\n")
                self._process.stdin.flush()
                json.loads(self._process.stdout.readline())
                return
        raise RunError(f"the process that was to {job.what} has ended")

    def kill(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.communicate()
