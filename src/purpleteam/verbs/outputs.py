"""Where `--out` points: refused before the work when it cannot be written."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from purpleteam.core.errors import UsageError


def file_to_write(path: Path | str | None) -> Path | None:
    """Return the path of a file that can be written, its folder made; None stays None."""
    if path is None:
        return None
    if Path(path).is_dir():
        raise UsageError(f"cannot write {str(path)!r}: it is a folder")
    folder_to_write(Path(path).parent, Path(path))
    return Path(path)


def stem_to_write(path: Path | str | None, name: str) -> Path:
    """Return where a model's files go: `path`, inside it where it is a folder, or models/NAME."""
    stem = Path("models") / name if path is None else Path(path)
    stem = stem / name if path is not None and stem.is_dir() else stem
    folder_to_write(stem.parent, stem)
    return stem


def folder_to_write(folder: Path | str, path: Path | str | None = None) -> Path:
    """Return the path of a folder that can be written into, made; errors name `path` in it."""
    folder, named = Path(folder), str(path or folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write {named!r}: {error.strerror}") from None
    if not os.access(folder, os.W_OK):
        raise UsageError(f"cannot write {named!r}: no permission")
    return folder


def write_answer(path: Path, values: Mapping[str, Any]) -> None:
    """Write what --json prints to a file."""
    path.write_text(json_text(values, indent=1) + "\n", encoding="utf-8")


def json_text(values: Mapping[str, Any], indent: int | None = None) -> str:
    """Return one JSON object; what is no Unicode in the name of a file stays as an escape."""
    text = json.dumps(values, ensure_ascii=False, indent=indent)
    return text.encode("utf-8", "backslashreplace").decode()
