"""The audit log as a file: what is written stays, and what is changed shows."""

from __future__ import annotations

import fcntl
import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from purpleteam.core.errors import Refused, UsageError
from purpleteam.serve.audit.log import CHECKPOINT, AuditLog, beside, encoded
from purpleteam.serve.audit.verify import prove, proved, public_key, verify_log

FEW = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@contextmanager
def written(path: Path, lines: int = 0) -> Iterator[AuditLog]:
    """A log, open, with so many more lines; signed at the end."""
    log = AuditLog(path)
    for number in range(lines):
        log.write(encoded({"kind": "predict", "label": number}))
    yield log
    log.close()


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of 13 lines, with a checkpoint in line 7 and one in line 13."""
    path = tmp_path_factory.mktemp("signed") / "audit.jsonl"
    with written(path, 5) as log:
        log.checkpoint()
        log.write(b"".join(encoded({"kind": "predict", "label": number}) for number in range(5)))
    return path


def copy(signed: Path, folder: Path, content: bytes) -> Path:
    """Other content, beside the keys and the checkpoints of the log."""
    path = folder / signed.name
    path.write_bytes(content)
    for kind in ("pub", "checkpoints"):
        beside(path, kind).write_bytes(beside(signed, kind).read_bytes())
    return path


def test_a_log_that_was_left_alone_verifies(signed: Path) -> None:
    verification = verify_log(signed)
    assert (verification.verdict, verification.lines, verification.signed) == ("pass", 13, 12)
    kinds = [json.loads(line).get("kind") for line in signed.read_text("utf-8").splitlines()]
    assert kinds == ["start", *["predict"] * 5, None, *["predict"] * 5, None]


def test_the_secret_is_for_its_owner_alone(signed: Path) -> None:
    assert beside(signed, "key").stat().st_mode & 0o777 == 0o600
    assert signed.stat().st_mode & 0o777 == 0o600


@given(data=st.data())
@FEW
def test_every_changed_byte_is_found(data: st.DataObject, signed: Path, tmp_path: Path) -> None:
    content = bytearray(signed.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    found = verify_log(copy(signed, tmp_path, bytes(content)))
    # Only the last checkpoint's own line is not signed: it may be torn, or be a line as any other.
    last = signed.read_bytes().rindex(b"\n" + CHECKPOINT) + 1
    unsigned = at == len(content) - 1 or last <= at < last + len(CHECKPOINT)
    assert found.verdict == ("pass" if unsigned else "fail")


def test_what_the_next_writer_goes_on_from_is_held_too(signed: Path, tmp_path: Path) -> None:
    content = signed.read_bytes()
    at = content.rindex(b'"edge":["') + 9
    other = b"1" if content[at : at + 1] == b"0" else b"0"
    (told, _) = verify_log(copy(signed, tmp_path, content[:at] + other + content[at + 1 :])).parts
    assert told.message == "line 13: this checkpoint was edited"


@given(data=st.data())
@FEW
def test_every_lost_moved_or_added_line_is_found(
    data: st.DataObject, signed: Path, tmp_path: Path
) -> None:
    lines = signed.read_bytes().splitlines(keepends=True)
    at, to = (data.draw(st.integers(0, 11)) for _ in range(2))
    how = data.draw(st.sampled_from(["lose", "double", "swap", "cut"]))
    before = list(lines)
    if how == "lose":
        del lines[at]
    elif how == "double":
        lines.insert(at, lines[to])
    elif how == "swap":
        lines[at], lines[to] = lines[to], lines[at]
    else:
        del lines[at:]
    found = verify_log(copy(signed, tmp_path, b"".join(lines)))
    assert found.verdict == ("pass" if lines == before else "fail")


def test_it_is_said_where_a_change_is(signed: Path, tmp_path: Path) -> None:
    lines = signed.read_bytes().splitlines(keepends=True)
    lines[8] = lines[8].replace(b'"label":1', b'"label":7')
    (told, _) = verify_log(copy(signed, tmp_path, b"".join(lines))).parts
    assert "something in lines 7 to 12 is not as it was signed" in told.message


def test_only_a_checkpoint_from_elsewhere_shows_that_the_end_is_cut_off(
    signed: Path, tmp_path: Path
) -> None:
    path = copy(signed, tmp_path, b"".join(signed.read_bytes().splitlines(keepends=True)[:7]))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text(verify_log(signed).checkpoint, "utf-8")
    notes = beside(path, "checkpoints").read_text("utf-8")
    beside(path, "checkpoints").write_text(notes[: len(notes) // 2], "utf-8")
    assert verify_log(path).verdict == "pass"
    found = verify_log(path, checkpoints=[elsewhere])
    assert found.verdict == "fail" and "12 lines were signed, 7 are there" in found.parts[0].message


def test_only_a_key_from_elsewhere_shows_that_all_was_written_anew(
    signed: Path, tmp_path: Path
) -> None:
    path = tmp_path / signed.name
    with written(path, 3):
        pass
    assert verify_log(path).verdict == "pass"
    assert verify_log(path, key=public_key(beside(signed, "pub"))).verdict == "fail"


def test_without_a_checkpoint_nothing_is_known(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    assert verify_log(path).verdict == "unknown"
    log.leave()


def test_a_line_is_proved_to_whoever_has_the_key_alone(signed: Path) -> None:
    key, checkpoint = public_key(beside(signed, "pub")), verify_log(signed).checkpoint
    lines = signed.read_bytes().splitlines()
    proofs = [prove(signed, number, checkpoint) for number in range(1, 13)]
    assert all(proved(line, proof, key) for line, proof in zip(lines, proofs))
    assert not any(proved(lines[12], proof, key) for proof in proofs)
    assert not proved(lines[0], proofs[0].replace("index 0", "index 1"), key)
    with pytest.raises(UsageError, match="line 13 is not among the 12 lines that were signed"):
        prove(signed, 13, checkpoint)


@pytest.mark.parametrize("torn", [b'{"time":1.0,"kind":"pred', b"{"])
def test_a_torn_line_is_cut_off_and_told(
    torn: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "audit.jsonl"
    with written(path, 2):
        pass
    with path.open("ab") as file:
        file.write(torn)
    with written(path, 1):
        pass
    starts = [line for line in path.read_text("utf-8").splitlines() if '"start"' in line]
    assert [json.loads(line)["cut"] for line in starts] == [0, len(torn)]
    assert f"a torn last line of {len(torn)} bytes was cut off" in caplog.text
    assert verify_log(path).verdict == "pass"


def test_a_killed_writer_goes_on_from_its_last_checkpoint(signed: Path, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    log.write(encoded({"label": 1}))
    log.checkpoint()
    log.write(encoded({"label": 2}))
    log.leave()
    with written(path, 1):
        pass
    assert (verify_log(path).verdict, verify_log(path).lines) == ("pass", 7)


def test_what_was_signed_is_never_signed_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with written(path, 3):
        pass
    path.write_bytes(path.read_bytes().replace(b'"label":1', b'"label":9'))
    with written(path, 1):
        pass
    assert verify_log(path).verdict == "fail"


def test_a_log_that_was_cut_short_is_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with written(path, 3):
        pass
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(Refused, match="holds 1 lines, and 4 were signed"):
        AuditLog(path)


def test_a_log_whose_last_checkpoint_was_edited_is_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with written(path, 3):
        pass
    path.write_bytes(path.read_bytes().replace(b'"edge":["', b'"edge":["00'))
    with pytest.raises(Refused, match="last checkpoint is damaged"):
        AuditLog(path)


def test_a_log_without_its_key_is_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with written(path, 1):
        pass
    beside(path, "key").unlink()
    with pytest.raises(Refused, match=r"has lost its key, 'audit.jsonl.key'"):
        AuditLog(path)


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with written(path, 1):
        pass
    beside(path, "key").chmod(0o640)
    with pytest.raises(UsageError, match=r"others may read .* try: chmod 600"):
        AuditLog(path)


def test_what_a_confined_process_holds_open_lets_it_add_and_no_more(tmp_path: Path) -> None:
    with written(tmp_path / "audit.jsonl") as log:
        for number in log.filenos:
            flags = fcntl.fcntl(number, fcntl.F_GETFL)
            assert flags & os.O_ACCMODE == os.O_WRONLY and flags & os.O_APPEND


def test_a_log_has_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with written(path), pytest.raises(UsageError, match="being written by another server"):
        AuditLog(path)


def test_the_beginning_of_a_checkpoint_that_a_crash_left_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with written(path, 1):
        pass
    copies = beside(path, "checkpoints")
    copies.write_bytes(copies.read_bytes() + copies.read_bytes()[:-20])
    with written(path, 1):
        pass
    found = verify_log(path)
    assert (found.verdict, found.parts[0].message) == ("pass", "lines 1 to 5 fit 4 checkpoints")


def test_a_full_disk_loses_nothing_and_is_got_over(tmp_path: Path) -> None:
    path, line = tmp_path / "audit.jsonl", encoded({"filler": "a" * 400})
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    with written(path, 1) as log:
        size = path.stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, limit[1]))
        try:
            with pytest.raises(OSError, match="too large"):
                log.write(line)
            assert path.stat().st_size == size
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        log.write(line)
    assert (verify_log(path).verdict, verify_log(path).lines) == ("pass", 4)


@contextmanager
def full(path: Path, room: int) -> Iterator[None]:
    """A disk that takes so many bytes more of this file."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + room, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


