"""An append-only file of JSON lines, hash-chained, that survives a crash in mid-line.

Each line carries `chain`: the SHA-256 over the chain value of the line before and the line's
own canonical JSON. So an edited, removed or reordered line is found; a torn last line, as a
kill leaves it, is told apart from damage and cut off when the file is opened for more.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from purpleteam.core.digest import canonical_json, sha256_bytes
from purpleteam.core.errors import RunError

__all__ = ["Ledger"]

GENESIS = "sha256:" + 64 * "0"


class Ledger:
    """The lines of one file; `append` writes whole batches, `read` verifies the chain."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._last: str | None = None

    def read(self) -> list[dict[str, Any]]:
        """Return all whole lines; a broken chain is a RunError, a torn last line is left out."""
        return self._scan()[0]

    def append(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Add the lines in one write, flushed to the disk before this returns."""
        if self._last is None:
            self._last = self._cut_torn_tail()
        text, last = "", self._last
        for line in lines:
            last = _chain(last, line)
            text += canonical_json({**line, "chain": last}) + "\n"
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        self._last = last

    def keep(self, count: int) -> None:
        """Cut the file back to its first `count` lines: what a killed cell left half done."""
        _, ends = self._scan()
        with self.path.open("rb+") as file:
            file.truncate(ends[count - 1] if count else 0)
        self._last = None

    def _scan(self) -> tuple[list[dict[str, Any]], list[int]]:
        lines: list[dict[str, Any]] = []
        ends: list[int] = []
        if not self.path.exists():
            return lines, ends
        last, position = GENESIS, 0
        for number, raw in enumerate(self.path.read_bytes().splitlines(keepends=True), 1):
            if not raw.endswith(b"\n"):
                break
            position += len(raw)
            try:
                line = json.loads(raw)
                claimed = line.pop("chain")
            except (ValueError, KeyError, AttributeError, TypeError):
                raise RunError(f"{self.path}: line {number} is damaged") from None
            last = _chain(last, line)
            if last != claimed:
                raise RunError(f"{self.path}: the hash chain breaks at line {number}")
            lines.append(line)
            ends.append(position)
        return lines, ends

    def _cut_torn_tail(self) -> str:
        lines, ends = self._scan()
        if self.path.exists():
            with self.path.open("rb+") as file:
                file.truncate(ends[-1] if ends else 0)
        last = GENESIS
        for line in lines:
            last = _chain(last, line)
        return last


def _chain(before: str, line: Mapping[str, Any]) -> str:
    return sha256_bytes(before.encode(), canonical_json(line).encode())
