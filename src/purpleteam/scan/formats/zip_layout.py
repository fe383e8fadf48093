"""A zip archive on which no two readers can disagree.

Readers differ in what they trust: the directory at the end or the headers before each file,
the first or the last of two equal names, bytes before, between and behind. An archive is
accepted where all of that says the same: files lie one behind the other from the first byte,
nothing is hidden, and no file unpacks to much more than it is.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from purpleteam.scan.formats.problem import Malformed

__all__ = ["Member", "read_member", "strict_members"]

LOCAL = struct.Struct("<4s5H3L2H")
DESCRIPTOR = b"PK\x07\x08"
KNOWN_FLAGS = 0x0808
"""Sizes behind the data (bit 3) and UTF-8 names (bit 11); encryption and the rest are refused."""
MAX_RATIO = 20
MAX_MEMBERS = 100_000
MAX_TOTAL = 4 << 30


@dataclass(frozen=True)
class Member:
    """One file of the archive."""

    name: str
    size: int
    info: zipfile.ZipInfo


def strict_members(path: Path) -> tuple[Member, ...]:
    """Return the files of an unambiguous archive; any other is `Malformed`."""
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
            if archive.comment:
                raise _bad("the archive has a comment")
            _check_names([info.filename for info in infos])
            _check_sizes(infos)
            end = 0
            for info in infos:
                if info.header_offset != end:
                    raise _bad(f"{end} is not where {info.filename!r} begins: bytes are hidden")
                end = _check_local(file, info)
            _check_end(file, end, archive.start_dir, len(infos))
    except (zipfile.BadZipFile, struct.error, EOFError, ValueError, RuntimeError) as error:
        raise _bad(f"the archive is damaged: {error}") from None
    return tuple(Member(info.filename, info.file_size, info) for info in infos)


def read_member(path: Path, member: Member) -> bytes:
    """Return the bytes of a file of the archive; a wrong CRC is `Malformed`."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(member.info)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
        raise _bad(f"{member.name!r} is damaged: {error}") from None


def _check_names(names: list[str]) -> None:
    if len(names) > MAX_MEMBERS:
        raise Malformed("bomb", f"the archive has {len(names)} files; at most {MAX_MEMBERS}")
    for name in names:
        if name.startswith("/") or ".." in name.split("/") or "\\" in name or ":" in name:
            raise _bad(f"the archive holds {name!r}, which leads out of its folder")
    if len({name.lower() for name in names}) != len(names):
        raise _bad("the archive has two files of one name")


def _check_sizes(infos: list[zipfile.ZipInfo]) -> None:
    for info in infos:
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _bad(f"{info.filename!r} is packed by method {info.compress_type}")
        if info.compress_type == zipfile.ZIP_STORED and info.file_size != info.compress_size:
            raise _bad(f"{info.filename!r} is stored, yet has two sizes")
        if info.flag_bits & ~KNOWN_FLAGS:
            raise _bad(f"{info.filename!r} has flags {info.flag_bits:#06x}")
        if info.file_size > 4096 and info.file_size > MAX_RATIO * info.compress_size:
            raise Malformed(
                "bomb",
                f"{info.filename!r} unpacks {info.compress_size} bytes to {info.file_size}",
            )
    total = sum(info.file_size for info in infos)
    if total > MAX_TOTAL:
        raise Malformed("bomb", f"the archive unpacks to {total} bytes; at most {MAX_TOTAL}")


def _check_local(file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Compare the header before the data with the directory; return where the file ends."""
    file.seek(info.header_offset)
    magic, _, flags, method, _, _, crc, packed, size, name_length, extra_length = LOCAL.unpack(
        file.read(LOCAL.size)
    )
    encoding = "utf-8" if flags & 0x800 else "cp437"
    name = file.read(name_length).decode(encoding)
    if magic != b"PK\x03\x04" or name != info.orig_filename or name != info.filename:
        raise _bad(f"{info.filename!r} is called {name!r} in the header before its data")
    if (flags, method) != (info.flag_bits, info.compress_type):
        raise _bad(f"{info.filename!r} has other flags before its data than in the directory")
    told = (crc, packed, size)
    real = (info.CRC, info.compress_size, info.file_size)
    deferred = bool(flags & 0x8)
    wide = 0xFFFFFFFF in told
    if told != real and not (deferred and told == (0, 0, 0)) and not wide:
        raise _bad(f"{info.filename!r} has other sizes before its data than in the directory")
    end = file.seek(extra_length + info.compress_size, 1)
    return _check_descriptor(file, info, end) if deferred else end


def _check_descriptor(file: BinaryIO, info: zipfile.ZipInfo, start: int) -> int:
    found = file.read(24)
    for form in (struct.Struct("<4sLLL"), struct.Struct("<4sLQQ")):
        expected = (DESCRIPTOR, info.CRC, info.compress_size, info.file_size)
        if len(found) >= form.size and form.unpack(found[: form.size]) == expected:
            return start + form.size
    raise _bad(f"{info.filename!r} has other sizes behind its data than in the directory")


def _check_end(file: BinaryIO, end: int, directory: int, count: int) -> None:
    if end != directory:
        raise _bad(f"bytes {end} to {directory} of the archive belong to no file")
    file.seek(-22, 2)
    magic, disk, start_disk, here, entries = struct.unpack("<4s4H", file.read(12))
    if magic != b"PK\x05\x06":
        raise _bad("bytes follow the archive")
    if disk not in (0, 0xFFFF) or start_disk not in (0, 0xFFFF) or here != entries:
        raise _bad("the archive is one part of several")
    if entries not in (count, 0xFFFF):
        raise _bad(f"the archive says {entries} files and has {count}")


def _bad(message: str) -> Malformed:
    return Malformed("archive", message)
