"""On this machine: in this process, or in several beside it."""

import json
import os
import signal
import subprocess
import sys
import threading
from base64 import b64decode
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict
from queue import SimpleQueue

from purpleteam.core.plugins import asked_plugins
from purpleteam.core.scratch import clear
from purpleteam.pipeline.engines import ENGINES, TRIES, Engine, Job, Outcome, refuse_cluster
from purpleteam.pipeline.engines._job import do

WORKER = "purpleteam.pipeline.engines._worker"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Alone:
    """This process does one job after the other."""

    def run(self, jobs: deque[Job]) -> Iterator[Outcome]:
        """Do all jobs in their order."""
        while jobs:
            yield do(jobs.popleft())

    def close(self) -> None:
        """Nothing was started."""


class Beside:
    """Processes that do the jobs; one that dies is replaced, and its job begun again."""

    def __init__(self, workers: int, threads: int) -> None:
        self.env = os.environ | dict.fromkeys(THREADS, str(threads))
        self.idle: SimpleQueue[subprocess.Popen[str]] = SimpleQueue()
        self.started: list[subprocess.Popen[str]] = []
        self.pool, self.workers = ThreadPoolExecutor(workers), workers
        self.lock, self.closing = threading.Lock(), threading.Event()
        for _ in range(workers):
            self.idle.put(self._start())

    def run(self, jobs: deque[Job]) -> Iterator[Outcome]:
        """Give each job to whoever is idle; one more waits for each of them."""
        asked = set[Future[Outcome]]()
        try:
            while asked or (jobs and not self.closing.is_set()):
                while jobs and not self.closing.is_set() and len(asked) < 2 * self.workers:
                    asked.add(self.pool.submit(self._give, jobs.popleft()))
                ended, asked = wait(asked, return_when=FIRST_COMPLETED)
                for future in ended:
                    yield future.result()
        finally:
            for future in asked:
                future.cancel()

    def close(self) -> None:
        """Kill the processes: their results would be read by nobody."""
        with self.lock:
            self.closing.set()
            for process in self.started:
                _kill(process)
        self.pool.shutdown()  # cancelled jobs would leave whoever waits for them waiting
        for process in self.started:
            with suppress(OSError):  # what was written to it is read by nobody
                process.__exit__(None, None, None)
        clear()

    def _start(self) -> "subprocess.Popen[str]":
        process = subprocess.Popen(  # noqa: S603 - our own module, no word of the user's
            [sys.executable, "-m", WORKER, *asked_plugins()],
            env=self.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl+C is for the driver, which ends them
        )
        self.started.append(process)
        return process

    def _give(self, job: Job) -> Outcome:
        """Have a job done; begin it again, twice at most, where the process dies at it."""
        process = self.idle.get()
        how = ""
        try:
            for _ in range(TRIES):
                if self.closing.is_set():
                    return Outcome(key=job.key, error="stopped")
                if answer := _ask(process, json.dumps(asdict(job)), job.seconds):
                    told = json.loads(answer)
                    told["files"] = {k: b64decode(v) for k, v in told["files"].items()}
                    return Outcome(**told)
                how = f"its process ended with code {process.wait()}"
                with self.lock:
                    if self.closing.is_set():
                        return Outcome(key=job.key, error="stopped")
                    self.started.remove(process)
                    process.__exit__(None, None, None)
                    process = self._start()
                if answer is None and job.seconds is not None:
                    why = f"took more than {job.seconds:g} s"
                    return Outcome(key=job.key, error=why, seconds=job.seconds)
        finally:
            self.idle.put(process)
        return Outcome(key=job.key, error=f"crashed {TRIES} times: {how}")


def _kill(process: "subprocess.Popen[str]") -> None:
    """Kill a process and all that it started in its session, such as an app that it asks."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()


def _ask(process: "subprocess.Popen[str]", line: str, seconds: float | None) -> str | None:
    """Return the answer to a line; empty where the process has ended, None where it was late."""
    asked, answer = process.stdin, process.stdout
    if asked is None or answer is None:  # never: both are pipes
        return ""
    try:
        asked.write(f"{line}\n")
        asked.flush()
        if not answer.readline():  # it says that it begins: from then on the time counts
            return ""
        if seconds is None:
            return answer.readline()
        clock = threading.Timer(seconds, _kill, [process])
        clock.start()
        told, late = answer.readline(), clock.finished.is_set()
        clock.cancel()
        return None if late else told
    except (OSError, ValueError):
        return ""


@ENGINES.register("inline")
def inline(*, workers: int | None, threads: int, address: str | None, gpus: float = 0.0) -> Engine:
    """Return this process, or as many beside it as are asked for: a crash does not end this one."""
    refuse_cluster("inline", address, gpus)
    return Alone() if workers is None else Beside(workers, threads)
