"""A zip archive on which no two readers can disagree (PKWARE APPNOTE 6.3.10).

All its records must say the same and together cover each byte once: nothing lies before, between,
behind or twice. That is known before anything is unpacked.
"""

import re
import struct
import unicodedata
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from purpleteam.scan.formats.problem import Problem

ENTRY = struct.Struct("<4s2B5H3L5H2L")
LOCAL = struct.Struct("<4s5H3L2H")
DESCRIPTOR, DESCRIPTOR64 = struct.Struct("<4s3L"), struct.Struct("<4sL2Q")
END, END64 = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q")
LOCATOR = struct.Struct("<4sLQL")
STORED, DEFLATED = 0, 8
# Flags: sizes behind the data, names in UTF-8, how hard a deflater tried.
DEFERRED, UTF8, DEFLATE_LEVEL = 0x0008, 0x0800, 0x0006
ZIP64 = 0x0001
RENAMING = frozenset({0x0017, 0x6375, 0x7075, 0x9901})  # extra fields that rename, or encrypt
DIRECTORY_BIT, FOLDER, REGULAR = 0x10, 0o040000, 0o100000
MAX_TOTAL = 64 << 30
MAX_RATIO = 100
SMALL = 64 << 20  # what unpacks to no more than this is no bomb, however well it was packed
MAX16, MAX32 = 0xFFFF, 0xFFFFFFFF
MAX_VERSION = 63  # of the format; Python's reader refuses a newer one, others do not look
MAX_MEMBERS = 100_000
_bad = partial(Problem, "archive")


@dataclass(slots=True)
class Member:
    """One file of the archive: what the directory says of it, and where its bytes lie."""

    raw_name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int  # of the header before its data
    start: int = 0  # of its data

    def __str__(self) -> str:
        return _shown(self.raw_name)

    @property
    def name(self) -> str:
        return self.raw_name.decode("utf-8")

    @property
    def deflated(self) -> bool:
        return self.method == DEFLATED


@dataclass(frozen=True)
class Archive:
    """An archive whose layout was found unambiguous."""

    data: memoryview
    members: Mapping[str, Member]  # in the order in which they lie in the file, without folders
    odd: str  # what no library writes and every reader takes the same way; model formats refuse it

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
        """Return the bytes of a file; another size or CRC than the archive says is a `Problem`."""
        member = self.members[name]
        raw = self.data[member.start : member.start + member.packed]
        if member.deflated:
            stream = zlib.decompressobj(-15)
            try:
                raw = memoryview(stream.decompress(raw, member.size + 1))
            except zlib.error as error:
                raise _bad(f"{name!r} is damaged: {error}") from None
            if not stream.eof or stream.unused_data or len(raw) != member.size:
                raise _bad(f"{name!r} does not unpack to the {member.size} bytes that it claims")
        if zlib.crc32(raw) != member.crc:
            raise _bad(f"{name!r} is damaged: its CRC is another than the archive says")
        return raw


def read_layout(data: memoryview) -> Archive:
    """Return the archive if it can be read in one way only; any other is a `Problem`."""
    try:
        begin, end, count, odd = _end_records(data)
        members, at = [], begin
        while at < end:
            member, at = _entry(data, at)
            members.append(member)
        if at != end or len(members) != count:
            raise _bad(f"the archive says {count} files, and its directory has {len(members)}")
        place, total = 0, 0
        members.sort(key=lambda member: member.offset)
        for member in members:
            if member.offset != place:
                why = "bytes are hidden" if member.offset > place else "files overlap"
                raise _bad(f"{member} begins at byte {member.offset}, not {place}: {why}")
            member.start, place = _local(data, member, begin)
            total += member.size
            if member.size > SMALL and member.size > MAX_RATIO * member.packed:
                raise Problem("bomb", f"{member} unpacks {member.packed} bytes to {member.size}")
        names = [member.name for member in members]
    except (struct.error, UnicodeDecodeError) as error:
        raise _bad(f"the archive is damaged: {error}") from None
    if place != begin:
        raise _bad(f"bytes {place} to {begin} of the archive belong to no file")
    if total > MAX_TOTAL or (total > SMALL and total > MAX_RATIO * len(data)):
        raise Problem("bomb", f"the archive unpacks {len(data)} bytes to {total}")
    seen: dict[str, str] = {}
    for name in names:  # that lead elsewhere, or that two readers could take for one another
        parts = name.removesuffix("/").split("/")
        if "\\" in name or ":" in name or not {"", ".", ".."}.isdisjoint(parts):
            raise _bad(f"the archive holds {name[:80]!r}, which leads out of its folder")
        if not name.isprintable():
            raise _bad(f"the archive holds {name[:80]!r}, a name that readers cut or change")
        key = name if name.isascii() else unicodedata.normalize("NFKC", name)
        other = seen.setdefault(key.casefold().rstrip("/"), name)
        if other is not name:
            raise _bad(f"the archive has two files of one name: {other[:80]!r} and {name[:80]!r}")
    files = {name: member for name, member in zip(names, members, strict=True) if name[-1:] != "/"}
    return Archive(data, files, odd)


