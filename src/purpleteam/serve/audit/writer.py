"""The one writer of a log, and how workers reach it: lines go there, an answer comes back.

    writer = start_writer(path, checkpoint_seconds)       a thread: for a server of one process
    writer = start_writer(path, ..., process=True)        a forked process: for a supervisor
    end = writer.connect()                                once for each worker, each time it starts
    client = AuditClient(end)                             in the worker
    if not await client.append({"kind": "predict", ...}): refuse

A supervisor starts the writer before it listens and before its first thread, hands each worker an
`end` (`pass_fds`), and closes its own copy of that. A worker that is killed needs nothing: the next
one gets a new `connect()`. A writer is readable (`fileno`) once it is gone, `alive()` is False then
and all appends say False: start another, then the workers anew. The writer ends, with a last
checkpoint, when `close` was called and all workers are gone; it hears no SIGINT or SIGTERM before.

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
from pathlib import Path
from typing import Any

from purpleteam.core.errors import PurpleError
from purpleteam.serve.audit.log import CHECKPOINT, AuditLog, encoded, log

COMMITTED, FAILED = b"+", b"-"
LENGTH = 4  # bytes that say how long a batch is
SALT = 32  # bytes that a worker gets first
SECONDS = 10.0  # that the writer may take to begin, and to end
MOST_BYTES = 1 << 26  # of a batch
PART = 1 << 20


class AuditClient:
    """One worker's way to the writer. It belongs to the event loop that appends first."""

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
        self._gone = False
        self.failures = 0
        """How many records could not be written."""

    def digest(self, body: bytes) -> str:
        """Return a keyed digest (BLAKE2b, RFC 7693): without the key no guess can be confirmed."""
        return blake2b(body, key=self._salt, digest_size=16).hexdigest()

    def append(self, record: Mapping[str, Any]) -> asyncio.Future[bool]:
        """Send a record; True once it is on the disk, False where it could not be written."""
        loop = self._loop or self._attach()
        committed = loop.create_future()
        if self._gone:
            self.failures += 1
            committed.set_result(False)
            return committed
        if not self._next and not self._sent:
            loop.call_soon(self._send)  # with all that come in the same turn of the loop
        self._lines.append(encoded(dict(record)))
        self._next.append(committed)
        return committed

    def close(self) -> None:
        """Leave the writer; records that were not answered count as failed."""
        if not self._gone:
            self._gone = True
            if self._loop is not None and not self._loop.is_closed():
                self._loop.remove_reader(self._end)
                self._loop.remove_writer(self._end)
            self._end.close()
            self._sent += self._next
            self._next = []
            self._settle(False)

    def _attach(self) -> asyncio.AbstractEventLoop:
        self._loop = asyncio.get_running_loop()
        if not self._gone:
            self._loop.add_reader(self._end, self._answered)
        return self._loop

    def _send(self) -> None:
        if self._gone:
            return
        batch = b"".join(self._lines)
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
        if self._next:
            self._send()

    def _settle(self, committed: bool) -> None:
        sent, self._sent = self._sent, []
        for future in sent:
            if not future.done():
                future.set_result(committed)
        if not committed:
            self.failures += len(sent)


class Writer:
    """A writer that was started: what a supervisor holds of it."""

    def __init__(self, control: socket.socket, runs: threading.Thread | int) -> None:
        self._control, self._runs = control, runs
        self.pid = runs if isinstance(runs, int) else None

    def connect(self) -> socket.socket:
        """Return the end of a connection, for one worker; an OSError where the writer is gone."""
        near, far = socket.socketpair()
        with far:
            socket.send_fds(self._control, [b"+"], [far.fileno()])
        return near

    def fileno(self) -> int:
        """Return what a selector finds readable when the writer is gone."""
        return self._control.fileno()

    def alive(self) -> bool:
        """Return whether the writer is still there."""
        try:
            return bool(self._control.recv(1, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def close(self) -> None:
        """Let the writer end once all workers are gone, and wait for it."""
        self._control.close()
        if isinstance(self._runs, threading.Thread):
            self._runs.join(SECONDS)
            return
        until = time.monotonic() + SECONDS
        while os.waitpid(self._runs, os.WNOHANG) == (0, 0) and time.monotonic() < until:
            time.sleep(0.005)


def start_writer(path: Path, checkpoint_seconds: float = 10.0, *, process: bool = False) -> Writer:
    """Open a log and start its writer; what keeps it from being opened is raised here."""
    opened = AuditLog(path, checkpoint_seconds)
    near, far = socket.socketpair()
    if not process:
        thread = threading.Thread(target=write_all, args=(opened, far), daemon=True, name="audit")
        thread.start()
        return Writer(near, thread)
    child = os.fork()
    if child:
        far.close()
        opened.leave()
        return Writer(near, child)
    code = 1
    try:
        near.close()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        write_all(opened, far)
        code = 0
    finally:
        os._exit(code)


def write_all(opened: AuditLog, control: socket.socket) -> None:
    """Commit what workers send until `control` is closed and they are all gone."""
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while selector.get_map():
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
