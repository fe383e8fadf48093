"""One file, one archive: what two readers could read differently is refused unopened."""

from __future__ import annotations

import io
import re
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from purpleteam.core.errors import Refused
from purpleteam.scan.formats import read_arrays
from purpleteam.scan.formats.problem import Problem
from purpleteam.scan.formats.sniff import mapped
from purpleteam.scan.formats.zip_layout import read_layout
from purpleteam.scan.gate import read_state_dict
from purpleteam.scan.scanners.model_file import scan_model_files
from purpleteam.verbs import import_model
from purpleteam.verbs._subject import read_weights

torch = pytest.importorskip("torch")


def torch_file(state: dict[str, object]) -> bytes:
    target = io.BytesIO()
    torch.save(state, target)
    return target.getvalue()


WHOLE = torch_file({"w": torch.arange(4.0)})
STORAGE = b"archive/data/0"


def entry(data: bytes, name: bytes = STORAGE) -> int:
    """Return where the entry of a file begins in the directory."""
    return data.index(name, data.index(b"PK\1\2")) - 46


def put(data: bytes, at: int, form: str, value: int) -> bytes:
    piece = struct.pack(form, value)
    return data[:at] + piece + data[at + len(piece) :]


def with_extra(field: bytes) -> bytes:
    """Return the archive with an extra field in the directory, all sizes adapted."""
    at = entry(WHOLE) + 46 + len(STORAGE)
    data = put(WHOLE[:at] + field + WHOLE[at:], entry(WHOLE) + 30, "<H", len(field))
    record = data.rindex(b"PK\6\6")
    size = struct.unpack_from("<Q", data, record + 40)[0] + len(field)
    data = put(data, record + 40, "<Q", size)
    data = put(data, data.rindex(b"PK\6\7") + 8, "<Q", record)
    return put(data, len(data) - 10, "<L", size)


def named(*names: str) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    return target.getvalue()