def _end_records(data: memoryview) -> tuple[int, int, int, str]:
    """Return where the directory begins and ends, its number of entries, and what is odd.

    Readers look for the end record from the last byte backwards, over the longest comment. Where
    another one fits the end of the file too, they may choose differently; where one merely lies
    there, as of an archive in the archive, that is odd and left to the caller.
    """
    tail = bytes(data[max(0, len(data) - END.size - MAX16) :])
    places = [match.start() for match in re.finditer(b"PK\x05\x06", tail)]
    if not places:
        raise _bad("the archive is damaged: it has no end record")
    fitting = []  # those whose comment ends with the file
    for place in places:
        end = place + END.size
        if end + int.from_bytes(tail[end - 2 : end], "little") == len(tail):
            fitting.append(place)
    if len(fitting) > 1:
        raise _bad("the archive has two end records; readers choose differently")
    if fitting != places[-1:]:
        raise _bad("bytes follow the archive")
    end = len(data) - len(tail) + places[-1]
    _, *told, length = END.unpack_from(data, end)
    *parts, here, count, size, offset = told
    odd = "two end records, of which readers choose one" if len(places) > 1 else ""
    if length:
        odd = "a comment, in which something may be hidden"
    if (locator := end - LOCATOR.size) >= 0 and bytes(data[locator : locator + 4]) == b"PK\x06\x07":
        _, locator_disk, place, disks = LOCATOR.unpack_from(data, locator)
        end = locator - END64.size
        if place != end:
            why = f"the record before it is at byte {end}: some readers would read another archive"
            raise _bad(f"the ZIP64 locator points to byte {place}, and {why}")
        numbers = END64.unpack_from(data, place)
        magic, record, _, version, *parts, here, count, size, offset = numbers
        if magic != b"PK\x06\x06" or record != END64.size - 12 or version > MAX_VERSION:
            raise _bad("the ZIP64 end record is damaged or of an unknown form")
        parts += [locator_disk, disks - 1]
        short = [min(count, MAX16), min(count, MAX16), min(size, MAX32), min(offset, MAX32)]
        if told != [0, 0, *short]:
            raise _bad("the end record and the ZIP64 end record say different things")
    elif count == MAX16 or MAX32 in (size, offset):
        raise _bad("the end record leaves its numbers to a ZIP64 record, and there is none")
    if any(parts) or here != count:
        raise _bad("the archive is one part of several")
    if count > MAX_MEMBERS:
        raise Problem("bomb", f"the archive has {count} files; at most {MAX_MEMBERS}")
    if offset + size != end:
        raise _bad(f"the directory ends at byte {offset + size}, not {end}: bytes are hidden")
    return offset, end, count, odd


