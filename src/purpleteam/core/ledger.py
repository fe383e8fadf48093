"""An append-only file of JSON lines, hash-chained, that survives a crash in mid-line.

Each line carries `chain`: the SHA-256 over the chain value of the line before and the line's
own canonical JSON. So an edited, removed or reordered line is found; a torn last line, as a
kill leaves it, is told apart from damage and cut off when the file is opened for more. That
lines are missing at the end shows only beside the `head` that was noted when they were there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from purpleteam.core.digest import canonical_json, sha256_bytes
from purpleteam.core.errors import RunError

__all__ = ["Ledger"]

GENESIS = "sha256:" + 64 * "0"


class _Line(NamedTuple):
    content: dict[str, Any]
    chain: str
    end: int
    """Where the line ends in the file, in bytes."""


class Ledger:
    """The lines of one file; `append` writes whole batches, `read` verifies the chain."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._last: str | None = None

    def read(self) -> list[dict[str, Any]]:
        """Return all whole lines; a broken chain is a RunError, a torn last line is left out."""
        return [line.content for line in self._scan()]

    def head(self) -> dict[str, Any]:
        """Return how many lines there are and the chain value of the last, which names them all."""
        lines = self._scan()
        return {"lines": len(lines), "chain": lines[-1].chain if lines else GENESIS}

    def append(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Add the lines in one write, flushed to the disk before this returns."""
        if self._last is None:
            self._last = self._cut_torn_tail()
        text, last = b"", self._last
        for line in lines:
            last = _chain(last, line)
            text += _written(line, last)
        self._last = None  # a write that fails half way leaves a torn tail to cut
        with self.path.open("ab") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        self._last = last

    def keep(self, count: int) -> None:
        """Cut the file back to its first `count` lines: what a killed cell left half done."""
        lines = self._scan()[:count]
        self._last = None
        with self.path.open("rb+") as file:
            file.truncate(lines[-1].end if lines else 0)

    def _scan(self) -> list[_Line]:
        lines: list[_Line] = []
        if not self.path.exists():
            return lines
        last, end = GENESIS, 0
        *whole, torn = self.path.read_bytes().split(b"\n")
        for number, raw in enumerate(whole, 1):
            end += len(raw) + 1
            content = self._content(raw, last, number)
            last = _chain(last, content)
            lines.append(_Line(content, last, end))
        if torn.endswith(b"}", 0, -1) and _parsed(torn[:-1]) is not None:
            # A kill leaves the beginning of a line; a whole one that ends otherwise was edited.
            raise RunError(f"{self.path}: line {len(lines) + 1} is damaged")
        return lines

    def _content(self, raw: bytes, last: str, number: int) -> dict[str, Any]:
        content = _parsed(raw)
        if content is None or "chain" not in content:
            raise RunError(f"{self.path}: line {number} is damaged")
        claimed = content.pop("chain")
        if raw + b"\n" != _written(content, claimed) or claimed != _chain(last, content):
            raise RunError(f"{self.path}: the hash chain breaks at line {number}")
        return content

    def _cut_torn_tail(self) -> str:
        lines = self._scan()
        if self.path.exists():
            with self.path.open("rb+") as file:
                file.truncate(lines[-1].end if lines else 0)
        return lines[-1].chain if lines else GENESIS


def _parsed(raw: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(raw)
        canonical_json(content)  # 1e999 is read as infinity, which cannot be written
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _written(line: Mapping[str, Any], chain: str) -> bytes:
    return canonical_json({**line, "chain": chain}).encode() + b"\n"


def _chain(before: str, line: Mapping[str, Any]) -> str:
    return sha256_bytes(before.encode(), canonical_json(line).encode())