def overlapping(count: int) -> bytes:
    """Return an archive of so many entries that all unpack the same megabytes."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data/0", bytes(16 << 20))
    data = target.getvalue()
    at = data.index(b"PK\1\2")
    listed = b"".join(data[at : at + 50] + b"%04d" % one for one in range(count))
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(listed), at, 0)
    return data[:at] + listed + end


LOCATOR = WHOLE.rindex(b"PK\6\7")
RECORD = WHOLE.rindex(b"PK\6\6")
END = len(WHOLE) - 22
AMBIGUOUS = {
    "the locator points elsewhere": (put(WHOLE, LOCATOR + 8, "<Q", 0), "ZIP64 locator points"),
    "several disks": (put(WHOLE, LOCATOR + 16, "<L", 2), "one part of several"),
    "a disk of a file": (put(WHOLE, entry(WHOLE) + 34, "<H", 1), "disk 1"),
    "no ZIP64 record": (put(WHOLE, RECORD, "<L", 0), "damaged"),
    "a longer ZIP64 record": (put(WHOLE, RECORD + 4, "<Q", 45), "unknown form"),
    "two numbers of files": (put(WHOLE, END + 10, "<H", 3), "say different things"),
    "a folder bit": (put(WHOLE, entry(WHOLE) + 38, "<L", 0x10), "marked as a folder"),
    "a link": (put(WHOLE, entry(WHOLE) + 38, "<L", 0o120777 << 16), "marked as a folder or a link"),
    "a folder by its name": (
        WHOLE.replace(STORAGE, b"archive/data0/"),
        "folder by its name and has 16 bytes",
    ),
    "an end record in the data": (
        torch_file({"w": torch.frombuffer(bytearray(b"PK\5\6" * 8), dtype=torch.uint8)}),
        "two end records",
    ),
    "an end record in the comment": (
        WHOLE[:-2] + b"\x16\0" + b"PK\5\6" + bytes(18),
        "two end records",
    ),
    "a comment": (WHOLE[:-2] + b"\2\0hi", "comment"),
    "another name for those who know it": (
        with_extra(b"\x75\x70\x05\0\1" + bytes(4)),
        "extra field 0x7075",
    ),
    "ZIP64 numbers that nobody asked for": (with_extra(b"\1\0\x08\0" + bytes(8)), "ZIP64 numbers"),
    "a cut extra field": (with_extra(b"\1\0\x08"), "damaged extra field"),
    "a version of the future": (put(WHOLE, entry(WHOLE) + 6, "<H", 99), "needs version 99"),
    "a strange method": (put(WHOLE, entry(WHOLE) + 10, "<H", 12), "packed by method 12"),
    "a gap behind the directory": (
        put(WHOLE[:RECORD] + b"gap!" + WHOLE[RECORD:], LOCATOR + 4 + 8, "<Q", RECORD + 4),
        "directory ends at byte",
    ),
    "a million files": (
        put(
            put(put(WHOLE, END + 8, "<L", 0xFFFFFFFF), RECORD + 24, "<Q", 10**6),
            RECORD + 32,
            "<Q",
            10**6,
        ),
        "1000000 files; at most",
    ),
    "no end record": (WHOLE[:-22], "no end record"),
    "bytes behind the end": (WHOLE + b"hi", "bytes follow"),
    "another CRC": (put(WHOLE, entry(WHOLE) + 16, "<L", 7), "behind its data|CRC"),
    "another place": (put(WHOLE, entry(WHOLE) + 42, "<L", 8), "begins at byte 8, not"),
    "names that differ in case": (named("a/x", "a/X"), "two files of one name"),
    "names of one look": (named("a/x\u212b", "a/x\u00c5"), "two files of one name"),
    "a name with a line feed": (named("a/x\n"), "readers cut or change"),
    "a name with a backslash": (named("a\\x"), "leads out"),
    "a name of dots": (named("a/../x"), "leads out"),
    "an absolute name": (named("/x"), "leads out"),
    "a name without its encoding": (
        named("a/x").replace(b"a/x", b"a/\xe9"),
        "decode differently",
    ),
    "a name with a NUL": (named("a/xy").replace(b"a/xy", b"a/x\0"), "cut or change"),
    "files that overlap": (overlapping(1400), "before its data"),
}


def test_the_archive_before_its_changes_is_accepted(tmp_path):
    (tmp_path / "a.pt").write_bytes(WHOLE)
    assert read_state_dict(tmp_path / "a.pt").verdict == "accepted"
    assert with_extra(b"") == WHOLE
    (tmp_path / "a.pt").write_bytes(with_extra(b"UT\5\0\1" + bytes(4)))  # a time is no ambiguity
    assert read_state_dict(tmp_path / "a.pt").verdict == "accepted"


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_what_readers_read_differently_is_refused_in_one_line_and_fast(tmp_path, name):
    data, reason = AMBIGUOUS[name]
    path = tmp_path / "a.pt"
    path.write_bytes(data)
    started = time.process_time()
    verdict = read_state_dict(path)
    found = scan_model_files(path).findings
    assert time.process_time() - started < 1
    assert verdict.verdict == "refused"
    (said,) = verdict.reasons
    assert re.search(reason, said), said
    assert "\n" not in said
    assert {one.severity for one in found} & {"high", "critical"}


def split(marker: Path) -> bytes:
    """Return one file that is two archives: zipfile reads a tensor, torch calls os.system."""
    call = b"\x80\x02cposix\nsystem\nX" + struct.pack("<L", len(f"touch {marker}"))
    inner = {"data.pkl": call + f"touch {marker}".encode() + b"\x85R.", "version": b"3\n"}

    def hidden(start: int) -> tuple[bytes, int]:
        target = io.BytesIO()
        target.write(bytes(start))
        with zipfile.ZipFile(target, "w") as archive:
            for name, content in inner.items():
                archive.writestr(f"archive/{name}", content)
        body = target.getvalue()[start:-22]
        size, offset = struct.unpack("<2L", target.getvalue()[-10:-2])
        record = (b"PK\6\6", 44, 45, 45, 0, 0, 2, 2, size, offset)
        return body + struct.pack("<4sQ2H2L4Q", *record), start + len(body)

    length = len(hidden(0)[0])
    outer = torch_file({"w": torch.full((length,), 0xA5, dtype=torch.uint8)})
    content, place = hidden(outer.index(b"\xa5" * length))
    data = torch_file({"w": torch.frombuffer(bytearray(content), dtype=torch.uint8)})
    return put(data, data.rindex(b"PK\6\7") + 8, "<Q", place)


def test_the_file_that_is_two_archives_is_live_and_refused(tmp_path, marker, events):
    path = tmp_path / "split.pt"
    path.write_bytes(split(marker))
    assert "archive/data/0" in zipfile.ZipFile(path).namelist()
    reader = torch._C.PyTorchFileReader(str(path))
    assert "data/0" not in reader.get_all_records()  # torch sees the other one
    assert "ZIP64 locator" in read_state_dict(path).reasons[0]
    assert {"PM004", "PM001"} == {one.rule for one in scan_model_files(path).findings}
    imported = import_model(path, arch="small_cnn", out=tmp_path / "model")
    assert imported.values["verdict"] == "refused"
    with pytest.raises(Refused, match="ZIP64 locator"):
        read_weights(path)
    assert events == []
    assert not marker.exists()


def test_a_zip_of_other_things_is_read_whole(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("docs")
        archive.writestr("docs/a.txt", "text " * 100)
        archive.comment = b"made by hand"
    assert scan_model_files(tmp_path).findings == ()
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:
        archive.writestr("docs/net.pt", WHOLE)
        archive.writestr("b.pkl", b"cposix\nsystem\n(S'true'\ntR.")
    found = [one.message for one in scan_model_files(tmp_path).findings]
    assert any("docs/net.pt: the file is a torch archive" in message for message in found)
    assert any("b.pkl: loading would import 'posix.system'" in message for message in found)


class Pipe(io.RawIOBase):
    """A file in which nobody can go back."""

    def __init__(self) -> None:
        self.content = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        self.content += bytes(data)
        return len(bytes(data))


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_archives_written_to_a_pipe_are_read(tmp_path, method, large):
    target, array = Pipe(), io.BytesIO()
    np.save(array, np.arange(9))
    with (
        zipfile.ZipFile(target, "w", method) as archive,
        archive.open("x.npy", "w", force_zip64=large) as member,
    ):
        member.write(array.getvalue())
    (tmp_path / "a.npz").write_bytes(target.content)
    assert read_arrays(tmp_path / "a.npz")["x"].tolist() == list(range(9))


def test_a_torch_file_beyond_four_gigabytes_has_a_layout(tmp_path):
    state = {"a": torch.empty(1_200_000_000), "none": torch.empty(0), "b": torch.empty(3)}
    with torch.serialization.skip_data():  # a file with a hole: nothing is written
        torch.save(state, tmp_path / "a.pt")
    members = read_layout(mapped(tmp_path / "a.pt")).members
    assert members["a/data/0"].size == 4_800_000_000
    assert members["a/data/2"].start > 1 << 32


@pytest.mark.parametrize("alignment", [1, 64, 4096])
def test_every_alignment_of_storages_is_read(tmp_path, alignment):
    from torch.utils.serialization import config

    with config.patch("save.storage_alignment", alignment):
        torch.save({"w": torch.arange(5.0)}, tmp_path / "a.pt")
    assert read_state_dict(tmp_path / "a.pt").tensors["w"].tolist() == [0, 1, 2, 3, 4]


def test_a_packed_file_that_goes_on_behind_its_end_is_refused():
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x", b"a" * 1000)
    short = target.getvalue().replace(struct.pack("<L", 1000), struct.pack("<L", 999))
    with pytest.raises(Problem, match="does not unpack to the 999 bytes"):
        read_layout(memoryview(short)).read("x")