def _entry(data: memoryview, at: int) -> tuple[Member, int]:
    """Return an entry of the directory, with its ZIP64 numbers, and where the next begins."""
    (magic, _, _, version, flags, method, _, _, crc, packed, size, name_length, extra_length,
     comment_length, disk, internal, external, offset) = ENTRY.unpack_from(data, at)  # fmt: skip
    if magic != b"PK\x01\x02":
        raise _bad(f"the directory is damaged at byte {at}")
    extra = at + ENTRY.size + name_length
    end = extra + extra_length + comment_length
    name = bytes(data[extra - name_length : extra])
    wide = _zip64(name, data[extra : extra + extra_length])
    numbers = [size, packed, offset]
    if wide is not None or MAX32 in numbers:
        left = list(wide or ())
        if len(left) != numbers.count(MAX32):
            raise _bad(f"{_shown(name)} has ZIP64 numbers that do not fit its entry")
        numbers = [left.pop(0) if number == MAX32 else number for number in numbers]
    size, packed, offset = numbers
    member = Member(name, flags, method, crc, packed, size, offset)
    if version > MAX_VERSION or disk or internal > 1:
        raise _bad(f"{member} needs version {version}, disk {disk}, which is not supported")
    if flags & ~(DEFERRED | UTF8 | (DEFLATE_LEVEL if member.deflated else 0)):
        raise _bad(f"{member} has flags {flags:#06x}, for example of encryption")
    if method not in (STORED, DEFLATED):
        raise _bad(f"{member} is packed by method {method}")
    if method == STORED and size != packed:
        raise _bad(f"{member} is stored, yet has two sizes")
    if not flags & UTF8 and not name.isascii():
        raise _bad(f"{member} has a name that readers decode differently")
    folder, kind = name.endswith(b"/"), external >> 16 & 0o170000
    if folder and size:
        raise _bad(f"{member} is a folder by its name and has {size} bytes")
    marked = bool(external & DIRECTORY_BIT) > folder
    if marked or kind not in (0, FOLDER if folder else REGULAR):
        raise _bad(f"{member} is marked as a folder or a link, and some readers heed that")
    return member, end


def _zip64(name: bytes, extra: memoryview) -> tuple[int, ...] | None:
    """Return the numbers of the ZIP64 extra field, or None if there is none."""
    numbers, at = None, 0
    while at < len(extra):
        kind, length = (int.from_bytes(extra[i : i + 2], "little") for i in (at, at + 2))
        body = extra[at + 4 : at + 4 + length]
        at += 4 + length
        wrong = kind == ZIP64 and (numbers is not None or length not in (8, 16, 24))
        if at > len(extra) or wrong:
            raise _bad(f"{_shown(name)} has a damaged extra field")
        if kind in RENAMING:
            raise _bad(f"{_shown(name)} has extra field {kind:#06x}, which not every reader heeds")
        if kind == ZIP64:
            numbers = struct.unpack(f"<{length // 8}Q", body)
    return numbers


def _local(data: memoryview, member: Member, limit: int) -> tuple[int, int]:
    """Compare the header before the data with the directory; return where they begin and end."""
    header = LOCAL.unpack_from(data, member.offset)
    magic, version, flags, method, _, _, *told, name_length, extra_length = header
    extra = member.offset + LOCAL.size + name_length
    name = bytes(data[extra - name_length : extra])
    if magic != b"PK\x03\x04" or name != member.raw_name:
        raise _bad(f"{member} is called {_shown(name)} in the header before its data")
    if (flags, method) != (member.flags, member.method) or version > MAX_VERSION:
        raise _bad(f"{member} has other flags before its data than in the directory")
    start = extra + extra_length
    wide = _zip64(name, data[extra:start])
    if not _agrees(member, told, wide):
        raise _bad(f"{member} has other sizes before its data than in the directory")
    end = start + member.packed
    if flags & DEFERRED:
        form = DESCRIPTOR if wide is None else DESCRIPTOR64
        wanted = (b"PK\x07\x08", member.crc, member.packed, member.size)
        if end + form.size <= limit and form.unpack_from(data, end) != wanted:
            raise _bad(f"{member} has other sizes behind its data than in the directory")
        end += form.size
    if end > limit:
        raise _bad(f"{member} reaches into the directory: files overlap")
    return start, end


def _agrees(member: Member, told: list[int], wide: tuple[int, ...] | None) -> bool:
    """Return whether the header before the data says what the directory says.

    With sizes behind the data it says nothing, in zeros. Of a large entry torch writes the size,
    zero for what it is packed to, and its place; Python the two sizes, or two zeros, and before
    3.11.4 beside the same in the header itself.
    """
    crc, *sizes = told  # what it is packed to comes first, in `wide` last
    both = (member.size, member.packed)
    place = (member.offset,) if member.offset >= MAX32 else ()
    if not member.flags & DEFERRED:
        plain = sizes == [*both[::-1]] and MAX32 not in both and wide in (place or None, both)
        return crc == member.crc and (plain or (sizes == [MAX32, MAX32] and wide == both))
    if sizes == [MAX32, MAX32]:
        return crc == 0 and wide in (both, (0, 0))
    started = (member.size, 0) if member.size >= MAX32 else ()
    return told == [0, 0, 0] and wide in ((*started, *place) or None, (0, 0))


def _shown(name: bytes) -> str:
    return repr(name[:80].decode("utf-8", "backslashreplace"))
