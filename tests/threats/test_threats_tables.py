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
    unmodelled,
)
from purpleteam.threats.model import LETTERS
from threat_results import passing

TODAY = date(2026, 11, 20)


@pytest.fixture(scope="module")
def statuses(shipped):
    return derive(shipped, passing(shipped), TODAY)


def test_the_matrix_has_a_row_for_every_part_and_a_cell_for_every_letter(shipped):
    rows = matrix(shipped)
    assert [row.element for row in rows] == list(shipped.kinds)
    assert all(tuple(cell.stride for cell in row.cells) == LETTERS for row in rows)
    held = [name for row in rows for cell in row.cells for name in cell.threats]
    assert sorted(held) == sorted(one.id for one in shipped.threats)


def test_a_matrix_cell_shows_the_worst_of_its_threats(shipped, statuses):
    row = next(row for row in matrix(shipped, statuses) if row.element == "app")
    cell = row.cells[LETTERS.index("E")]
    assert cell.threats == ("T-APP-E1", "T-APP-E2")
    assert (cell.inherent, cell.residual, cell.status) == ("high", "medium", "partly")


def test_a_matrix_without_statuses_shows_nothing_derived(shipped):
    cells = [cell for row in matrix(shipped) for cell in row.cells if cell.threats]
    assert all(cell.status == "" and cell.residual is None for cell in cells)


def test_counts_leave_out_cells_that_are_not_applicable(small):
    counted = summary(derive(system_from(small), [], TODAY))
    assert counted.statuses["not_applicable"] == 2
    assert sum(counted.inherent.values()) == 1
    assert counted.mitigations == {"verified": 0, "failed": 0, "unverified": 2}


def test_a_found_weakness_that_no_threat_names_is_listed(small):
    assert unmodelled(system_from(small), ["CWE-345", "CWE-502", "CWE-502"]) == ("CWE-502",)


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
