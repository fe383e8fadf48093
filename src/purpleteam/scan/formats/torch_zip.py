"""The archive that torch.save writes: its exact entry set, its pickle, its storages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from purpleteam.scan.formats.allow_list import StorageRef
from purpleteam.scan.formats.problem import Malformed
from purpleteam.scan.formats.state_pickle import read_state_pickle
from purpleteam.scan.formats.zip_layout import Member, read_member, strict_members

__all__ = ["MAX_PICKLE", "TorchArchive", "open_archive"]

MAX_PICKLE = 64 << 20
NOTES = {
    "version": re.compile(rb"[0-9]{1,4}\n?"),
    "byteorder": re.compile(rb"little"),
    ".data/serialization_id": re.compile(rb"[0-9]{1,64}"),
    ".format_version": re.compile(rb"[0-9]{1,4}"),
    ".storage_alignment": re.compile(rb"[0-9]{1,8}"),
}
"""The small files beside the pickle, and all that they may say."""


@dataclass(frozen=True)
class TorchArchive:
    """What the pickle describes, and the bytes of the storages that it names."""

    content: Any
    path: Path
    members: Mapping[str, Member]

    def storage(self, key: str) -> bytes:
        """Return the bytes of data/<key>."""
        return read_member(self.path, self.members[f"data/{key}"])


def open_archive(path: Path) -> TorchArchive:
    """Return the archive if it is exactly what torch.save makes of plain tensors.

    Raises:
        Malformed: a file too many or too few, a wrong CRC, a pickle that does anything else.
    """
    members = _entries(path)
    if members["data.pkl"].size > MAX_PICKLE:
        raise Malformed("bomb", f"data.pkl has {members['data.pkl'].size} bytes, over {MAX_PICKLE}")
    content, storages = read_state_pickle(read_member(path, members["data.pkl"]))
    _check_notes(path, members)
    _check_storages(path, members, storages)
    return TorchArchive(content, path, members)


def _entries(path: Path) -> dict[str, Member]:
    members = strict_members(path)
    tops = {member.name.split("/", 1)[0] for member in members}
    entries = {member.name.partition("/")[2]: member for member in members}
    if any(name.startswith("code/") for name in entries):
        raise Malformed(
            "archive", "the archive is TorchScript, which is code; save model.state_dict() instead"
        )
    if len(tops) != 1 or "data.pkl" not in entries:
        raise Malformed("archive", "the archive is not one folder with a data.pkl in it")
    for name in entries:
        if name != "data.pkl" and name not in NOTES and not re.fullmatch(r"data/[0-9]{1,9}", name):
            raise Malformed("archive", f"the archive holds {name!r}, which torch.save never writes")
    return entries


def _check_notes(path: Path, members: Mapping[str, Member]) -> None:
    for name, form in NOTES.items():
        if name in members:
            text = read_member(path, members[name]) if members[name].size <= 100 else b"(long)"
            if not form.fullmatch(text):
                raise Malformed("archive", f"{name!r} says {text[:20]!r}, which is not supported")


def _check_storages(
    path: Path, members: Mapping[str, Member], storages: tuple[StorageRef, ...]
) -> None:
    named = {f"data/{ref.key}" for ref in storages}
    held = {name for name in members if name.startswith("data/")}
    if named != held:
        odd = sorted(named ^ held)[0]
        raise Malformed("archive", f"{odd!r} is in the pickle or in the archive, not in both")
    for ref in set(storages):
        size = ref.count * (ref.dtype.size if ref.dtype else 1)
        if (found := members[f"data/{ref.key}"].size) != size:
            raise Malformed("tensor", f"storage {ref.key} claims {size} bytes and has {found}")
    for name in held:
        read_member(path, members[name])  # for its CRC
