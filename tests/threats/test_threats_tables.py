from __future__ import annotations

import json
from datetime import date

import pytest

from purpleteam.core.records import Note, record_from_json
from purpleteam.threats import (
    derive,
    matrix,
    summary,
    system_from,
    to_facts,
)
from purpleteam.threats.model import LETTERS
from threat_results import passing

TODAY = date(2026, 11, 20)


@pytest.fixture(scope="module")
def statuses(shipped):
    return derive(shipped, passing(shipped), TODAY)


def test_the_matrix_has_a_cell_for_every_part_and_letter(shipped):
    cells = matrix(shipped)
    assert list(cells) == [(part, letter) for part in shipped.kinds for letter in LETTERS]
    held = [name for text in cells.values() for name in text.split(", ") if name[:2] == "T-"]
    assert sorted(held) == sorted(one.id for one in shipped.threats)


def test_a_matrix_cell_shows_the_worst_of_its_threats(shipped, statuses):
    assert matrix(shipped, statuses)["app", "E"] == "T-APP-E1, T-APP-E2: mitigated"


def test_a_matrix_without_statuses_shows_nothing_derived(shipped):
    assert not [text for text in matrix(shipped).values() if ":" in text]


def test_counts_leave_out_cells_that_are_not_applicable(small):
    counted = summary(derive(system_from(small), [], TODAY))
    assert counted["statuses"]["not_applicable"] == 2
    assert sum(counted["inherent"].values()) == 1
    assert counted["mitigations"] == {"verified": 0, "failed": 0, "unverified": 2}


def test_the_facts_are_plain_and_survive_a_record(shipped, statuses):
    note = Note(name="system-model", facts=to_facts(shipped, statuses))
    back = record_from_json(json.loads(json.dumps(note.to_json())))
    assert isinstance(back, Note)
    assert back.id == note.id
    assert back.facts["summary"]["worst"] == "high"


def test_every_list_of_the_facts_is_a_table_of_flat_rows(shipped, statuses):
    facts = to_facts(shipped, statuses)
    tables = [facts[name] for name in ("zones", "elements", "flows", "threats", "cells")]
    for row in (row for table in tables for row in table):
        for value in row.values():
            assert not isinstance(value, dict)
            assert not isinstance(value, list) or all(isinstance(one, str) for one in value)


def test_the_facts_say_in_which_order_columns_are_read(shipped):
    facts = to_facts(shipped)
    assert facts["columns"]["flows"][:3] == ["number", "id", "name"]
    for name in ("flows", "cells", "threats"):
        assert all(set(row) == set(facts["columns"][name]) for row in facts[name]), name
