"""An append-only file of JSON lines, hash-chained, that survives a crash in mid-line.

`chain` of a line is the SHA-256 over that of the line before and its own canonical JSON: an edited,
removed or reordered line shows. Missing lines at the end show only beside a `head` noted before.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from purpleteam.core.digest import canonical_json, sha256_bytes
from purpleteam.core.errors import RunError

GENESIS = "sha256:" + 64 * "0"


@dataclass
class Look:
    """What a file holds that may be damaged."""

    lines: list[dict[str, Any]] = field(default_factory=list)  # of each line that can be read
    ends: list[int] = field(default_factory=list)  # where each of them ends in the file, in bytes
    count: int = 0  # of the lines that can be read, kept here or not
    end: int = 0  # where the last of them ends
    chain: str = GENESIS  # the chain value that the last one claims, which names them all
    damage: list[str] = field(default_factory=list)  # what is wrong; none: the chain is whole
    torn: list[str] = field(default_factory=list)  # of a last line that was not written to its end

    @property
    def head(self) -> dict[str, Any]:
        """How many lines there are, and the chain value of the last."""
        return {"lines": self.count, "chain": self.chain}


class Ledger:
    """The lines of one file; `append` writes whole batches, `read` verifies the chain."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: Look | None = None  # what was verified, or written here

    def read(self) -> list[dict[str, Any]]:
        """Return all whole lines; a broken chain is a RunError, a torn last line is left out."""
        return self._undamaged().lines

    def head(self) -> dict[str, Any]:
        """Return how many lines there are and the chain value of the last, which names them all."""
        return self._verified().head

    def append(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Add the lines in one write, flushed to the disk before this returns."""
        look = self._verified()
        if look.torn:
            os.truncate(self.path, look.end)
        parts, last = list[bytes](), look.chain
        for line in lines:
            last = _chain(last, line)
            parts.append(_written(line, last))
        self._known = None  # a write that fails half way leaves a torn tail to cut
        written = b"".join(parts)
        with self.path.open("ab") as file:
            file.write(written)
            file.flush()
            os.fsync(file.fileno())
        end = look.end + len(written)
        self._known = Look(count=look.count + len(parts), end=end, chain=last)

    def keep(self, count: int) -> None:
        """Cut the file back to its first `count` lines: what a killed cell left half done."""
        ends = self._undamaged().ends[:count]
        self._known = None
        os.truncate(self.path, ends[-1] if ends else 0)

    def cut(self, end: int) -> None:
        """Cut the file back to where a line ends: what a killed cell left half done."""
        if self.path.exists() and self.path.stat().st_size > end:
            self._known = None
            os.truncate(self.path, end)

    def look(self, *, kept: bool = True) -> Look:
        """Read a file that may be damaged: what is left of it, and all that is wrong.

        After a line that was edited the chain is followed from what that line claims. Of many lines
        not `kept` only the count, the end and the chain are told.
        """
        look, end, torn, number = Look(), 0, b"", 0
        for line in _lines(self.path):
            if not line.endswith(b"\n"):
                torn = line
                break
            number, raw = number + 1, line[:-1]
            end += len(line)
            follows, content = _follows(raw, look.chain), _loaded(raw)
            if follows is None or content is None:
                look.damage.append(f"{self.path}: line {number} is damaged")
                continue
            if not follows:
                look.damage.append(f"{self.path}: the hash chain breaks at line {number}")
            look.chain = content.pop("chain")
            look.count, look.end = look.count + 1, end
            if kept:
                look.lines.append(content)
                look.ends.append(end)
        if torn.endswith(b"}", 0, -1) and _parsed(torn[:-1]) is not None:
            # A kill leaves the beginning of a line; a whole one that ends otherwise was edited.
            look.damage.append(f"{self.path}: line {number + 1} is damaged")
        if torn:
            look.torn = [f"{self.path}: line {look.count + 1} is torn"]
        return look

    def _verified(self) -> Look:
        """Return the count, the end and the chain; read again only where the size has changed."""
        size = self.path.stat().st_size if self.path.exists() else 0
        if self._known is None or self._known.end != size:
            self._known = self._undamaged(kept=False)
        return self._known

    def _undamaged(self, *, kept: bool = True) -> Look:
        if (look := self.look(kept=kept)).damage:
            raise RunError(look.damage[0])
        return look


def _lines(path: Path) -> Iterator[bytes]:
    if path.exists():
        with path.open("rb") as file:
            yield from file


def end_differs(ended: object, head: Mapping[str, Any]) -> str:
    """Say how a file's head differs from the head that was noted at its end."""
    if ended is None or ended == head:
        return ""
    if not isinstance(ended, Mapping) or set(ended) != set(head):
        return f"run.json names an end of the records that cannot be read: {str(ended)[:60]!r}"
    if ended["lines"] != head["lines"]:
        return f"run.json tells of {ended['lines']} lines, records.jsonl holds {head['lines']}"
    return (
        f"run.json ends the chain with {str(ended['chain'])[:19]}, records.jsonl with "
        f"{head['chain'][:19]}: a line was changed and the chain written anew"
    )


@lru_cache(1 << 14)  # a run reads its records again and again
def _follows(raw: bytes, before: str) -> bool | None:
    """Return whether a line is as it was written after that chain value; None: it is none."""
    content = _parsed(raw)
    if content is None or not isinstance(claimed := content.pop("chain", None), str):
        return None
    return raw + b"\n" == _written(content, claimed) and claimed == _chain(before, content)


def _parsed(raw: bytes) -> dict[str, Any] | None:
    content = _loaded(raw)
    try:
        canonical_json(content)  # 1e999 is read as infinity, which cannot be written
    except (ValueError, RecursionError):
        return None
    return content


def _loaded(raw: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _written(line: Mapping[str, Any], chain: str) -> bytes:
    return canonical_json({**line, "chain": chain}).encode() + b"\n"


def _chain(before: str, line: Mapping[str, Any]) -> str:
    return sha256_bytes(before.encode(), canonical_json(line).encode())
