"""A parent that watches worker processes on one listening socket, and replaces them.

The parent answers no request, loads no model and starts no thread. Each worker is a new program,
not a fork: with memory laid out anew, one crash teaches nothing about the next worker (blind
return-oriented programming, Bittau et al. 2014). uvicorn's and gunicorn's supervisors know no
ceiling of memory; uvicorn's looks twice a second, pickles the app and imports the command again.
The socket stays open while a worker is missing, so clients wait a moment and are not refused.
"""

from __future__ import annotations

import json
import os
import random
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar

from purpleteam.core.errors import PurpleError, Refused, reason_of
from purpleteam.core.registry import check_ranges
from purpleteam.serve.systemd import NOTIFY_SOCKET, notify

if TYPE_CHECKING:
    from purpleteam.serve.audit.writer import Writer

TICK = 0.5  # seconds between two looks at what no event tells
SETTLED = 1.0  # seconds of service after which the end of a worker is no failed start
LONGEST_WAIT = 10.0  # seconds before another try, where workers end at their start again and again
MARGIN = 2.0  # seconds after the drain until workers that are still there are killed
MOST_SAID, MOST_LINES = 4096, 32  # bytes of a worker's line, and lines that are handed on
SAID = b"says "  # before a line that is for whoever runs it; else it is why the worker ends


@dataclass(frozen=True, kw_only=True)
class Workers:
    """How many processes serve, when one is replaced, and how all of them end."""

    ranges: ClassVar[str] = (
        "count from 0 to 64; memory_mb at least 0; lifetime_seconds at least 0; "
        "lifetime_requests at least 0; jitter from 0 to 1; silent_seconds at least 1; "
        "start_seconds at least 1; notice_seconds from 0 to 60; drain_seconds at least 1"
    )

    count: int = 0
    """Worker processes under a supervisor; 0 serves in one process, which nobody watches."""
    memory_mb: int = 256
    """Resident megabytes above which a worker is replaced; 0: no ceiling. Needs /proc."""
    lifetime_seconds: float = 86_400.0
    """After so long a worker is replaced; 0: never."""
    lifetime_requests: int = 0
    """After so many requests a worker is replaced; 0: never."""
    jitter: float = 0.1
    """Share by which both lifetimes are drawn shorter, so that workers do not end together."""
    silent_seconds: float = 10.0
    """A worker is killed whose event loop has said nothing for so long."""
    start_seconds: float = 30.0
    """A worker is killed that is not ready after so long."""
    notice_seconds: float = 0.0
    """At the end /readyz says 503 and all else is answered for so long: a balancer looks away."""
    drain_seconds: int = 10
    """Then what is under way has so long to be finished."""

    def __post_init__(self) -> None:
        check_ranges(self)


class _Worker:
    """One process, as its parent sees it: it says how many requests it took, line by line."""

    def __init__(
        self, number: int, order: Mapping[str, Any], listener: socket.socket, files: Sequence[int]
    ) -> None:
        self.number, self.began, self.heard = number, monotonic(), monotonic()
        self.ready_at = 0.0  # when it said its first number: it accepts connections
        self.serving = False  # and the supervisor took notice
        self.requests = 0
        self.share = 1.0  # of both lifetimes
        self.due = ""  # why another is to take its place; until that one is ready, it serves on
        self.successor: _Worker | None = None
        self.leaving = False  # told to end, by the parent's deadline for it
        self.deadline = 0.0
        self.why = ""  # the parent killed it
        self.refused = ""  # what it said instead of a number
        self.says: list[str] = []  # for whoever runs it
        self._said = b""
        self.line, theirs = socket.socketpair()
        with theirs:
            numbers = (theirs.fileno(), listener.fileno())
            self.process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-P", "-m", "purpleteam.serve.worker", str(numbers[0])],
                pass_fds=(*numbers, *files),
                env={name: text for name, text in os.environ.items() if name != NOTIFY_SOCKET},
                stdin=subprocess.DEVNULL,
                process_group=0,  # Ctrl+C in a terminal reaches the parent alone
            )
        given = {**order, "number": number, "parent": os.getpid(), "listener": numbers[1]}
        with suppress(OSError):  # its end will be seen
            self.line.sendall(json.dumps(given, default=str).encode() + b"\n")
        self.line.setblocking(False)

    def hear(self) -> bool:
        """Take in what it said; return whether it is still there."""
        try:
            said = self.line.recv(MOST_SAID)
        except OSError:
            return False
        self.heard = monotonic()
        *lines, self._said = (self._said + said).split(b"\n")
        for text in lines:
            if text.isdigit():
                self.requests, self.ready_at = int(text), self.ready_at or self.heard
            elif text.startswith(SAID):
                if len(self.says) < MOST_LINES:
                    self.says.append(text.removeprefix(SAID).decode("utf-8", "replace"))
            else:
                self.refused = text.decode("utf-8", "replace")
        return said != b"" and len(self._said) < MOST_SAID

    def megabytes(self) -> float:
        """Return its resident memory, 0 where nobody says."""
        with suppress(OSError, ValueError, IndexError):
            pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
            return pages * os.sysconf("SC_PAGESIZE") / 2**20
        return 0.0

    def end(self, number: int, seconds: float) -> None:
        """Tell it to finish what is under way; it is killed after so many seconds."""
        if not self.leaving:
            self.leaving, self.deadline = True, monotonic() + seconds
            self.process.send_signal(number if self.serving else signal.SIGTERM)

    def kill(self, why: str) -> None:
        self.why = self.why or f"{why}, and was killed"
        self.process.kill()

    def reap(self) -> str:
        """Wait for its end, which has begun; return how it ended."""
        try:
            code = self.process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self.line.close()
        killed = f"was killed ({signal.Signals(-code).name})" if code < 0 else ""
        return self.why or killed or f"ended with exit code {code}"


