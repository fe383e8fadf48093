"""Where `--out` points: refused before the work when it cannot be written."""

from __future__ import annotations

import os
from pathlib import Path

from purpleteam.core.errors import UsageError

__all__ = ["file_to_write", "folder_to_write", "stem_to_write"]


def file_to_write(path: Path | None) -> Path | None:
    """Return the path of a file that can be written, its folder made; None stays None."""
    if path is not None:
        if path.is_dir():
            raise UsageError(f"cannot write {str(path)!r}: it is a folder")
        _ready(path.parent, path)
    return path


def folder_to_write(path: Path) -> Path:
    """Return the path of a folder that can be written into, made."""
    _ready(path, path)
    return path


def stem_to_write(path: Path | None, name: str) -> Path:
    """Return where a model's files go: `path`, inside it where it is a folder, or models/NAME."""
    stem = Path("models") / name if path is None else path / name if path.is_dir() else path
    _ready(stem.parent, stem)
    return stem


def _ready(folder: Path, path: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write {str(path)!r}: {error.strerror}") from None
    if not os.access(folder, os.W_OK):
        raise UsageError(f"cannot write {str(path)!r}: no permission")
