"""What becomes of the app when all of its workers are killed while it is asked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from purpleteam.core.cards import find_stored
from purpleteam.core.checks import CHECKS, Check, Outcome, Target
from purpleteam.core.errors import Absent, PurpleError
from purpleteam.serve.checks._web import STROKE, Reply, ask

COMMAND = (sys.executable, "-P", "-m", "purpleteam", "serve", "--json", "--port", "0")
WORKERS = 2
UNLIMITED = ("--set", 'without=["rate"]')  # the check asks more than one client may
ALONE = ("--set", 'without=["rate", "restart"]')
ASKING, PAUSE = 2, 0.02  # threads, and seconds between two questions of one
WARM = 10  # answers before anything is killed
WITHIN = 5.0  # seconds for an answer; on a machine with time to spare it takes less than one
PATIENCE = 20.0  # seconds that a check waits for a start, or for the workers to be back


@dataclass
class Load:
    """Threads that ask for the same image again and again."""

    url: str
    answers: list[tuple[float, float, Reply]] = field(default_factory=list)  # asked, answered
    refused: int = 0  # connections
    _over: threading.Event = field(default_factory=threading.Event)

    def _ask(self) -> None:
        while not self._over.wait(PAUSE):
            asked = time.monotonic()
            try:
                reply = ask(self.url, "POST", "/predict", STROKE)
            except OSError:
                self.refused += 1
            else:
                whole = reply.headers.get("content-length") == str(len(reply.body))
                answer = reply if whole else Reply(0, {}, b"")  # its worker was killed meanwhile
                self.answers.append((asked, time.monotonic(), answer))

    def first_after(self, moment: float) -> float | None:
        """Return the seconds until something that was asked after the moment was answered."""
        found = [
            end for begin, end, reply in self.answers if begin > moment and reply.status == 200
        ]
        return round(min(found) - moment, 2) if found else None

    @contextmanager
    def running(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(ASKING)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join(timeout=PATIENCE)


@contextmanager
def program(command: tuple[str, ...]) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run `purple --json serve` in a process of its own; yield the address and the process."""
    quiet = subprocess.DEVNULL
    with subprocess.Popen(  # noqa: S603 - our own command
        command, stdout=subprocess.PIPE, stderr=quiet, stdin=quiet, text=True
    ) as process:
        try:
            said = process.stdout.readline() if process.stdout else ""
            if not said.startswith("{"):
                raise PurpleError("the app did not start")
            yield str(json.loads(said)["url"]), process
        finally:
            process.terminate()
            try:
                process.wait(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


def children(process: subprocess.Popen[str]) -> set[int]:
    """Return the processes that a program has started, as Linux says."""
    try:
        said = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    except OSError:
        raise Absent("no way to see the workers: /proc does not list children") from None
    return set(map(int, said.split()))


def all_killed(process: subprocess.Popen[str], load: Load, count: int) -> dict[str, float | None]:
    """Kill every worker, once some answers came; return the seconds until another, or None."""
    until = time.monotonic() + PATIENCE
    while len(workers := children(process)) < count or len(load.answers) < WARM:
        if process.poll() is not None or time.monotonic() > until:
            raise PurpleError("the app did not start its workers")
        time.sleep(PAUSE)
    killed, again = time.monotonic(), None
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    while again is None and process.poll() is None and time.monotonic() < killed + PATIENCE:
        time.sleep(PAUSE)
        again = load.first_after(killed)
    return {"killed": len(workers), "answered again after": again}


@CHECKS.register("web.restart")
class Restart(Check):
    """With all of its workers killed under load, the app answers again within 5 s, and rightly.

    It runs in a process of its own, `purple serve --workers 2`, on the model that is served.
    """

    needs: ClassVar[tuple[str, ...]] = ("url", "model")

    def examine(self, target: Target) -> Outcome:
        if target.model is not None and target.model.is_dir():
            raise Absent("needs the one model that is served, not a folder of them")
        stored = find_stored(str(target.model))
        chosen = ("--model", str(stored.stem), "--workers", str(WORKERS))
        with program((*(target.command or (*COMMAND, *UNLIMITED)), *chosen)) as (url, process):
            right, load = ask(url, "POST", "/predict", STROKE), Load(url)
            with load.running():
                measured = all_killed(process, load, WORKERS)
        wrong = [reply for *_, reply in load.answers if reply.status and reply[::2] != right[::2]]
        took = measured["answered again after"]
        again = took is not None and took <= WITHIN  # how soon differs from time to time
        return Outcome(
            passed=again and not wrong and right.status == 200,
            measured={"killed": measured["killed"], "answered again": again, "wrong": len(wrong)},
            threshold=f"within {WITHIN:g} s, and none wrong",
            inputs={stored.stem.name: stored.card.digest},
        )

    def bad_example(self, folder: Path) -> Target:
        return Target(url="", model=Path("standard"), command=(*COMMAND, *ALONE))
