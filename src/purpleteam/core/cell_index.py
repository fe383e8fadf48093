"""Where in a file the cells of a run stand: their records are read when they are asked for.

So a run of a million cells needs memory for their names, not for what they found.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

Line = dict[str, Any]
DIGEST = "sha256:"


class CellIndex:
    """The cells of a file of records, by key; of one that was done again the newest."""

    def __init__(self, path: Path, closes: Callable[[Line], str | None]) -> None:
        """Begin at the file's start; `closes` returns the key of the cell that a line closes."""
        self.path, self.closes = path, closes
        self.end = 0
        """Where the last closing line ends."""
        self.kinds: dict[str, dict[str, None]] = {"failure": {}, "artefact": {}}
        """The keys of the cells that hold a record of those kinds."""
        self._places: dict[bytes, tuple[int, int]] = {}

    def look(self) -> None:
        """Find the cells that were written since."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self.end)
            here, found = self.end, set[str]()
            for raw in file:
                here += len(raw)
                found |= {kind for kind in self.kinds if f'"kind":"{kind}"'.encode() in raw}
                if b'"kind":"note"' not in raw or b'"name":"cell"' not in raw:
                    continue
                if not raw.endswith(b"\n") or (key := self.closes(json.loads(raw))) is None:
                    continue
                self._places[_packed(key)] = (self.end, here)
                for kind, keys in self.kinds.items():
                    keys.pop(key, None)
                    if kind in found:
                        keys[key] = None
                self.end, found = here, set()

    def __contains__(self, key: str) -> bool:
        return _packed(key) in self._places

    def get(self, key: str) -> list[Line] | None:
        """Return the lines of a cell less the closing one; None where it is not there."""
        return self.several([key]).get(key)

    def several(self, keys: list[str]) -> dict[str, list[Line]]:
        """Return the lines of those cells that are there, by key, read in one go."""
        known = {key: self._places[_packed(key)] for key in keys if key in self}
        told: dict[str, list[Line]] = {}
        if known:
            with self.path.open("rb") as file:
                for key, (start, end) in known.items():
                    file.seek(start)
                    lines = file.read(end - start).splitlines()
                    told[key] = [json.loads(line) for line in lines[:-1]]
        return told

    def __iter__(self) -> Iterator[str]:
        return map(_key, self._places)


class Journal:
    """Cells that are done and not among the records yet: a line each, whole or not at all."""

    def __init__(self, path: Path) -> None:
        """Find the cells that a file holds; what was written half is cut off."""
        self.path, self._places = path, dict[str, tuple[int, int]]()
        self._file: BinaryIO | None = None
        here = 0
        if path.exists():
            with path.open("rb") as file:
                for raw in file:
                    if raw.endswith(b"\n"):
                        self._places[json.loads(raw)[0]] = (here, len(raw))
                        here += len(raw)
            os.truncate(path, here)
        self._end = here

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def leave(self, key: str, lines: list[Line]) -> None:
        """Add a cell, its records in their JSON form."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab")
        raw = json.dumps([key, lines]).encode() + b"\n"
        self._file.write(raw)
        self._file.flush()
        self._places[key] = (self._end, len(raw))
        self._end += len(raw)

    def several(self, keys: list[str]) -> dict[str, list[Line]]:
        """Return the records of cells by key."""
        told: dict[str, list[Line]] = {}
        if keys:
            with self.path.open("rb") as file:
                for key in keys:
                    start, size = self._places[key]
                    file.seek(start)
                    told[key] = json.loads(file.read(size))[1]
        return told

    def forget(self, keys: list[str]) -> None:
        """Leave cells out that stand elsewhere now; the file is emptied when none is left."""
        for key in keys:
            del self._places[key]
        if not self._places and self._end:
            os.truncate(self.path, 0)
            self._end = 0

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _packed(key: str) -> bytes:
    """Return a key in half of the memory."""
    packed = key.encode()
    if key.startswith(DIGEST):
        with suppress(ValueError):
            packed = bytes.fromhex(key.removeprefix(DIGEST))
    return packed if _key(packed) == key else key.encode()


def _key(packed: bytes) -> str:
    return DIGEST + packed.hex() if len(packed) == 32 else packed.decode()
