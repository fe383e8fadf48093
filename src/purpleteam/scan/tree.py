"""Which files there are under a path, and which are left out, with the reason."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from purpleteam.core.digest import canonical_json, sha256_bytes, sha256_file
from purpleteam.core.errors import UsageError

__all__ = ["Tree", "walk"]

CACHES = frozenset(
    {
        *("__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache"),
        *(".hypothesis", ".import_linter_cache"),
    }
)
FOREIGN = {
    ".git": "version control",
    ".hg": "version control",
    ".svn": "version control",
    ".tox": "virtual environments",
    ".nox": "virtual environments",
    "node_modules": "installed packages",
    "site-packages": "installed packages",
}


@dataclass(frozen=True)
class Tree:
    """The files under one path, in order of name; `skipped` is never silent."""

    root: Path
    files: tuple[Path, ...]
    skipped: tuple[tuple[str, str], ...]

    def name(self, path: Path) -> str:
        """Return the file's name in findings: as asked for, below the root's own name if absolute.

        So the same tree has the same names wherever it lies and wherever the scan was started.
        """
        return _named(self.root, path)

    def digest(self) -> str:
        """Return one digest over the names and the digests of all files."""
        base = self.root if self.root.is_dir() else self.root.parent
        listed = {path.relative_to(base).as_posix(): sha256_file(path) for path in self.files}
        return sha256_bytes(canonical_json(listed).encode())


def walk(root: Path) -> Tree:
    """Return the files under `root`, which may be a file; links inside are not followed.

    Raises:
        UsageError: there is no such file or folder.
    """
    if root.is_file():
        return Tree(root, (root,), ())
    if not root.is_dir():
        raise UsageError(f"path {str(root)!r} does not exist")
    files: list[Path] = []
    skipped: list[tuple[str, str]] = []
    caches: Counter[str] = Counter()

    def failed(error: OSError) -> None:
        skipped.append((_named(root, Path(error.filename)), f"cannot be read: {error.strerror}"))

    for folder, names, members in os.walk(root, onerror=failed):
        here = Path(folder)
        caches.update(name for name in names if name in CACHES)
        for name in sorted(set(names) - CACHES):
            if reason := _left_out(here / name):
                skipped.append((_named(root, here / name), reason))
                names.remove(name)
        names[:] = sorted(set(names) - CACHES)
        for name in sorted(members):
            if (here / name).is_symlink() or not (here / name).is_file():
                skipped.append((_named(root, here / name), "a link or no plain file"))
            else:
                files.append(here / name)
    if caches:
        listed = ", ".join(f"{count} {name}" for name, count in sorted(caches.items()))
        skipped.append((_named(root, root), f"caches left out: {listed}"))
    return Tree(root, tuple(files), tuple(sorted(skipped)))


def _left_out(folder: Path) -> str | None:
    if folder.is_symlink():
        return "a link, not followed"
    if (folder / "pyvenv.cfg").is_file():
        return "a virtual environment"
    return FOREIGN.get(folder.name)


def _named(root: Path, path: Path) -> str:
    if not root.is_absolute():
        return path.as_posix()
    return (Path(root.name) / path.relative_to(root)).as_posix()
