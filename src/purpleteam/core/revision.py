"""Which code ran: the commit, or the wheel, that it came from, and what of it is otherwise.

Whoever owns a checkout also writes its configuration, and may name programs in it. None is read:
`.git` is read as files, and its objects by a git that is given an empty repository beside them.
"""

import base64
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
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

PACKAGE = Path(str(resources.files("purpleteam")))
COMMIT, REF = re.compile(r"[0-9a-f]{40}"), re.compile(r"refs/[\w./+@-]+")
SECONDS = 20  # that git may take
MANY = 20  # changed files that are named


@dataclass(frozen=True, kw_only=True)
class Revision:
    """The code of a package: what it is, where it came from, and what differs from that."""

    digest: str  # of names and contents of all its files, as a scan of the folder has it
    commit: str = ""  # of its checkout, or the one that pip built; empty: none is known
    wheel: str = ""  # digest of the names and contents that its RECORD lists; empty: no wheel
    origin: str = ""  # where pip got it, where that was no index and no folder (PEP 610)
    changed: tuple[str, ...] = ()  # files that are not those of the commit, or of the wheel
    differ: int | None = None  # how many there are; None: it cannot be told

    def __str__(self) -> str:
        named = f"commit {self.commit}" if self.commit else f"wheel {self.wheel}"
        if not (self.commit or self.wheel):
            return f"no known revision, files {self.digest}"
        state = "whether anything is changed is not known"
        if self.differ is not None:
            state = f"{self.differ} files changed" if self.differ else "unchanged"
        return f"{named}, {state}"

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> "Revision":
        """Read what `run.json` says of code."""
        given = {name: facts[name] for name in cls.__dataclass_fields__ if name in facts}
        return cls(**{"digest": "", **given, "changed": tuple(facts.get("changed", ()))})


@cache
def revision() -> dict[str, Any]:
    """Return the revision of this process's own code, as plain JSON, as it was when first asked."""
    return asdict(revision_of(PACKAGE))


def revision_of(package: Path) -> Revision:
    """Return the revision of an importable package's folder."""
    files = {
        path.relative_to(package).as_posix(): path.read_bytes()
        for path in sorted(package.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    digests = {name: sha256_bytes(content) for name, content in files.items()}
    facts: dict[str, Any] = {"digest": sha256_bytes(canonical_json(digests).encode())}
    there: Mapping[str, str] = {}
    wanted: Mapping[str, str] | None = None
    if found := _checkout(package):
        facts["commit"], wanted = found
        there = {name: _blob(content) for name, content in files.items()}
    elif installed := _installed(package):
        wanted, there = installed[0], digests
        facts |= {"wheel": sha256_bytes(canonical_json(wanted).encode()), **installed[1]}
    if wanted is not None:
        differ = sorted(
            name for name in wanted.keys() | there if wanted.get(name) != there.get(name)
        )
        facts |= {"changed": tuple(differ[:MANY]), "differ": len(differ)}
    return Revision(**facts)


def _checkout(package: Path) -> tuple[str, Mapping[str, str] | None] | None:
    """Return the commit that a package is in, with its blobs by name; None where it is in none."""
    package = package.resolve()
    for root in package.parents:
        if (mark := root / ".git").exists():
            break
    else:
        return None
    with suppress(OSError, ValueError):
        folder = mark
        if mark.is_file():  # a work tree beside others
            folder = root / _text(mark).removeprefix("gitdir: ")
        common = folder / _text(folder / "commondir") if (folder / "commondir").exists() else folder
        if commit := _head(folder, common):
            blobs = _blobs(common / "objects", commit, package.relative_to(root).as_posix())
            return (commit, blobs) if blobs is None or blobs else None  # installed within a tree
    return None


def _head(folder: Path, common: Path) -> str:
    """Return the commit that HEAD means; empty where it means none."""
    head = _text(folder / "HEAD")
    if name := head.removeprefix("ref: ") if head.startswith("ref: ") else "":
        if not REF.fullmatch(name) or ".." in name:
            return ""
        head = ""
        if (common / name).is_file():
            head = _text(common / name)
        elif (common / "packed-refs").is_file():
            packed = _text(common / "packed-refs").splitlines()
            head = next((line[:40] for line in packed if line[40:] == f" {name}"), "")
    return head if COMMIT.fullmatch(head) else ""


def _blobs(objects: Path, commit: str, folder: str) -> Mapping[str, str] | None:
    """Return the id of each file that a commit has in a folder; None where git cannot tell."""
    git = shutil.which("git")
    if git is None:
        return None
    with tempfile.TemporaryDirectory(prefix="purple-git-") as empty:
        for name in ("objects", "refs"):
            (Path(empty) / name).mkdir()
        (Path(empty) / "HEAD").write_text("ref: refs/heads/none\n", "utf-8")
        settings = {"GIT_OBJECT_DIRECTORY": str(objects), "GIT_CONFIG_GLOBAL": os.devnull}
        settings |= {"GIT_CONFIG_NOSYSTEM": "1", "PATH": os.environ.get("PATH", os.defpath)}
        asked = [git, f"--git-dir={empty}", "ls-tree", "-rz", "--full-tree", commit, f"{folder}/"]
        try:
            told = subprocess.run(  # noqa: S603 - a commit by its digits, no shell
                asked,
                env=settings,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=True,
                timeout=SECONDS,
            )
        except (OSError, subprocess.SubprocessError):
            return None
    rows = [row.split("\t", 1) for row in os.fsdecode(told.stdout).split("\0") if row]
    return {name[len(folder) + 1 :]: about.split(" ")[2] for about, name in rows}


def _blob(content: bytes) -> str:
    head = f"blob {len(content)}\0".encode()
    return hashlib.sha1(head + content, usedforsecurity=False).hexdigest()


def _installed(package: Path) -> tuple[Mapping[str, str], dict[str, str]] | None:
    """Return what a wheel's RECORD says of a package's files, and what pip says of the wheel."""
    with suppress(metadata.PackageNotFoundError, OSError, ValueError, LookupError):
        told = metadata.distribution(package.name)
        if Path(str(told.locate_file(package.name))).resolve() != package.resolve():
            return None
        listed = {
            file.relative_to(package.name).as_posix(): file.hash
            for file in told.files or ()
            if file.parts[0] == package.name and file.hash and "__pycache__" not in file.parts
        }
        files = {
            name: f"sha256:{base64.urlsafe_b64decode(f'{kept.value}==').hex()}"
            for name, kept in listed.items()
        }
        pip = loads(told.read_text("direct_url.json") or "{}")
        facts = {"commit": str(pip.get("vcs_info", {}).get("commit_id", ""))}
        if not (url := str(pip.get("url", ""))).startswith("file:"):  # no path of this machine
            facts["origin"] = without_secrets(url)
        return (files, facts) if files else None
    return None


def _text(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(1 << 20).decode().strip()
