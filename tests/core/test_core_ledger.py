"""The hash-chained file: an edit is found, and what a kill left half done is no damage."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from purpleteam.core.errors import RunError
from purpleteam.core.ledger import GENESIS, Ledger

LINES = [
    {"kind": "note", "value": 0.30000000000000004, "id": "n-1"},
    {"kind": "note", "text": 'é "quoted"\r\n', "id": "n-2"},
    {"kind": "note", "nested": {"small": 1e-05, "rows": [1, None, True]}, "id": "n-3"},
]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger(tmp_path / "records.jsonl")
    made.append(LINES)
    return made


def test_lines_come_back_in_order(ledger):
    ledger.append([{"id": "n-4"}])
    assert Ledger(ledger.path).read() == [*LINES, {"id": "n-4"}]


def test_a_file_that_is_not_there_holds_nothing(tmp_path):
    ledger = Ledger(tmp_path / "none.jsonl")
    assert ledger.read() == []
    assert ledger.head() == {"lines": 0, "chain": GENESIS}


def test_the_head_is_the_chain_value_of_the_last_line(ledger):
    last = json.loads(ledger.path.read_bytes().splitlines()[-1])
    assert ledger.head() == {"lines": 3, "chain": last["chain"]}


def test_batches_and_single_lines_make_the_same_file(ledger, tmp_path):
    other = tmp_path / "other.jsonl"
    for line in LINES:
        Ledger(other).append([line])
    assert other.read_bytes() == ledger.path.read_bytes()


def is_found(path: Path, content: bytes) -> bool:
    path.write_bytes(content)
    try:
        Ledger(path).read()
    except RunError:
        return True
    return False


@pytest.mark.parametrize("flip", [1, 32])
def test_a_flipped_bit_in_every_byte_is_found(ledger, flip):
    whole = ledger.path.read_bytes()
    for place, byte in enumerate(whole):
        edited = whole[:place] + bytes([byte ^ flip]) + whole[place + 1 :]
        assert is_found(ledger.path, edited), place


def test_another_end_of_line_is_found_wherever_it_is_put(ledger):
    whole = ledger.path.read_bytes()
    for place in range(len(whole)):
        assert is_found(ledger.path, whole[:place] + b"\r" + whole[place + 1 :]), place


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(number=st.integers(0, 2), place=st.integers(0, 120), other=st.integers(0, 255))
def test_any_byte_put_in_any_place_is_found(tmp_path, number, place, other):
    path = tmp_path / "records.jsonl"
    path.unlink(missing_ok=True)
    Ledger(path).append(LINES)
    lines = path.read_bytes().splitlines(keepends=True)
    before = lines[number]
    lines[number] = before[:place] + bytes([other]) + before[place + 1 :]
    assert lines[number] == before or is_found(path, b"".join(lines))


@pytest.mark.parametrize("removed", [0, 1])
def test_a_removed_line_is_found(ledger, removed):
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    ledger.path.write_bytes(b"".join(lines[:removed] + lines[removed + 1 :]))
    with pytest.raises(RunError, match=f"hash chain breaks at line {removed + 1}"):
        ledger.read()


def test_a_missing_end_shows_in_the_head(ledger):
    before = ledger.head()
    ledger.keep(2)
    assert len(ledger.read()) == 2
    assert ledger.head() != before


@pytest.mark.parametrize(("one", "other"), [(0, 1), (1, 2), (0, 2)])
def test_swapped_lines_are_found(ledger, one, other):
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    lines[one], lines[other] = lines[other], lines[one]
    ledger.path.write_bytes(b"".join(lines))
    with pytest.raises(RunError, match=f"hash chain breaks at line {one + 1}"):
        ledger.read()


def test_a_line_that_was_put_in_is_found(ledger):
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    ledger.path.write_bytes(b"".join([lines[0], lines[0], *lines[1:]]))
    with pytest.raises(RunError, match="hash chain breaks at line 2"):
        ledger.read()


@pytest.mark.parametrize("line", [b"", b"[]", b"7", b"{}", b'"text"', b"[" * 100_000, b"\xff\xfe"])
def test_a_line_that_is_no_record_is_damage(ledger, line):
    ledger.path.write_bytes(line + b"\n" + ledger.path.read_bytes())
    with pytest.raises(RunError, match="line 1 is damaged"):
        ledger.read()


def test_a_torn_last_line_is_survived_wherever_it_was_cut(ledger, monkeypatch):
    monkeypatch.setattr("os.fsync", int)  # hundreds of them take seconds
    whole = ledger.path.read_bytes()
    ends = [place + 1 for place, byte in enumerate(whole) if byte == 10]
    for cut in range(len(whole) + 1):
        ledger.path.write_bytes(whole[:cut])
        complete = sum(end <= cut for end in ends)
        again = Ledger(ledger.path)
        assert again.read() == LINES[:complete]
        again.append([{"id": "n-9"}])
        assert Ledger(ledger.path).read() == [*LINES[:complete], {"id": "n-9"}]


def test_a_write_that_failed_half_way_is_cut_before_the_next(ledger, monkeypatch):
    def full(number: int) -> None:
        os.ftruncate(number, os.fstat(number).st_size - 5)
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="disk full"):
            ledger.append([{"id": "n-4"}])
    ledger.append([{"id": "n-5"}])
    assert Ledger(ledger.path).read() == [*LINES, {"id": "n-5"}]


def test_nothing_is_written_of_a_batch_that_json_cannot_hold(ledger):
    with pytest.raises(ValueError, match="JSON"):
        ledger.append([{"id": "n-4"}, {"value": float("nan")}])
    ledger.append([{"id": "n-5"}])
    assert ledger.read() == [*LINES, {"id": "n-5"}]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 9])
def test_keep_cuts_back_and_the_chain_goes_on(ledger, count):
    ledger.keep(count)
    ledger.append([{"id": "n-9"}])
    assert Ledger(ledger.path).read() == [*LINES[:count], {"id": "n-9"}]