class Supervisor:
    """Keeps so many workers on a socket until it is told to end.

    SIGTERM and SIGINT drain and end all; a second one kills them. SIGHUP replaces one after the
    other by a worker that reads the model and all other files anew, and begins another audit log
    where it was moved; in a terminal, whose closing sends it, it ends them. Must run in the main
    thread.

    Args:
        settings: how many, and their bounds.
        order: what each worker is to do, as JSON holds it: see `purpleteam.serve.worker`.
        listener: the socket that all of them accept from.
        tell: called with a line for whoever runs it.
        files: numbers of open files, which workers have under the same numbers.
        writer: of the audit log, which is started again where it ends.
        replaces: False leaves the place of a dead worker empty: the control of `web.restart`.
    """

    def __init__(
        self,
        settings: Workers,
        order: Mapping[str, Any],
        listener: socket.socket,
        *,
        tell: Callable[[str], None],
        files: Sequence[int] = (),
        writer: Writer | None = None,
        replaces: bool = True,
    ) -> None:
        self.settings, self.order, self.listener = settings, order, listener
        self.files, self.writer = files, writer
        self._say, self._replaces = tell, replaces
        self._workers: list[_Worker] = []
        self._empty: dict[int, tuple[float, str]] = {}  # places, since when, and why
        self._writer_lost = ""  # why the audit log has no writer
        self._failures = 0  # workers in a row that ended before they were settled
        self._not_before = 0.0  # when the next worker may start
        self._served = self._ending = False
        self._ends_with_terminal = sys.stderr.isatty()
        self._drain_seconds = settings.notice_seconds + settings.drain_seconds + MARGIN
        self._selector = selectors.DefaultSelector()

    def run(self, on_ready: Callable[[], None]) -> None:
        """Serve; call `on_ready` as soon as one worker accepts; return when the last has ended.

        Raises what kept the first worker from starting, and PurpleError where none is left.
        """
        with self._selector, self._signals() as arrived:
            try:
                for number in range(1, self.settings.count + 1):
                    self._start(number)
                while self._workers or (self._replaces and not self._ending):
                    for key, _ in self._selector.select(TICK):
                        if key.data is None:
                            for number in arrived.recv(64):
                                self._signal(number)
                        elif not key.data.hear():
                            self._gone(key.data)
                        elif key.data.ready_at and not key.data.serving:
                            self._ready(key.data, on_ready)
                    self._look()
            finally:
                for worker in self._workers:
                    worker.process.kill()
                    worker.reap()
        if not self._ending:
            raise PurpleError("no worker is left, and none is replaced")

    @contextmanager
    def _signals(self) -> Iterator[socket.socket]:
        """Turn signals into bytes on a socket, which wake the loop; each byte is a number."""
        arrived, sender = socket.socketpair()
        with arrived, sender:
            sender.setblocking(False)
            taken = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
            before = {number: signal.signal(number, lambda *_: None) for number in taken}
            woken = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
            self._selector.register(arrived, selectors.EVENT_READ)
            try:
                yield arrived
            finally:
                signal.set_wakeup_fd(woken)
                for number, handler in before.items():
                    signal.signal(number, handler)

    def _signal(self, number: int) -> None:
        if number == signal.SIGHUP and not self._ends_with_terminal:
            self._tell("replacing the workers, one after the other")
            if self.writer is not None and (said := self.writer.renew()):
                self._tell(said)
            for worker in self._workers:
                worker.due = worker.due or "was replaced as asked"
        elif self._ending:
            for worker in self._workers:
                worker.kill("was to end at once")
        elif number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            self._ending = True
            number = signal.SIGINT if number == signal.SIGHUP else number
            notify("STOPPING=1")
            self.listener.close()  # else connections would wait where nobody accepts them
            for worker in self._workers:
                worker.end(number, self._drain_seconds)

    def _tell(self, line: str) -> None:
        with suppress(OSError):  # nobody reads it any more: no reason to end
            self._say(line)

    def _start(self, number: int) -> _Worker | None:
        """Start a worker; None where the system has no process or file left for it."""
        try:
            worker = _Worker(number, self.order, self.listener, self.files)
        except OSError as error:
            reason = (error.strerror or "refused").lower()
            if not self._served:
                raise PurpleError(f"cannot start worker {number}: {reason}") from None
            self._tell(
                f"cannot start worker {number}: {reason}; the next try is in {self._wait():.1f} s"
            )
            return None
        worker.share -= self.settings.jitter * random.SystemRandom().random()
        self._workers.append(worker)
        self._selector.register(worker.line, selectors.EVENT_READ, worker)
        return worker

    def _ready(self, worker: _Worker, on_ready: Callable[[], None]) -> None:
        worker.serving = True
        for line in worker.says:
            if not self._served or line.startswith("WARNING"):  # all say the same
                self._tell(line)
        if not self._served:
            self._served = True
            on_ready()
        if worker.number in self._empty:
            since, how = self._empty.pop(worker.number)
            took = worker.ready_at - since
            self._tell(f"worker {worker.number} {how}; replaced in {took:.1f} s")
        for old in self._workers:
            if old.successor is worker:
                self._tell(f"worker {old.number} {old.due}: another has its place")
                old.end(signal.SIGINT, self._drain_seconds)  # others accept: no notice is needed

    def _gone(self, worker: _Worker) -> None:
        self._selector.unregister(worker.line)
        self._workers.remove(worker)
        how, number, now = worker.reap(), worker.number, monotonic()
        if worker.leaving:
            if worker.why:
                self._tell(f"worker {number} {how}")
            return
        if not self._served:
            kind = Refused if worker.process.returncode == Refused.exit_code else PurpleError
            raise kind(worker.refused or f"worker {number} {how} before it served")
        how += f" ({worker.refused})" if worker.refused else ""
        settled = worker.serving and now - worker.ready_at >= SETTLED
        if settled:
            self._failures = 0
        wait = 0.0 if settled else self._wait()
        for old in self._workers:
            if old.successor is worker:
                self._tell(f"the successor of worker {number} {how}: that one stays")
                old.due = ""
                return
        if not self._replaces:
            self._tell(f"worker {number} {how}; its place stays empty")
            return
        if wait:
            self._tell(f"worker {number} {how}; the next one starts in {wait:.1f} s")
        self._empty.setdefault(number, (now, how))
        self._fill(now)

    def _look(self) -> None:
        """Do what time asks for: kill, mark what is due, start."""
        now, healthy = monotonic(), False
        if self.writer is not None and not self.writer.alive():
            self._restart(self.writer)
        for worker in self._workers:
            if worker.leaving:
                if now > worker.deadline:
                    worker.kill("did not end in time")
            elif not worker.serving:
                if now - worker.began > self.settings.start_seconds:
                    worker.kill("was not ready in time")
            elif now - worker.heard > self.settings.silent_seconds:
                worker.kill(f"said nothing for {self.settings.silent_seconds:g} s")
            else:
                healthy = True
                worker.due = worker.due or self._due(worker, now)
        if healthy:
            notify("WATCHDOG=1")
        self._fill(now)

    def _restart(self, writer: Writer) -> None:
        """Start the audit log's writer again; what had the old one answers nothing any more."""
        try:
            writer.restart()
        except PurpleError as error:
            if self._writer_lost != (why := reason_of(error)):
                self._tell(f"the writer of the audit log ended, and cannot start: {why}")
            self._writer_lost = why
            return
        self._tell("the writer of the audit log ended, and was started again")
        self._writer_lost = ""
        for worker in self._workers:
            worker.due = worker.due or "had lost the writer of the audit log"

    def _due(self, worker: _Worker, now: float) -> str:
        """Return why another worker is to take the place of this one, if one is."""
        bounds, age = self.settings, now - worker.ready_at
        if 0 < bounds.memory_mb < (held := worker.megabytes()):
            return f"held {held:.0f} MB, more than {bounds.memory_mb}"
        if 0 < bounds.lifetime_seconds * worker.share < age:
            return f"had served for {age:.0f} s"
        if 0 < bounds.lifetime_requests * worker.share <= worker.requests:
            return f"had taken {worker.requests} requests"
        return ""

    def _fill(self, now: float) -> None:
        """Start a worker in each empty place, and one successor at a time."""
        if self._ending or not self._replaces or now < self._not_before:
            return
        starting = {worker.number for worker in self._workers if not worker.serving}
        for number in self._empty.keys() - starting:
            starting.add(number)
            if self._start(number) is None:
                return
        for worker in list(self._workers):
            if worker.due and not worker.leaving and not starting:
                worker.successor = self._start(worker.number)
                return

    def _wait(self) -> float:
        """Count a failed start; return the seconds until the next one."""
        self._failures += 1
        # Each worker may die at once one time, as when memory is short; then the waits double.
        over = self._failures - self.settings.count
        wait = min(TICK * 2.0 ** (over - 1), LONGEST_WAIT) if over > 0 else 0.0
        self._not_before = monotonic() + wait
        return wait
