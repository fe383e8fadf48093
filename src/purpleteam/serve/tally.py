"""Running totals in memory that workers share, and the day's secret beside them.

Each process adds in a row of its own, without a lock, and whoever is asked sums all rows: what a
worker counted stays when it is killed, so a total never falls.
"""

from __future__ import annotations

import mmap
import os
import secrets
import struct
import sys
import tempfile
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress

if sys.platform == "win32":  # where no processes share a file of totals
    LOCK_EX = LOCK_NB = LOCK_UN = 0

    def lockf(file: int, how: int, length: int = 0, start: int = 0) -> None:
        """Do nothing."""
else:
    from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, lockf

Key = tuple[str, ...]

ROWS = 128  # processes that count at the same time: twice the most workers, as one follows another
HEAD = struct.Struct("=q32s")  # the day since 1970, and its secret
CELLS_AT = 64  # bytes
DAY = 86_400  # seconds


class Tally:
    """A running total for each of some keys."""

    def __init__(self, keys: Sequence[Key], file: int | None = None) -> None:
        """Count in an open file (a number from `new_file`), else in one of its own."""
        self._file = new_file() if file is None else os.dup(file)
        weakref.finalize(self, os.close, self._file)
        self._keys = list(keys)
        size = CELLS_AT + ROWS * len(self._keys) * 8
        if os.fstat(self._file).st_size < size:
            os.truncate(self._file, size)  # with zeros; every process wants the same size
        self._memory = mmap.mmap(self._file, size)
        self.cells = memoryview(self._memory)[CELLS_AT:].cast("d")
        first = self._own_row() * len(self._keys)
        self.places = {key: first + place for place, key in enumerate(self._keys)}
        """Where each key's own total is in `cells`; there a process adds what it counts."""

    def add(self, key: Key, amount: float = 1.0) -> None:
        """Add to the total of a key; what is no key is not counted."""
        if (place := self.places.get(key)) is not None:
            self.cells[place] += amount

    def totals(self) -> dict[Key, float]:
        """Return the sums over all processes, past ones too."""
        import numpy as np  # not for the parent of workers, which sums nothing

        cells = np.frombuffer(self._memory, np.float64, offset=CELLS_AT).reshape(ROWS, -1)
        return dict(zip(self._keys, map(float, cells.sum(axis=0)), strict=True))

    def secret(self) -> bytes:
        """Return 32 bytes that all processes have today (UTC), and nobody from tomorrow on."""
        today = int(time.time()) // DAY
        day, secret = HEAD.unpack_from(self._memory)
        if day != today:
            lockf(self._file, LOCK_EX, 1, ROWS)
            try:
                day, secret = HEAD.unpack_from(self._memory)
                if day != today:  # no other process was faster
                    secret = secrets.token_bytes(32)
                    HEAD.pack_into(self._memory, 0, today, secret)
            finally:
                lockf(self._file, LOCK_UN, 1, ROWS)
        return bytes(secret)

    def _own_row(self) -> int:
        """Take a row that no living process has: a lock ends with whoever holds it."""
        for row in range(ROWS - 1):
            with suppress(OSError):
                lockf(self._file, LOCK_EX | LOCK_NB, 1, row)
                break
        else:
            row = ROWS - 1
        return row


def new_file() -> int:
    """Return the number of an open file, in memory where the system can."""
    if sys.platform == "linux":
        file = os.memfd_create("purpleteam-tally")
    else:
        with tempfile.TemporaryFile() as unnamed:
            file = os.dup(unnamed.fileno())
    return file
