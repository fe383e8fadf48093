"""The one writer of a log, and how workers reach it: lines go there, an answer comes back.

    writer = Writer(path, checkpoint_seconds)            a thread: for a server of one process
    writer = Writer(path, ..., process=True)             a forked process: for a supervisor
    client = AuditClient(writer.connect())               in the same process
    client = AuditClient(connect(number))                in a worker that has `writer.fileno()` open
    if not await client.append({"kind": "predict", ...}): refuse

A supervisor starts the writer before its first thread and has its workers inherit `fileno()`. A
worker that is killed needs nothing. Where `alive()` is False, all appends say False too: `restart`
keeps the number, and new workers find the new writer, as they do after `renew`. It ends, with a
last checkpoint, when `close` was called and all workers are gone; a process hears neither SIGINT
nor SIGTERM nor SIGHUP before.

Group commit: a worker sends all records that wait as one batch, and the next when that is answered;
the writer writes the batches of all workers at once, with one fdatasync. Whoever breaks into a
worker can add records, but neither change old ones nor sign: the key is the writer's alone, where
that is a process. A worker gets the secret by which bodies are digested, no more.
"""

import asyncio
import os
import selectors
import signal
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

from purpleteam.core.errors import PurpleError, reason_of
from purpleteam.serve.audit.log import CHECKPOINT, AuditLog, encoded, log

COMMITTED, FAILED = b"+", b"-"
LENGTH = 4  # bytes that say how long a batch is
SALT = 32  # bytes that a worker gets first
SECONDS = 10.0  # that the writer may take to begin, and to end
GATHER_SECONDS = 0.004  # that records wait for more where several came at once (commit_delay)
MOST_BYTES = 1 << 26  # of a batch
PART = 1 << 20
MOST_FILES = 1 << 16


class AuditClient:
    """One worker's way to the writer. It belongs to one event loop."""

    def __init__(self, end: socket.socket) -> None:
        end.settimeout(SECONDS)
        try:
            self._salt = end.recv(SALT, socket.MSG_WAITALL)
        except OSError:
            self._salt = b""
        if len(self._salt) != SALT:
            raise PurpleError("the writer of the audit log does not answer")
        end.setblocking(False)
        self._end = end
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lines: list[bytes] = []  # that wait for the answer to the batch before
        self._next: list[asyncio.Future[bool]] = []
        self._sent: list[asyncio.Future[bool]] = []
        self._out = b""
        self._crowded = False  # did several records wait at once?
        self.gone = False
        """Whether there is no writer any more."""
        self.failures = 0
        """How many records could not be written."""

    def digest(self, body: bytes) -> str:
        """Return a keyed digest (BLAKE2b, RFC 7693): without the key no guess can be confirmed."""
        return blake2b(body, key=self._salt, digest_size=16).hexdigest()

    def append(self, record: Mapping[str, Any]) -> asyncio.Future[bool]:
        """Send a record; True once it is on the disk, False where it could not be written."""
        loop = self._loop or self.attach()
        committed = loop.create_future()
        if self.gone:
            self.failures += 1
            committed.set_result(False)
            return committed
        if not self._next and not self._sent:
            self._send_soon(loop)
        self._lines.append(encoded(dict(record)))
        self._next.append(committed)
        return committed

    def close(self) -> None:
        """Leave the writer; records that were not answered count as failed."""
        if not self.gone:
            self.gone = True
            if self._loop is not None and not self._loop.is_closed():
                self._loop.remove_reader(self._end)
                self._loop.remove_writer(self._end)
            self._end.close()
            self._sent += self._next
            self._next = []
            self._settle(False)

    def attach(self) -> asyncio.AbstractEventLoop:
        """Notice from here on, in this event loop, when the writer is gone."""
        self._loop = asyncio.get_running_loop()
        if not self.gone:
            self._loop.add_reader(self._end, self._answered)
        return self._loop

    def _send_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._crowded:
            loop.call_later(GATHER_SECONDS, self._send)
        else:
            loop.call_soon(self._send)  # with all that come in the same turn of the loop

    def _send(self) -> None:
        if self.gone:
            return
        batch, self._crowded = b"".join(self._lines), len(self._lines) > 1
        self._sent, self._next, self._lines = self._next, [], []
        self._out = len(batch).to_bytes(LENGTH, "big") + batch
        self._push()

    def _push(self) -> None:
        if self._loop is None:
            return
        try:
            self._out = self._out[self._end.send(self._out) :]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if self._out:
            self._loop.add_writer(self._end, self._push)
        else:
            self._loop.remove_writer(self._end)

    def _answered(self) -> None:
        try:
            answer = self._end.recv(1)
        except BlockingIOError:
            return
        except OSError:
            answer = b""
        if not answer:
            self.close()
            return
        self._settle(answer == COMMITTED)
        if self._next and self._loop is not None:
            self._send_soon(self._loop)

    def _settle(self, committed: bool) -> None:
        sent, self._sent = self._sent, []
        for future in sent:
            if not future.done():
                future.set_result(committed)
        if not committed:
            self.failures += len(sent)


