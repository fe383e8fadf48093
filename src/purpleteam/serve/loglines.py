"""Lines of a log, written by a thread: no request waits for a disk or for whoever reads a pipe."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time

from purpleteam.core.errors import UsageError

MOST_WAITING = 20_000  # lines; further ones are dropped, and their number is told
WRITE_SECONDS = 0.05  # between two writes: one takes the lines of many requests
log = logging.getLogger("purpleteam.serve")


class LogLines:
    """Lines for standard error (`-`) or the end of a file, which only its owner may read."""

    def __init__(self, place: str) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        try:
            self._file = os.dup(2) if place == "-" else os.open(place, flags, 0o600)
        except OSError as error:
            reason = (error.strerror or "refused").lower()
            raise UsageError(f"watch.log: cannot write to {place!r}: {reason}") from None
        self._waiting: list[str] = []
        self._dropped = 0
        self._more, self._writing, self._ended = threading.Event(), threading.Lock(), False
        atexit.register(self.close)

    def start(self) -> None:
        """Begin to write; call it once confined: a thread from before would not be."""
        threading.Thread(target=self._write_on, name="log", daemon=True).start()

    def add(self, line: str) -> None:
        """Have a line written, soon."""
        if len(self._waiting) >= MOST_WAITING:
            self._dropped += 1
            return
        self._waiting.append(line)
        if len(self._waiting) == 1:
            self._more.set()

    def close(self) -> None:
        """Write what waits, and end."""
        atexit.unregister(self.close)
        with self._writing:
            if not self._ended:
                self._ended = True
                self._write()
                os.close(self._file)
        self._more.set()

    def _write_on(self) -> None:
        while self._more.wait() and not self._ended:
            self._more.clear()
            time.sleep(WRITE_SECONDS)
            with self._writing:
                if not self._ended:
                    self._write()

    def _write(self) -> None:
        lines, self._waiting = self._waiting, []
        dropped, self._dropped = self._dropped, 0
        if dropped:
            lines.append(f'{{"dropped": {dropped}}}')
        content = "".join(f"{line}\n" for line in lines).encode()
        try:
            while content:
                content = content[os.write(self._file, content) :]
        except OSError as error:
            log.error("the log cannot be written: %s", error.strerror)
