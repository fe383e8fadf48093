"""Files that pickles hide in: raw pickles, torch archives, NumPy object arrays."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from purpleteam.scan.formats.allow_list import ALLOWED
from purpleteam.scan.formats.npy import has_objects
from purpleteam.scan.formats.pickle_globals import walk_pickle
from purpleteam.scan.formats.problem import Malformed, Problem
from purpleteam.scan.formats.torch_zip import MAX_PICKLE, open_archive
from purpleteam.scan.formats.zip_layout import strict_members

__all__ = ["inspect_numpy", "inspect_pickle", "inspect_zip"]

LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How torch files from before version 1.6 begin: a pickle of their magic number."""
LEGACY_PICKLES = 5
MAX_PICKLES = 100


def inspect_pickle(path: Path) -> Iterator[Problem]:
    """Yield what a raw pickle would import, and that it is one."""
    yield Problem("pickle", "the file is a pickle, which is refused by default: loading runs code")
    with path.open("rb") as file:
        yield from _walk_all(file, "")


def inspect_zip(path: Path, *, is_model: bool) -> Iterator[Problem]:
    """Yield what is wrong with an archive; a torch archive is a pickle with numbers beside.

    Args:
        path: the file.
        is_model: whether its name claims a model; an archive of other things is none.
    """
    names, problems = _members(path)
    pickled = any(name.split("/", 1)[-1] == "data.pkl" for name in names)
    if pickled:
        yield Problem("pickle", "the file is a torch archive, a pickle: refused by default")
    elif is_model and not (names and all(name.endswith(".npy") for name in names)):
        yield Problem("unknown-format", "the archive is of no known model format")
    yield from problems
    try:
        if pickled:
            open_archive(path)
        elif is_model:
            strict_members(path)
    except Malformed as malformed:
        if malformed.problem not in problems:
            yield malformed.problem


def inspect_numpy(path: Path) -> Iterator[Problem]:
    """Yield whether a NumPy file is an array of objects, and what these would import."""
    with path.open("rb") as file:
        yield from _numpy(file, "")


def _members(path: Path) -> tuple[list[str], list[Problem]]:
    """Look into every file of the archive, as far as it can be read at all."""
    names: list[str] = []
    problems: list[Problem] = []
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                names.append(info.filename)
                with archive.open(info) as member:
                    content = io.BytesIO(member.read(MAX_PICKLE))
                problems.extend(_member(info.filename, content))
    except Exception as error:  # whatever a hostile archive brings the reader to
        problems.append(Problem("archive", f"the archive is damaged: {error}"[:200]))
    return names, problems


def _member(name: str, content: io.BytesIO) -> Iterator[Problem]:
    head = content.getvalue()[:6]
    if head == b"\x93NUMPY":
        yield from _numpy(content, f"{name}: ")
    elif name.endswith(".pkl") or (head[:1] == b"\x80" and "/data/" not in name):
        yield from _walk_all(content, f"{name}: ")


def _numpy(file: BinaryIO, where: str) -> Iterator[Problem]:
    if has_objects(file):
        yield Problem("object-array", f"{where}the array holds Python objects, which are a pickle")
        yield from _walk_all(file, where)


def _walk_all(file: BinaryIO, where: str) -> Iterator[Problem]:
    """Walk pickle after pickle to the end of the file, or to where no pickle follows."""
    legacy = file.read(len(LEGACY_TORCH)) == LEGACY_TORCH
    file.seek(-len(LEGACY_TORCH), 1) if legacy else file.seek(0)
    seen: set[str | None] = set()
    for number in range(MAX_PICKLES):
        start = file.tell()
        walk = walk_pickle(file)
        for use in walk.globals:
            if use.name not in ALLOWED and use.name not in seen:
                seen.add(use.name)
                yield _unsafe(where, use.name, start + use.position)
        if walk.error:
            if number == 0 or walk.globals:
                yield Problem("damaged-pickle", f"{where}the pickle is broken: {walk.error}")
            return
        if legacy and number + 1 >= LEGACY_PICKLES:
            return
        if not file.read(1):
            return
        file.seek(-1, 1)
        if number == 0 and not legacy:
            yield Problem("damaged-pickle", f"{where}more follows behind the end of the pickle")


def _unsafe(where: str, name: str | None, position: int) -> Problem:
    if name is None:
        return Problem("unsafe-global", f"{where}a name at byte {position} cannot be told")
    return Problem("unsafe-global", f"{where}loading would import {name[:120]!r} (byte {position})")
