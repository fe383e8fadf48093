"""A zip archive on which no two readers can disagree (PKWARE APPNOTE 6.3.10).

Readers differ in what they trust: the end record that they find first or last, the place of the
ZIP64 record or the place that its locator names, the directory at the end or the header before
each file, the first or the last of two equal names. The layout is therefore read once, here, from
the end to the first byte, and every file from the very bytes that were found so. An archive is
accepted where all records say the same and together cover each byte once: nothing before, between,
behind or twice. All of that is known before anything is unpacked.
"""

from __future__ import annotations

import re
import struct
import unicodedata
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from purpleteam.scan.formats.problem import Malformed

ENTRY = struct.Struct("<4s2B5H3L5H2L")
LOCAL = struct.Struct("<4s5H3L2H")
DESCRIPTOR = struct.Struct("<4s3L")
DESCRIPTOR64 = struct.Struct("<4sL2Q")

STORED, DEFLATED = 0, 8
DEFERRED, UTF8, DEFLATE_LEVEL = 0x0008, 0x0800, 0x0006
"""Flags: sizes behind the data, names in UTF-8, how hard a deflater tried."""
ZIP64 = 0x0001
RENAMING = frozenset({0x0017, 0x6375, 0x7075, 0x9901})
"""Extra fields that give a file another name, or encrypt it, for those readers that know them."""
DIRECTORY_BIT, REGULAR = 0x10, 0o100000
MAX_TOTAL = 64 << 30
MAX_RATIO = 100
SMALL = 64 << 20
"""What unpacks to no more than this is no bomb, however well it was packed."""
END = struct.Struct("<4s4H2LH")
END64 = struct.Struct("<4sQ2H2L4Q")
LOCATOR = struct.Struct("<4sLQL")
MAX16, MAX32 = 0xFFFF, 0xFFFFFFFF
MAX_COMMENT = MAX16
MAX_VERSION = 63
"""The newest version of the format; Python's reader refuses a newer one, others do not look."""
MAX_MEMBERS = 100_000


@dataclass(frozen=True, slots=True)
class Member:
    """One file of the archive: where its bytes lie, and what they unpack to."""

    name: str
    start: int
    packed: int
    size: int
    deflated: bool
    crc: int


@dataclass(frozen=True)
class Archive:
    """An archive whose layout was found unambiguous; files are read from its own places."""

    data: memoryview
    members: Mapping[str, Member]
    """In the order in which they lie in the file; folders are left out."""
    odd: str
    """What no library writes and every reader takes the same way; model formats refuse it."""

    def head(self, name: str, count: int = 32) -> bytes:
        """Return the first bytes of a file, unchecked."""
        member = self.members[name]
        raw = self.data[member.start : member.start + member.packed]
        if not member.deflated:
            return bytes(raw[:count])
        try:
            return zlib.decompressobj(-15).decompress(raw[: 64 << 10], count)
        except zlib.error:
            return b""

    def read(self, name: str) -> memoryview:
        """Return the bytes of a file; another size or CRC than the archive says is `Malformed`."""
        member = self.members[name]
        raw = self.data[member.start : member.start + member.packed]
        if member.deflated:
            raw = _inflated(member, raw)
        if zlib.crc32(raw) != member.crc:
            raise _bad(f"{name!r} is damaged: its CRC is another than the archive says")
        return raw


@dataclass(frozen=True, slots=True)
class _Entry:
    """One entry of the directory at the end, with its ZIP64 numbers."""

    name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int


def read_layout(data: memoryview) -> Archive:
    """Return the archive if it can be read in one way only; any other is `Malformed`."""
    try:
        begin, end, count, odd = _end_records(data)
        entries = sorted(_directory(data, begin, end, count), key=lambda entry: entry.offset)
        place, members, total = 0, [], 0
        for entry in entries:
            if entry.offset != place:
                what = "bytes are hidden" if entry.offset > place else "files overlap"
                raise _bad(
                    f"{_shown(entry.name)} begins at byte {entry.offset}, not {place}: {what}"
                )
            start, place = _local(data, entry, begin)
            deflated = entry.method == DEFLATED
            name = entry.name.decode("utf-8")
            members.append(Member(name, start, entry.packed, entry.size, deflated, entry.crc))
            total += entry.size
            if entry.size > SMALL and entry.size > MAX_RATIO * entry.packed:
                raise Malformed("bomb", f"{name!r} unpacks {entry.packed} bytes to {entry.size}")
    except (struct.error, UnicodeDecodeError) as error:
        raise _bad(f"the archive is damaged: {error}") from None
    if place != begin:
        raise _bad(f"bytes {place} to {begin} of the archive belong to no file")
    if total > MAX_TOTAL or (total > SMALL and total > MAX_RATIO * len(data)):
        raise Malformed("bomb", f"the archive unpacks {len(data)} bytes to {total}")
    _check_names([member.name for member in members])
    files = {member.name: member for member in members if not member.name.endswith("/")}
    return Archive(data, files, odd)