class Writer:
    """A writer that was started; what keeps its log from being opened is raised at once."""

    def __init__(
        self, path: Path, checkpoint_seconds: float = 10.0, *, process: bool = False
    ) -> None:
        self._path, self._seconds, self._process = path, checkpoint_seconds, process
        self.pid, self._replaced = 0, list[int]()
        self._control = self._start()

    def connect(self) -> socket.socket:
        """Return the end of a new connection; an OSError where the writer is gone."""
        near, far = socket.socketpair()
        with far:
            socket.send_fds(self._control, [b"+"], [far.fileno()])
        return near

    def fileno(self) -> int:
        """Return the number of the open file by which workers that inherit it `connect`."""
        return self._control.fileno()

    def alive(self) -> bool:
        """Return whether the writer is still there."""
        with suppress(ChildProcessError):  # those that were replaced end some time
            while self._replaced and os.waitpid(self._replaced[0], os.WNOHANG) != (0, 0):
                del self._replaced[0]
        try:
            return bool(self._control.recv(1, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def restart(self) -> None:
        """Start another in the place of one that is gone, under the same number."""
        self._wait()
        with self._start() as control:
            os.dup2(control.fileno(), self._control.fileno(), inheritable=False)

    def renew(self) -> str:
        """Start another process for new workers where the log was moved away; tell whether it was.

        The old one writes on into the moved file, and ends with the last worker that has it.
        """
        with suppress(OSError):
            if os.path.samestat(self._path.stat(), self._opened):
                return ""
        before = self.pid
        try:
            with self._start() as control:
                os.dup2(control.fileno(), self._control.fileno(), inheritable=False)
        except PurpleError as error:
            return f"the audit log was moved, and no other can begin: {reason_of(error)}"
        self._replaced.append(before)
        return "the audit log was moved: another begins"

    def close(self) -> None:
        """Let the writer end once all workers are gone, and wait for it."""
        self._control.close()
        self._wait()

    def _start(self) -> socket.socket:
        opened = AuditLog(self._path, self._seconds)
        self._opened = self._path.stat()
        near, far = socket.socketpair()
        if not self._process:
            self._thread = threading.Thread(
                target=write_all, args=(opened, far), daemon=True, name="audit"
            )
            self._thread.start()
            return near
        self.pid = os.fork()
        if self.pid == 0:
            _be_writer(opened, far)
        far.close()
        opened.leave()
        return near

    def _wait(self) -> None:
        if not self._process:
            self._thread.join(SECONDS)
            return
        until = time.monotonic() + SECONDS
        with suppress(ChildProcessError):
            while os.waitpid(self.pid, os.WNOHANG) == (0, 0) and time.monotonic() < until:
                time.sleep(0.005)


def connect(number: int) -> socket.socket:
    """Return a new connection to the writer whose `fileno` was inherited, and close that.

    Raises:
        PurpleError: the writer is gone.
    """
    near, far = socket.socketpair()
    with far, socket.socket(fileno=number) as control:
        try:
            socket.send_fds(control, [b"+"], [far.fileno()])
        except OSError:
            raise PurpleError("the writer of the audit log is gone") from None
    return near


def _be_writer(opened: AuditLog, control: socket.socket) -> NoReturn:
    """Do nothing else in this process, which was forked."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        # What the parent listens on must not stay open here when the parent is gone.
        kept = sorted({0, 1, 2, control.fileno(), *opened.filenos})
        for low, high in pairwise([*kept, MOST_FILES]):
            os.closerange(low + 1, high)
        write_all(opened, control)
        code = 0
    finally:
        os._exit(code)


def write_all(opened: AuditLog, control: socket.socket) -> None:
    """Commit what workers send until `control` is closed and they are all gone.

    Where nothing is known of the log any more it ends at once: another can open it anew.
    """
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while selector.get_map() and not opened.broken:
            ready = selector.select(opened.seconds_to_checkpoint())
            batches: list[tuple[socket.socket, bytes]] = []
            for key, _ in ready:
                end: Any = key.fileobj
                if end is control:
                    said, descriptors, *_ = socket.recv_fds(control, 1, 1)
                    if not said:
                        selector.unregister(control)
                    for descriptor in descriptors:
                        worker = socket.socket(fileno=descriptor)
                        worker.setblocking(False)
                        with suppress(OSError):
                            worker.send(opened.salt)
                        selector.register(worker, selectors.EVENT_READ, bytearray())
                elif (batch := _read(end, key.data)) is None:
                    selector.unregister(end)
                    end.close()
                elif batch:
                    batches.append((end, batch))
            if batches:
                _commit(opened, batches)
            if opened.seconds_to_checkpoint() == 0.0:
                try:
                    opened.checkpoint()
                except OSError as error:
                    log.error("audit log %s: no checkpoint: %s", opened.path, error)
        for key in list(selector.get_map().values()):
            left: Any = key.fileobj
            left.close()
    control.close()
    opened.close()


def _read(end: socket.socket, held: bytearray) -> bytes | None:
    """Return a batch that is whole, nothing where it is not yet, None where the worker is gone."""
    try:
        part = end.recv(PART)
    except BlockingIOError:
        return b""
    except OSError:
        return None
    held += part
    wanted = int.from_bytes(held[:LENGTH], "big") if len(held) >= LENGTH else 0
    if not part or wanted > MOST_BYTES:
        return None
    if len(held) < LENGTH or len(held) < LENGTH + wanted:
        return b""
    batch = bytes(held[LENGTH : LENGTH + wanted])
    held.clear()
    return batch


def _commit(opened: AuditLog, batches: list[tuple[socket.socket, bytes]]) -> None:
    """Write all batches at once; a worker that sends what only the writer may write is refused."""
    fine = [batch for _, batch in batches if _is_fit(batch)]
    committed = True
    try:
        if fine:
            opened.write(b"".join(fine))
    except OSError as error:
        log.error("audit log %s: %s", opened.path, error)
        committed = False
    for end, batch in batches:
        with suppress(OSError):
            end.send(COMMITTED if committed and _is_fit(batch) else FAILED)


def _is_fit(batch: bytes) -> bool:
    return batch.endswith(b"\n") and CHECKPOINT not in batch
