"""Pickles that begin somewhere in a file: at the edges of its pieces, and with nonsense behind."""

from __future__ import annotations

import pytest

from purpleteam.scan.formats import walk

CALL = b"(S'true'\ntR"
BEGINNINGS = {
    "mark of a protocol": b"\x80\x02cos\nsystem\n",
    "two lines": b"cos\nsystem\n",
    "two texts": b"\x8c\x02os\x8c\x06system\x93",
}


@pytest.mark.parametrize("begins", BEGINNINGS)
def test_a_pickle_is_found_wherever_a_piece_of_its_file_ends(monkeypatch, begins):
    monkeypatch.setattr(walk, "PIECE", 64)
    for ahead in range(130):
        data = memoryview(b"\xff" * ahead + BEGINNINGS[begins] + CALL + b".")
        found = list(walk.hidden_pickles(data, 0, 10_000))
        assert [one.imports[0][0] for one in found] == ["os.system"], ahead


@pytest.mark.parametrize("behind", [b"c \n \n)R.", b"\xff", b"R", b"cos\n", b""])
def test_a_call_is_one_whatever_nonsense_is_behind_it(behind):
    data = memoryview(BEGINNINGS["two lines"] + CALL + behind)
    told = walk.walk_pickle(data)
    assert told.calls_a_name and told.calls == 1
    assert [one.calls for one in walk.hidden_pickles(data, 0, 10_000)] == [1]
