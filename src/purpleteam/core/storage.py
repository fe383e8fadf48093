"""Who else could exchange data, models and records: the permissions of files and their folders.

Of a POSIX system, for the account that looks. Whoever may write a folder may exchange what is in
it, so every folder above counts too, but one whose sticky bit keeps others' files from them.
"""

import os
import stat
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from purpleteam.core.cards import FORMATS
from purpleteam.core.checks import CHECKS, Check, Outcome, Target
from purpleteam.core.digest import sha256_file
from purpleteam.core.errors import Absent
from purpleteam.core.verification import part_of

ROOT = 0


class StorageCheck(Check):
    """Nobody but the account and root can change what lies at a path."""

    def examine(self, target: Target) -> Outcome:
        if os.name != "posix":
            raise Absent("permissions are looked at on POSIX systems alone")
        path: Path = getattr(target, *self.needs)
        inside = list(_within(path))
        places = [(place, _writable(place)) for place in (*inside, *path.resolve().parents)]
        wrong = [f"{place.name or place}: {why}" for place, why in places if why]
        inputs = dict(target.data_digests)
        if "model" in self.needs:
            inputs = {file.name: sha256_file(file) for file in inside if file.suffix in FORMATS}
        return Outcome(
            passed=not wrong,
            measured={"others can write": len(wrong)},
            threshold={"others can write": 0},
            message=part_of("", wrong, "").message,
            inputs=inputs,
        )

    def bad_example(self, folder: Path) -> Target:
        """A file that everybody may write."""
        (folder / "file").touch()
        (folder / "file").chmod(0o666)
        return Target(**dict.fromkeys(self.needs, folder))  # type: ignore[arg-type]


@CHECKS.register("run.storage")
class RunStorage(StorageCheck):
    """Nobody but the account that ran it, and root, can change a file of the run."""

    needs = ("run",)


@CHECKS.register("model.storage")
class ModelStorage(StorageCheck):
    """Nobody but the account that looks, and root, can exchange the model files."""

    needs = ("model",)


@CHECKS.register("data.storage")
class DataStorage(StorageCheck):
    """Nobody but the account that looks, and root, can change the data."""

    needs = ("data",)


def _within(path: Path) -> Iterator[Path]:
    """Yield what lies at a path, or at the stem of a model."""
    for file in [path] if path.exists() else [path.with_name(path.name + end) for end in FORMATS]:
        if file.exists():
            yield file
            yield from sorted(file.rglob("*"))


def _writable(path: Path) -> str:
    """Return how others can write there; empty where they cannot."""
    about = path.lstat()
    mode = about.st_mode
    if about.st_uid not in (os.geteuid(), ROOT):
        return f"it belongs to another account ({about.st_uid})"
    if stat.S_ISLNK(mode) or (stat.S_ISDIR(mode) and mode & stat.S_ISVTX):
        return ""  # a link's own permissions say nothing: its folder is looked at
    if mode & stat.S_IWOTH:
        return "everybody can write it; chmod o-w"
    shared = mode & stat.S_IWGRP and _shared(about.st_gid, about.st_uid)
    return f"its group ({about.st_gid}) can write it; chmod g-w" if shared else ""


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
