"""A file as bytes, without reading what nobody asks for."""

from __future__ import annotations

import mmap
from pathlib import Path

__all__ = ["mapped"]


def mapped(path: Path) -> memoryview:
    """Return the bytes of a file, mapped into memory once: every reader sees the same ones."""
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