def _end_records(data: memoryview) -> tuple[int, int, int, str]:
    """Return where the directory begins and ends, its number of entries, and what is odd.

    Readers look for the end record from the last byte backwards, over the longest comment. Where
    another one fits the end of the file as well, they may choose differently; where one merely
    lies there, as of an archive in the archive, that is odd and left to the caller.
    """
    tail = bytes(data[max(0, len(data) - END.size - MAX_COMMENT) :])
    places = [match.start() for match in re.finditer(b"PK\x05\x06", tail)]
    if not places:
        raise _bad("the archive is damaged: it has no end record")
    fitting = []  # those whose comment ends with the file
    for place in places:
        comment = int.from_bytes(tail[place + END.size - 2 : place + END.size], "little")
        if place + END.size + comment == len(tail):
            fitting.append(place)
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


def _directory(data: memoryview, begin: int, end: int, count: int) -> list[_Entry]:
    """Return the entries of the directory, which fill it exactly."""
    entries, at = [], begin
    while at < end:
        entry, at = _entry(data, at)
        entries.append(entry)
    if at != end or len(entries) != count:
        raise _bad(f"the archive says {count} files, and its directory has {len(entries)}")
    return entries


def _entry(data: memoryview, at: int) -> tuple[_Entry, int]:
    (magic, _, _, version, flags, method, _, _, crc, packed, size, name_length, extra_length,
     comment_length, disk, internal, external, offset) = ENTRY.unpack_from(data, at)  # fmt: skip
    if magic != b"PK\x01\x02":
        raise _bad(f"the directory is damaged at byte {at}")
    at += ENTRY.size
    name = bytes(data[at : at + name_length])
    at += name_length
    wide = _zip64(name, data[at : at + extra_length])
    if wide is not None or MAX32 in (packed, size, offset):
        numbers = list(wide or ())
        if len(numbers) != (size, packed, offset).count(MAX32):
            raise _bad(f"{_shown(name)} has ZIP64 numbers that do not fit its entry")
        size = numbers.pop(0) if size == MAX32 else size
        packed = numbers.pop(0) if packed == MAX32 else packed
        offset = numbers.pop(0) if offset == MAX32 else offset
    if version > MAX_VERSION or disk or internal > 1:
        raise _bad(f"{_shown(name)} needs version {version}, disk {disk}, which is not supported")
    if flags & ~(DEFERRED | UTF8 | (DEFLATE_LEVEL if method == DEFLATED else 0)):
        raise _bad(f"{_shown(name)} has flags {flags:#06x}, for example of encryption")
    if method not in (STORED, DEFLATED):
        raise _bad(f"{_shown(name)} is packed by method {method}")
    if method == STORED and size != packed:
        raise _bad(f"{_shown(name)} is stored, yet has two sizes")
    if not flags & UTF8 and not name.isascii():
        raise _bad(f"{_shown(name)} has a name that readers decode differently")
    _check_kind(name, external, size)
    return _Entry(
        name, flags, method, crc, packed, size, offset
    ), at + extra_length + comment_length


def _check_kind(name: bytes, attributes: int, size: int) -> None:
    """Refuse what some readers take for a folder or a link, and others for a file."""
    folder = name.endswith(b"/")
    kind = attributes >> 16 & 0o170000
    if folder and size:
        raise _bad(f"{_shown(name)} is a folder by its name and has {size} bytes")
    if bool(attributes & DIRECTORY_BIT) > folder or kind not in (
        (0, 0o040000) if folder else (0, REGULAR)
    ):
        raise _bad(f"{_shown(name)} is marked as a folder or a link, and some readers heed that")


