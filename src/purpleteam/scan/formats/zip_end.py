"""The last records of a zip archive: where its directory lies, if every reader finds the same."""

from __future__ import annotations

import re
import struct

from purpleteam.scan.formats.problem import Malformed

__all__ = ["MAX32", "MAX_VERSION", "end_records"]

END = struct.Struct("<4s4H2LH")
END64 = struct.Struct("<4sQ2H2L4Q")
LOCATOR = struct.Struct("<4sLQL")
MAX16, MAX32 = 0xFFFF, 0xFFFFFFFF
MAX_COMMENT = MAX16
MAX_VERSION = 63
"""The newest version of the format; Python's reader refuses a newer one, others do not look."""
MAX_MEMBERS = 100_000


def end_records(data: memoryview) -> tuple[int, int, int, str]:
    """Return where the directory begins and ends, its number of entries, and what is odd.

    Readers look for the end record from the last byte backwards, over the longest comment. Where
    another one fits the end of the file as well, they may choose differently; where one merely
    lies there, as of an archive in the archive, that is odd and left to the caller.
    """
    tail = bytes(data[max(0, len(data) - END.size - MAX_COMMENT) :])
    places = [one.start() for one in re.finditer(b"PK\x05\x06", tail)]
    if not places:
        raise _bad("the archive is damaged: it has no end record")
    fitting = [one for one in places if _comment_end(tail, one) == len(tail)]
    if len(fitting) > 1:
        raise _bad("the archive has two end records; readers choose differently")
    if fitting != places[-1:]:
        raise _bad("bytes follow the archive")
    at = len(data) - len(tail) + places[-1]
    _, disk, start_disk, here, count, size, offset, length = END.unpack_from(data, at)
    odd = "two end records, of which readers choose one" if len(places) > 1 else ""
    if length:
        odd = "a comment, in which something may be hidden"
    if (locator := at - LOCATOR.size) >= 0 and bytes(data[locator : locator + 4]) == b"PK\x06\x07":
        told = (disk, start_disk, here, count, size, offset)
        end, count, size, offset = _end64(data, locator, told)
    else:
        end = at
        if (disk, start_disk) != (0, 0) or here != count:
            raise _bad("the archive is one part of several")
        if count == MAX16 or MAX32 in (size, offset):
            raise _bad("the end record leaves its numbers to a ZIP64 record, and there is none")
    if count > MAX_MEMBERS:
        raise Malformed("bomb", f"the archive has {count} files; at most {MAX_MEMBERS}")
    if offset + size != end:
        raise _bad(f"the directory ends at byte {offset + size}, not {end}: bytes are hidden")
    return offset, end, count, odd


def _comment_end(tail: bytes, at: int) -> int:
    """Return where the comment of a supposed end record would end."""
    return at + END.size + int.from_bytes(tail[at + END.size - 2 : at + END.size], "little")


def _end64(data: memoryview, locator: int, told: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return what the ZIP64 end record says, if it lies where every reader looks for it."""
    _, disk, place, disks = LOCATOR.unpack_from(data, locator)
    if place != locator - END64.size:
        raise _bad(
            f"the ZIP64 locator points to byte {place}, and the record before it is at byte "
            f"{locator - END64.size}: some readers would read another archive"
        )
    magic, length, _, version, this, start_disk, here, count, size, offset = END64.unpack_from(
        data, place
    )
    if magic != b"PK\x06\x06" or length != END64.size - 12 or version > MAX_VERSION:
        raise _bad("the ZIP64 end record is damaged or of an unknown form")
    if (disk, disks, this, start_disk) != (0, 1, 0, 0) or here != count:
        raise _bad("the archive is one part of several")
    short = (min(count, MAX16), min(count, MAX16), min(size, MAX32), min(offset, MAX32))
    if told != (0, 0, *short):
        raise _bad("the end record and the ZIP64 end record say different things")
    return place, count, size, offset


def _bad(message: str) -> Malformed:
    return Malformed("archive", message)
