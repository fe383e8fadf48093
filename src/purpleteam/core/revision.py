"""Which code ran: the commit, or the wheel, that it came from, and what of it is otherwise.

Whoever owns a checkout also writes its configuration, and may name programs in it. None is read:
`.git` is read as files, and its objects by a git that is given an empty repository beside them.
"""

import base64
import hashlib
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata, resources
from json import loads
from pathlib import Path
from typing import Any

from purpleteam.core.address import without_secrets
from purpleteam.core.digest import canonical_json, sha256_bytes

COMMIT, REF = re.compile(r"[0-9a-f]{40}"), re.compile(r"refs/(?!.*\.\.)[\w./+@-]+")
SECONDS = 20  # that git may take
MANY = 20  # changed files that are named


@dataclass(frozen=True, kw_only=True)
class Revision:
    """The code of a package: what it is, where it came from, and what differs from that."""

    digest: str = ""  # of names and contents of all its files, as a scan of the folder has it
    commit: str = ""  # of its checkout, or the one that pip built; empty: none is known
    wheel: str = ""  # digest of the names and contents that its RECORD lists; empty: no wheel
    origin: str = ""  # where pip got it, where that was no index and no folder (PEP 610)
    changed: tuple[str, ...] = ()  # files that are not those of the commit, or of the wheel
    differ: int | None = None  # how many there are; None: it cannot be told

    def __str__(self) -> str:
        named = f"commit {self.commit}" if self.commit else f"wheel {self.wheel}"
        if not (self.commit or self.wheel):
            return f"no known revision, files {self.digest}"
        if self.differ is None:
            return f"{named}, whether anything is changed is not known"
        return f"{named}, {self.differ} files changed" if self.differ else f"{named}, unchanged"

    @property
    def known(self) -> bool:
        """Whether it is named, and nothing is changed."""
        return bool(self.commit or self.wheel) and self.differ == 0

    @classmethod
    def all_of(cls, info: Mapping[str, Any]) -> "list[Revision]":
        """Return each revision that a `run.json` names."""
        told = [one for one in info.get("code") or () if isinstance(one, dict)]
        return [
            cls(**{**one, "changed": tuple(one.get("changed", ()))})
            for one in ({key: one[key] for key in one.keys() & asdict(cls())} for one in told)
        ]


@cache
def revision() -> dict[str, Any]:
    """Return the revision of this process's own code, as plain JSON, as it was when first asked."""
    return asdict(revision_of(Path(str(resources.files("purpleteam")))))


def revision_of(package: Path) -> Revision:
    """Return the revision of an importable package's folder."""
    files = {
        path.relative_to(package).as_posix(): path.read_bytes()
        for path in sorted(package.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    there = {name: sha256_bytes(content) for name, content in files.items()}
    facts: dict[str, Any] = {"digest": sha256_bytes(canonical_json(there).encode())}
    wanted: Mapping[str, str] | None = None
    if commit := _checkout(package):
        facts["commit"], wanted = commit
        there = {name: _blob(content) for name, content in files.items()}
    elif wheel := _installed(package):
        wanted, installed = wheel
        facts |= {"wheel": sha256_bytes(canonical_json(wanted).encode()), **installed}
    if wanted is not None:
        names = sorted(wanted.keys() | there)
        differ = [name for name in names if wanted.get(name) != there.get(name)]
        facts |= {"changed": tuple(differ[:MANY]), "differ": len(differ)}
    return Revision(**facts)


def _checkout(package: Path) -> tuple[str, Mapping[str, str] | None] | None:
    """Return the commit that a package is in, with its blobs by name; None where it is in none."""
    package = package.resolve()
    root = next((root for root in package.parents if (root / ".git").exists()), None)
    if root is None:
        return None
    folder = root / ".git"
    with suppress(OSError, ValueError):
        if folder.is_file():  # a work tree beside others
            folder = root / _text(folder).removeprefix("gitdir: ")
        common = folder / _text(folder / "commondir") if (folder / "commondir").exists() else folder
        head = _text(folder / "HEAD")
        if name := head.removeprefix("ref: ") if head.startswith("ref: ") else "":
            packed, kept = common / "packed-refs", common / name
            lines = _text(packed).splitlines() if packed.is_file() else []
            head = next((line[:40] for line in lines if line[40:] == f" {name}"), "")
            head = _text(kept) if REF.fullmatch(name) and kept.is_file() else head
        if COMMIT.fullmatch(head):
            blobs = _blobs(common / "objects", head, package.relative_to(root).as_posix())
            return None if blobs == {} else (head, blobs)  # installed within a tree
    return None


def _blobs(objects: Path, commit: str, folder: str) -> Mapping[str, str] | None:
    """Return the id of each file that a commit has in a folder; None where git cannot tell."""
    import shutil
    import subprocess
    import tempfile

    git = shutil.which("git")
    with tempfile.TemporaryDirectory(prefix="purple-git-") as empty:
        for name in ("objects", "refs"):
            (Path(empty) / name).mkdir()
        (Path(empty) / "HEAD").write_text("ref: refs/heads/none\n", "utf-8")
        settings = {"GIT_OBJECT_DIRECTORY": str(objects), "GIT_CONFIG_GLOBAL": os.devnull}
        settings |= {"GIT_CONFIG_NOSYSTEM": "1", "PATH": os.environ.get("PATH", os.defpath)}
        asked = ["ls-tree", "-rz", "--full-tree", commit, f"{folder}/"]
        how: dict[str, Any] = {"env": settings, "timeout": SECONDS, "stdin": subprocess.DEVNULL}
        try:
            told = subprocess.check_output(  # noqa: S603 - a commit by its digits, no shell
                [git or "git", f"--git-dir={empty}", *asked], stderr=subprocess.DEVNULL, **how
            )
        except (OSError, subprocess.SubprocessError):
            return None
    rows = [row.split("\t", 1) for row in os.fsdecode(told).split("\0") if row]
    return {name[len(folder) + 1 :]: about.split(" ")[2] for about, name in rows}


def _blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _installed(package: Path) -> tuple[Mapping[str, str], dict[str, str]] | None:
    """Return what a wheel's RECORD says of a package's files, and what pip says of the wheel."""
    with suppress(metadata.PackageNotFoundError, OSError, ValueError, LookupError):
        told = metadata.distribution(package.name)
        files = {
            file.relative_to(package.name).as_posix(): (
                f"sha256:{base64.urlsafe_b64decode(f'{file.hash.value}==').hex()}"
            )
            for file in told.files or ()
            if file.parts[0] == package.name and file.hash and "__pycache__" not in file.parts
        }
        pip = loads(told.read_text("direct_url.json") or "{}")
        facts = {"commit": str(pip.get("vcs_info", {}).get("commit_id", ""))}
        if not (url := str(pip.get("url", ""))).startswith("file:"):  # no path of this machine
            facts["origin"] = without_secrets(url)
        here = Path(str(told.locate_file(package.name))).resolve() == package.resolve()
        return (files, facts) if files and here else None
    return None


def _text(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(1 << 20).decode().strip()