def _zip64(name: bytes, extra: memoryview) -> tuple[int, ...] | None:
    """Return the numbers of the ZIP64 extra field, or None if there is none."""
    numbers, at = None, 0
    while at < len(extra):
        if len(extra) - at < 4:
            raise _bad(f"{_shown(name)} has a damaged extra field")
        kind, length = struct.unpack_from("<2H", extra, at)
        body = extra[at + 4 : at + 4 + length]
        at += 4 + length
        if at > len(extra) or (
            kind == ZIP64 and (numbers is not None or length not in (8, 16, 24))
        ):
            raise _bad(f"{_shown(name)} has a damaged extra field")
        if kind in RENAMING:
            raise _bad(f"{_shown(name)} has extra field {kind:#06x}, which not every reader heeds")
        if kind == ZIP64:
            numbers = struct.unpack(f"<{length // 8}Q", body)
    return numbers


def _local(data: memoryview, entry: _Entry, limit: int) -> tuple[int, int]:
    """Compare the header before the data with the directory; return where the data lie and end."""
    magic, version, flags, method, _, _, crc, packed, size, name_length, extra_length = (
        LOCAL.unpack_from(data, entry.offset)
    )
    at = entry.offset + LOCAL.size
    name = bytes(data[at : at + name_length])
    if magic != b"PK\x03\x04" or name != entry.name:
        raise _bad(f"{_shown(entry.name)} is called {_shown(name)} in the header before its data")
    if (flags, method) != (entry.flags, entry.method) or version > MAX_VERSION:
        raise _bad(f"{_shown(name)} has other flags before its data than in the directory")
    start = at + name_length + extra_length
    wide = _zip64(name, data[at + name_length : start])
    deferred = bool(flags & DEFERRED)
    if not _agrees(entry, (crc, packed, size), wide, deferred=deferred):
        raise _bad(f"{_shown(name)} has other sizes before its data than in the directory")
    end = start + entry.packed
    if deferred:
        form = DESCRIPTOR if wide is None else DESCRIPTOR64
        if end + form.size <= limit and form.unpack_from(data, end) != (
            b"PK\x07\x08",
            entry.crc,
            entry.packed,
            entry.size,
        ):
            raise _bad(f"{_shown(name)} has other sizes behind its data than in the directory")
        end += form.size
    if end > limit:
        raise _bad(f"{_shown(name)} reaches into the directory: files overlap")
    return start, end


def _agrees(
    entry: _Entry, told: tuple[int, int, int], wide: tuple[int, ...] | None, *, deferred: bool
) -> bool:
    """Return whether the header before the data says what the directory says.

    With sizes behind the data it says nothing, in zeros. Of a large entry torch writes the size,
    zero for what it is packed to, and its place; Python the two sizes, or two zeros.
    """
    crc, sizes = told[0], told[1:]
    both = (entry.size, entry.packed)
    place = (entry.offset,) if entry.offset >= MAX32 else ()
    if not deferred:
        at_place = sizes == both[::-1] and MAX32 not in both and wide == (place or None)
        return crc == entry.crc and (at_place or (sizes == (MAX32, MAX32) and wide == both))
    if sizes == (MAX32, MAX32):
        return crc == 0 and wide in (both, (0, 0))
    started = (entry.size, 0) if entry.size >= MAX32 else ()
    return (crc, *sizes) == (0, 0, 0) and wide == ((*started, *place) or None)


def _check_names(names: list[str]) -> None:
    """Refuse names that lead elsewhere, or that two readers could take for one another."""
    seen: dict[str, str] = {}
    for name in names:
        parts = name.removesuffix("/").split("/")
        if "\\" in name or ":" in name or not {"", ".", ".."}.isdisjoint(parts):
            raise _bad(f"the archive holds {name[:80]!r}, which leads out of its folder")
        if not name.isprintable():
            raise _bad(f"the archive holds {name[:80]!r}, a name that readers cut or change")
        key = name if name.isascii() else unicodedata.normalize("NFKC", name)
        other = seen.setdefault(key.casefold().rstrip("/"), name)
        if other is not name:
            raise _bad(f"the archive has two files of one name: {other[:80]!r} and {name[:80]!r}")


def _inflated(member: Member, raw: memoryview) -> memoryview:
    stream = zlib.decompressobj(-15)
    try:
        content = stream.decompress(raw, member.size + 1)
    except zlib.error as error:
        raise _bad(f"{member.name!r} is damaged: {error}") from None
    if not stream.eof or stream.unused_data or len(content) != member.size:
        raise _bad(f"{member.name!r} does not unpack to the {member.size} bytes that it claims")
    return memoryview(content)


def _shown(name: bytes) -> str:
    return repr(name[:80].decode("utf-8", "backslashreplace"))


def _bad(message: str) -> Malformed:
    return Malformed("archive", message)
