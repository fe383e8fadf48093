"""Who else could exchange data, models and records: the permissions of files and their folders.

Of a POSIX system, for the account that looks. Whoever may write a folder may exchange what is in
it, so every folder above counts too, but one whose sticky bit keeps others' files from them.
"""

import os
import stat
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import ClassVar

from purpleteam.core.cards import FORMATS
from purpleteam.core.checks import CHECKS, Check, Outcome, Target
from purpleteam.core.digest import sha256_file
from purpleteam.core.errors import Absent

MANY = 3  # places that are told
ROOT = 0


class StorageCheck(Check):
    """Nobody but the account and root can change what lies at a path."""

    part: ClassVar[str]  # of the target

    def examine(self, target: Target) -> Outcome:
        if os.name != "posix":
            raise Absent("permissions are looked at on POSIX systems alone")
        wrong, count = list[str](), 0
        where: Path = getattr(target, self.part)
        for path in (*_within(where), *where.resolve().parents):
            count += 1
            if why := _writable(path):
                wrong.append(f"{path.name or path}: {why}")
        rest = f"; and {len(wrong) - MANY} more" if len(wrong) > MANY else ""
        return Outcome(
            passed=not wrong,
            measured={"files and folders": count, "others can write": len(wrong)},
            threshold={"others can write": 0},
            message="; ".join(wrong[:MANY]) + rest,
            inputs=self.inputs(target),
        )

    def inputs(self, target: Target) -> dict[str, str]:
        """Return the digests of what was looked at."""
        return {}

    def bad_example(self, folder: Path) -> Target:
        """A file that everybody may write."""
        (folder / "file").touch()
        (folder / "file").chmod(0o666)
        return Target(**{self.part: folder})  # type: ignore[arg-type]


@CHECKS.register("run.storage")
class RunStorage(StorageCheck):
    """Nobody but the account that ran it, and root, can change a file of the run."""

    part, needs = "run", ("run",)


@CHECKS.register("model.storage")
class ModelStorage(StorageCheck):
    """Nobody but the account that looks, and root, can exchange the model files."""

    part, needs = "model", ("model",)

    def inputs(self, target: Target) -> dict[str, str]:
        files = (path for path in _within(target.model or Path()) if path.is_file())
        return {path.name: sha256_file(path) for path in files}


@CHECKS.register("data.storage")
class DataStorage(StorageCheck):
    """Nobody but the account that looks, and root, can change the data."""

    part, needs = "data", ("data",)

    def inputs(self, target: Target) -> dict[str, str]:
        return dict(target.data_digests)


def _within(path: Path) -> Iterator[Path]:
    """Yield what lies at a path, or at the stem of a model."""
    files = [path] if path.exists() else [path.with_name(path.name + end) for end in FORMATS]
    for file in files:
        if file.exists():
            yield file
            yield from file.rglob("*") if file.is_dir() else ()


def _writable(path: Path) -> str:
    """Return how others can write there; empty where they cannot."""
    about = path.lstat()
    mode = about.st_mode
    if stat.S_ISLNK(mode):  # its own permissions say nothing, and its folder is looked at
        return ""
    if about.st_uid not in (os.geteuid(), ROOT):
        return f"it belongs to another account ({about.st_uid})"
    if stat.S_ISDIR(mode) and mode & stat.S_ISVTX:
        return ""
    if mode & stat.S_IWOTH:
        return "everybody can write it; chmod o-w"
    if mode & stat.S_IWGRP and _shared(about.st_gid, about.st_uid):
        return f"its group ({about.st_gid}) can write it; chmod g-w"
    return ""


@cache
def _shared(group: int, owner: int) -> bool:
    """Say whether anybody but the owner and root is in a group."""
    import grp
    import pwd

    try:
        members = {pwd.getpwnam(name).pw_uid for name in grp.getgrgid(group).gr_mem}
    except KeyError:  # a group, or a member, that this machine does not know
        return True
    members |= {account.pw_uid for account in pwd.getpwall() if account.pw_gid == group}
    return bool(members - {owner, ROOT})
