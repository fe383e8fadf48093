"""Files that pickles hide in: raw pickles, torch archives, NumPy object arrays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from purpleteam.scan.formats.allow_list import ALLOWED
from purpleteam.scan.formats.array_pickle import ARRAY_NAMES
from purpleteam.scan.formats.npy import MAGIC, read_npy_header
from purpleteam.scan.formats.pickle_globals import MAX_WALK, walk_pickle
from purpleteam.scan.formats.problem import Problem
from purpleteam.scan.formats.sniff import MODEL_SUFFIXES
from purpleteam.scan.formats.torch_zip import MAX_PICKLE, open_archive
from purpleteam.scan.formats.zip_layout import Archive, read_layout

__all__ = ["inspect_numpy", "inspect_pickle", "inspect_zip"]

LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How torch files from before version 1.6 begin: a pickle of their magic number."""
LEGACY_PICKLES = 5
MAX_PICKLES = 100


def inspect_pickle(data: memoryview) -> Iterator[Problem]:
    """Yield what a raw pickle would import, and that it is one."""
    yield Problem("pickle", "the file is a pickle, which is refused by default: loading runs code")
    yield from _Walks().pickles(data, "")


def inspect_zip(data: memoryview, *, is_model: bool) -> Iterator[Problem]:
    """Yield what is wrong with an archive; a torch archive is a pickle with numbers beside.

    Args:
        data: the file.
        is_model: whether its name claims a model; an archive of other things is none.
    """
    archive = read_layout(data)
    names = list(archive.members)
    pickled = any(name.split("/", 1)[-1] == "data.pkl" for name in names)
    if pickled:
        yield Problem("pickle", "the file is a torch archive, a pickle: refused by default")
    elif is_model and not (names and all(name.endswith(".npy") for name in names)):
        yield Problem("unknown-format", "the archive is of no known model format")
    if archive.odd and (pickled or is_model):
        yield Problem("archive", f"the archive has {archive.odd}")
    walks = _Walks()
    for name in names:
        yield from walks.member(archive, name, torch=pickled)
    if pickled and not archive.odd:
        open_archive(data)


def inspect_numpy(data: memoryview) -> Iterator[Problem]:
    """Yield whether a NumPy file is an array of objects, and what these would import."""
    yield from _Walks().array(data, "")


class _Walks:
    """Walks the pickles of one file, which share a limit of opcodes."""

    def __init__(self) -> None:
        self.left = MAX_WALK

    def member(self, archive: Archive, name: str, *, torch: bool) -> Iterator[Problem]:
        """Look into a file that is, or claims to be, a pickle, an array or a model."""
        head = archive.head(name)
        array, storage = head.startswith(MAGIC), torch and "/data/" in name
        if array or name.endswith(".npy"):
            yield from self.array(archive.read(name), f"{name}: ")
        elif name.endswith(".pkl") or (head[:1] == b"\x80" and not storage):
            if (size := archive.members[name].size) > MAX_PICKLE:
                yield Problem("bomb", f"{name!r} unpacks to {size} bytes, over {MAX_PICKLE}")
            else:
                yield from self.pickles(archive.read(name), f"{name}: ")
        elif not torch and PurePosixPath(name).suffix.lower() in MODEL_SUFFIXES.keys() - {".bin"}:
            yield Problem("unknown-format", f"{name!r} is a model in an archive: not looked into")

    def array(self, data: memoryview, where: str) -> Iterator[Problem]:
        """Look at the header of an array, and at the pickle behind it if there is one."""
        header = read_npy_header(data)
        if header.dtype.hasobject:
            yield Problem(
                "object-array", f"{where}the array holds Python objects, which are a pickle"
            )
            yield from self.pickles(data[header.start :], where)

    def pickles(self, data: memoryview, where: str) -> Iterator[Problem]:
        """Walk pickle after pickle to the end of the file, or to where no pickle follows."""
        legacy = data[: len(LEGACY_TORCH)] == LEGACY_TORCH
        seen: set[str | None] = set()
        place = 0
        for number in range(MAX_PICKLES):
            walk = walk_pickle(data, place, self.left)
            self.left = max(1, self.left - walk.opcodes)
            for use in walk.globals:
                if use.name not in ALLOWED and use.name not in ARRAY_NAMES and use.name not in seen:
                    seen.add(use.name)
                    yield _unsafe(where, use.name, use.position)
            if walk.error:
                if number == 0 or walk.globals or self.left == 1:
                    yield Problem("damaged-pickle", f"{where}the pickle is broken: {walk.error}")
                return
            place = walk.end
            if (legacy and number + 1 >= LEGACY_PICKLES) or place == len(data):
                return
            if number == 0 and not legacy:
                yield Problem("damaged-pickle", f"{where}more follows behind the end of the pickle")
        yield Problem("damaged-pickle", f"{where}more than {MAX_PICKLES} pickles follow each other")


def _unsafe(where: str, name: str | None, position: int) -> Problem:
    if name is None:
        return Problem("unsafe-global", f"{where}a name at byte {position} cannot be told")
    return Problem("unsafe-global", f"{where}loading would import {name[:120]!r} (byte {position})")