@pytest.fixture
def cuts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse to cut a file, as the sandbox does."""

    def refuse(_file: int, _size: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "ftruncate", refuse)


@pytest.mark.usefixtures("cuts_nothing")
@pytest.mark.parametrize(("room", "begun"), [(0, 0), (100, 1), (430, 2), (900, 3)])
def test_what_cannot_be_cut_off_is_finished_once_there_is_room(
    tmp_path: Path, room: int, begun: int
) -> None:
    path, line = tmp_path / "audit.jsonl", encoded({"kind": "lost", "filler": "a" * 376})
    with written(path, 1) as log:
        with full(path, room):
            for _ in range(3):
                with pytest.raises(OSError, match="too large"):
                    log.write(line * 3)
        log.checkpoint()
        log.write(encoded({"kind": "predict"}))
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    kinds = [line.get("kind") for line in lines if "checkpoint" not in line]
    told = [line["lines"] for line in lines if line.get("kind") == "unanswered"]
    assert kinds.count("lost") == begun and told == [begun][: 1 if begun else 0]
    found = verify_log(path)
    assert (found.verdict, found.signed) == ("pass", len(lines) - 1)


@pytest.mark.usefixtures("cuts_nothing")
def test_a_disk_that_is_full_again_and_again_is_got_over(tmp_path: Path) -> None:
    path, line = tmp_path / "audit.jsonl", encoded({"kind": "lost", "filler": "a" * 400})
    with written(path, 1) as log:
        for room in (100, 345, 10, 30, 500):
            with full(path, room), pytest.raises(OSError, match="too large"):
                log.write(line)
        log.write(encoded({"kind": "predict"}))
    assert all(json.loads(line) for line in path.read_bytes().splitlines())
    assert verify_log(path).verdict == "pass"


@pytest.mark.usefixtures("cuts_nothing")
def test_a_copy_of_a_checkpoint_that_was_begun_is_finished(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with written(path, 1) as log:
        copies, file = beside(path, "checkpoints"), log._copies
        log._copies = os.open("/dev/full", os.O_WRONLY)
        with pytest.raises(OSError, match="No space"):
            log.checkpoint()
        os.close(log._copies)
        log._copies = file
        log.write(encoded({"kind": "predict"}))
    assert copies.read_text().count("purpleteam/audit/") == 2 * 2
    assert verify_log(path).verdict == "pass"


def test_a_log_that_could_not_be_synced_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_file: int) -> None:
        raise OSError("the disk is gone")

    path, line = tmp_path / "audit.jsonl", encoded({"kind": "predict"})
    with written(path, 1) as log:
        with monkeypatch.context() as disk:
            disk.setattr("purpleteam.serve.audit.log._sync", fail)
            with pytest.raises(OSError, match="the disk is gone"):
                log.write(line)
        with pytest.raises(OSError, match="can no longer be written"):
            log.write(line)
    with written(path, 1):
        pass
    assert verify_log(path).verdict == "pass"
