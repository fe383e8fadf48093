"""The archive that torch.save writes: its exact entry set, its pickle, its storages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from purpleteam.scan.formats.allow_list import StorageRef
from purpleteam.scan.formats.problem import Malformed
from purpleteam.scan.formats.state_pickle import read_state_pickle
from purpleteam.scan.formats.zip_layout import Archive, read_layout

__all__ = ["MAX_PICKLE", "TorchArchive", "open_archive"]

MAX_PICKLE = 64 << 20
NOTES = {
    "version": re.compile(rb"([1-9]|10)\n?"),
    "byteorder": re.compile(rb"little"),
    ".data/serialization_id": re.compile(rb"[0-9]{1,64}"),
    ".format_version": re.compile(rb"[0-9]{1,4}"),
    ".storage_alignment": re.compile(rb"[0-9]{1,8}"),
}
"""The small files beside the pickle, and all that they may say."""


@dataclass(frozen=True)
class TorchArchive:
    """What the pickle describes, and the bytes of the storages that it names, by their keys."""

    content: Any
    storages: Mapping[str, memoryview]


def open_archive(data: memoryview) -> TorchArchive:
    """Return the archive if it is exactly what torch.save makes of plain tensors.

    Raises:
        Malformed: a file too many or too few, a wrong CRC, a pickle that does anything else.
    """
    archive = read_layout(data)
    top = _check_entries(archive)
    if (size := archive.members[f"{top}/data.pkl"].size) > MAX_PICKLE:
        raise Malformed("bomb", f"data.pkl has {size} bytes, over {MAX_PICKLE}")
    content, named = read_state_pickle(bytes(archive.read(f"{top}/data.pkl")))
    _check_notes(archive, top)
    return TorchArchive(content, _storages(archive, f"{top}/data/", named))


def _check_entries(archive: Archive) -> str:
    """Return the one folder in which everything lies; refuse what torch.save never writes."""
    tops = {name.partition("/")[0] for name in archive.members}
    top = tops.pop() if tops else ""
    if any(name.startswith(f"{top}/code/") for name in archive.members):
        raise Malformed(
            "archive", "the archive is TorchScript, which is code; save model.state_dict() instead"
        )
    if tops or not {f"{top}/data.pkl", f"{top}/version"} <= archive.members.keys():
        raise Malformed("archive", "the archive is not one folder with data.pkl and version in it")
    if archive.odd:
        raise Malformed("archive", f"the archive has {archive.odd}")
    for full, member in archive.members.items():
        name = full.partition("/")[2]
        if name != "data.pkl" and name not in NOTES and not re.fullmatch(r"data/[0-9]{1,9}", name):
            raise Malformed("archive", f"the archive holds {name!r}, which torch.save never writes")
        if member.deflated:
            raise Malformed(
                "bomb",
                f"{name!r} unpacks {member.packed} bytes to {member.size}; torch.save never packs",
            )
    return top


def _check_notes(archive: Archive, top: str) -> None:
    for name, form in NOTES.items():
        if (member := archive.members.get(f"{top}/{name}")) is not None:
            text = bytes(archive.read(member.name)) if member.size <= 100 else b"(long)"
            if not form.fullmatch(text):
                raise Malformed("archive", f"{name!r} says {text[:20]!r}, which is not supported")


def _storages(
    archive: Archive, folder: str, named: Mapping[str, StorageRef]
) -> dict[str, memoryview]:
    """Return the bytes of every storage, each checked for its CRC, whether it is used or not."""
    held = {name.removeprefix(folder) for name in archive.members if name.startswith(folder)}
    if held != named.keys():
        odd = min(held ^ named.keys())
        raise Malformed("archive", f"'data/{odd}' is in the pickle or in the archive, not in both")
    found = {}
    for key, ref in named.items():
        found[key] = archive.read(folder + key)
        if len(found[key]) != ref.bytes:
            raise Malformed(
                "tensor", f"storage {key} claims {ref.bytes} bytes and has {len(found[key])}"
            )
    return found
