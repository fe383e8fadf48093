"""Each record of an archive by itself: what may be said in it, and what is refused."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import pytest

from purpleteam.scan.formats import zip_layout
from purpleteam.scan.formats.problem import Problem
from purpleteam.scan.formats.zip_layout import Archive, read_layout

MAX16, MAX32 = 0xFFFF, 0xFFFFFFFF
DEFERRED, LEVEL = 8, 2
SMALL = 64 << 20
Fields = dict[str, Any]


def packed(content: bytes, flush: int = zlib.Z_FINISH) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(content) + stream.flush(flush)


def zip64(*numbers: int) -> bytes:
    return struct.pack(f"<2H{len(numbers)}Q", 1, 8 * len(numbers), *numbers)


def file(raw: bytes = b"abc", *, name: bytes = b"x", behind: bytes = b"", **said: Any) -> Fields:
    """Return a file: what both its headers say, and `local` and `entry` where only one does."""
    told = {"magic": b"PK\3\4", "version": 20, "flags": 0, "method": 0, "crc": zlib.crc32(raw)}
    told |= {"packed": len(raw), "size": len(raw), "name": name, "extra": b""}
    local, entry = said.pop("local", {}), said.pop("entry", {})
    in_entry = {"magic": b"PK\1\2", "disk": 0, "internal": 0, "external": 0, "comment": 0}
    return {
        "raw": raw + behind,
        "local": told | said | local,
        "entry": told | in_entry | said | entry,
    }


def archive(*files: Fields, end: Fields | None = None, end64: Fields | None = None) -> bytes:
    """Return an archive of files stored one after the other, its last records as they should be."""
    data, listed = b"", b""
    for one in files:
        told = {"offset": len(data)} | one["entry"]
        listed += struct.pack(
            "<4s2B5H3L5H2L", told["magic"], 20, 0, told["version"], told["flags"], told["method"],
            0, 33, told["crc"], told["packed"], told["size"], len(told["name"]),
            len(told["extra"]), told["comment"], told["disk"], told["internal"],
            told["external"], told["offset"],
        )  # fmt: skip
        listed += told["name"] + told["extra"]
        told = one["local"]
        data += struct.pack(
            "<4s5H3L2H", told["magic"], told["version"], told["flags"], told["method"], 0, 33,
            told["crc"], told["packed"], told["size"], len(told["name"]), len(told["extra"]),
        )  # fmt: skip
        data += told["name"] + told["extra"] + one["raw"]
    told = {"version": 45, "disk": 0, "here": len(files), "count": len(files)}
    told |= {"size": len(listed), "offset": len(data)}
    data += listed
    if end64 is not None:
        one = told | end64
        place = len(data)
        data += struct.pack(
            "<4sQ2H2L4Q", b"PK\6\6", 44, 45, one["version"], one["disk"], 0, one["here"],
            one["count"], one["size"], one["offset"],
        )  # fmt: skip
        data += struct.pack("<4sLQL", b"PK\6\7", 0, place, 1)
        told |= {"here": min(one["count"], MAX16), "count": min(one["count"], MAX16)}
    one = told | (end or {})
    numbers = (one["disk"], 0, one["here"], one["count"], one["size"], one["offset"], 0)
    return data + struct.pack("<4s4H2LH", b"PK\5\6", *numbers)


def read(data: bytes) -> Archive:
    return read_layout(memoryview(data))


BOTH = zip64(3, 3)
LARGE = {"packed": MAX32, "size": MAX32}
LATER = {"crc": 0, "packed": 0, "size": 0}
BEHIND = struct.pack("<4s3L", b"PK\7\x08", zlib.crc32(b"abc"), 3, 3)
BEHIND64 = struct.pack("<4sL2Q", b"PK\7\x08", zlib.crc32(b"abc"), 3, 3)
DEFLATED = {"method": 8, "size": 3, "crc": zlib.crc32(b"abc")}
HUNDREDTH = bytes(671_089)
"""What may unpack to a hundred times as much, which is just more than SMALL."""

READ = {
    "a plain file": archive(file()),
    "the newest version": archive(file(version=63), end64={"version": 63}),
    "a text": archive(file(entry={"internal": 1})),
    "a regular file": archive(file(entry={"external": 0o100644 << 16})),
    "how hard a deflater tried": archive(file(packed(b"abc"), **DEFLATED, flags=LEVEL)),
    "sizes of a large file before a small one": archive(file(local=LARGE | {"extra": BOTH})),
    "sizes behind the data": archive(file(behind=BEHIND, flags=DEFERRED, local=LATER)),
    "large sizes behind the data": archive(
        file(behind=BEHIND64, flags=DEFERRED, local={"crc": 0, "extra": zip64(0, 0)} | LARGE)
    ),
    "sizes before and behind": archive(
        file(behind=BEHIND64, flags=DEFERRED, local={"crc": 0, "extra": BOTH} | LARGE)
    ),
}


@pytest.mark.parametrize("name", READ)
def test_what_writers_write_is_read(name: str) -> None:
    assert bytes(read(READ[name]).read("x")) == b"abc"


DIFFERENT = "other sizes before"
RENAMING = {
    f"field {kind:#06x}": (archive(file(extra=struct.pack("<2H", kind, 0))), f"field {kind:#06x}")
    for kind in (0x0017, 0x6375, 0x7075, 0x9901)
}
REFUSED = RENAMING | {
    "an encrypted file": (archive(file(flags=1)), "has flags 0x0001"),
    "an encrypted file, packed": (archive(file(packed(b"abc"), **DEFLATED, flags=1)), "0x0001"),
    "a gap": (archive(file(behind=b"!"), file(name=b"y")), "begins at byte 35, not 34.*hidden"),
    "two files of the same bytes": (
        archive(file(), file(name=b"y", entry={"offset": 33})),
        "begins at byte 33, not 34: files overlap",
    ),
    "an entry beyond the directory": (archive(file(entry={"comment": 1})), "says 1 files, and"),
    "an entry too few": (archive(file(), end={"here": 2, "count": 2}), "says 2 .* has 1"),
    "no entry": (archive(file(entry={"magic": b"PK\1\3"})), "directory is damaged at byte 34"),
    "no header": (archive(file(local={"magic": b"PK\3\5"})), "is called 'x'"),
    "two sizes of a stored file": (archive(file(size=4)), "stored, yet has two sizes"),
    "a large size that is nowhere": (archive(file(**LARGE)), "ZIP64 numbers that do not fit"),
    "another kind of text": (archive(file(entry={"internal": 2})), "not supported"),
    "a version of the future": (archive(file(entry={"version": 64})), "needs version 64"),
    "one in the header": (archive(file(local={"version": 64})), "other flags before"),
    "one of the end": (archive(file(), end64={"version": 64}), "unknown form"),
    "a deflater's flag of a stored file": (archive(file(flags=LEVEL)), "has flags 0x0002"),
    "a field longer than all": (archive(file(extra=b"UT\x08\0ab")), "damaged extra field"),
    "two ZIP64 fields": (archive(file(entry={"extra": BOTH + BOTH})), "damaged extra field"),
    "half a ZIP64 number": (archive(file(entry={"extra": b"\1\0\4\0abcd"})), "damaged extra field"),
    "more bytes than there are": (archive(file(packed=4, size=4)), "reaches into the directory"),
    "a packed size of its own": (archive(file(local={"packed": 2})), DIFFERENT),
    "a size of its own beside right ones": (
        archive(file(local={"packed": 5, "size": 5, "extra": BOTH})),
        DIFFERENT,
    ),
    "right sizes beside others": (archive(file(local={"extra": zip64(7)})), DIFFERENT),
    "other large sizes": (archive(file(local=LARGE | {"extra": zip64(3, 4)})), DIFFERENT),
    "nothing behind the data": (
        archive(file(flags=DEFERRED, local=LATER)),
        "reaches into the directory",
    ),
    "other sizes behind the data": (
        archive(file(behind=BEHIND[:-1] + b"\1", flags=DEFERRED, local=LATER)),
        "other sizes behind",
    ),
    "a CRC before sizes that come later": (
        archive(file(behind=BEHIND, flags=DEFERRED, local=LATER | {"crc": 7})),
        DIFFERENT,
    ),
    "large sizes before sizes that come later": (
        archive(file(behind=BEHIND64, flags=DEFERRED, local=LATER | {"extra": BOTH})),
        DIFFERENT,
    ),
    "a CRC before large sizes": (
        archive(file(behind=BEHIND64, flags=DEFERRED, local={"crc": 7, "extra": BOTH} | LARGE)),
        DIFFERENT,
    ),
    "others before large sizes": (
        archive(
            file(behind=BEHIND64, flags=DEFERRED, local={"crc": 0, "extra": zip64(1, 1)} | LARGE)
        ),
        DIFFERENT,
    ),
    "a drive": (archive(file(name=b"C:x")), "leads out of its folder"),
    "a disk": (archive(file(), end={"disk": 1}), "one part of several"),
    "a part of the files": (archive(file(), end={"here": 0}), "one part of several"),
    "a part of the files, in ZIP64": (archive(file(), end64={"here": 0}), "one part of several"),
    "many files": (archive(file(), end={"here": MAX16, "count": MAX16}), "there is none"),
    "a large directory": (archive(file(), end={"size": MAX32}), "there is none"),
    "a distant directory": (archive(file(), end={"offset": MAX32}), "there is none"),
    "nothing but its last records": (
        struct.pack("<4sLQL", b"PK\6\7", 0, 0, 1) + archive(),
        "ZIP64 locator points to byte 0",
    ),
    "as many files as may be": (archive(file(), end64={"here": 10**5, "count": 10**5}), "has 1"),
    "one more": (archive(file(), end64={"here": 10**5 + 1, "count": 10**5 + 1}), "at most"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_readers_could_read_differently_is_refused(name: str) -> None:
    data, reason = REFUSED[name]
    with pytest.raises(Problem, match=reason):
        read(data)


def claims(*sizes: int, raw: bytes = b"abc") -> bytes:
    """Return an archive of deflated files that claim to unpack to so much."""
    return archive(
        *(file(raw, name=b"%d" % place, method=8, size=size) for place, size in enumerate(sizes))
    )


@pytest.mark.parametrize(
    ("most", "raw"), [((SMALL,), b"abc"), ((100 * len(HUNDREDTH),), HUNDREDTH)]
)
def test_a_file_may_unpack_to_64_megabytes_or_a_hundred_times_its_bytes(
    most: tuple[int], raw: bytes
) -> None:
    assert read(claims(*most, raw=raw)).members["0"].size == most[0]
    with pytest.raises(Problem, match=f"'0' unpacks {len(raw)} bytes to {most[0] + 1}"):
        read(claims(most[0] + 1, raw=raw))


def test_an_archive_may_unpack_to_as_much_in_all() -> None:
    assert len(read(claims(SMALL // 2, SMALL // 2)).members) == 2
    with pytest.raises(Problem, match="the archive unpacks"):
        read(claims(SMALL // 2, SMALL // 2 + 1))
    room = (len(HUNDREDTH) + 2 - len(claims(0, 0, raw=b""))) // 2
    whole = 100 * len(claims(0, 0, raw=bytes(room)))
    assert whole > SMALL and len(read(claims(SMALL, whole - SMALL, raw=bytes(room))).members) == 2
    with pytest.raises(Problem, match="the archive unpacks"):
        read(claims(SMALL, whole + 1 - SMALL, raw=bytes(room)))


def test_an_archive_is_no_larger_than_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    data = archive(file(), file(name=b"y"))
    monkeypatch.setattr(zip_layout, "MAX_TOTAL", 6)
    assert len(read(data).members) == 2
    monkeypatch.setattr(zip_layout, "MAX_TOTAL", 5)
    with pytest.raises(Problem, match=r"unpacks .* bytes to 6"):
        read(data)


@pytest.mark.parametrize("raw", [packed(b"abc", zlib.Z_SYNC_FLUSH), packed(b"abc") + b"more"])
def test_a_packed_file_ends_where_its_bytes_end(raw: bytes) -> None:
    with pytest.raises(Problem, match="does not unpack to the 3 bytes"):
        read(archive(file(raw, **DEFLATED))).read("x")


def test_the_head_of_a_file_is_what_it_begins_with() -> None:
    content = bytes(range(200))
    assert read(archive(file(content))).head("x", 5) == content[:5]
    deflated = file(packed(content), method=8, size=200, crc=zlib.crc32(content))
    assert read(archive(deflated)).head("x", 5) == content[:5]
    assert read(archive(file(b"\xff" * 9, method=8))).head("x") == b""
