from __future__ import annotations

import json
from datetime import date

import pytest

from purpleteam.core.records import Note, record_from_json
from purpleteam.threats import (
    derive,
    matrix,
    seed_a_matrix,
    seed_b_appendix,
    seed_b_categories,
    seed_lines,
    summary,
    system_from,
    to_facts,
    unmodelled,
)
from purpleteam.threats.stride import LETTERS, STRIDE

TODAY = date(2026, 11, 20)


@pytest.fixture(scope="module")
def statuses(shipped):
    results = {check: "pass" for one in shipped.mitigations for check in one.checks.ids}
    return derive(shipped, results, TODAY)


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
    counted = summary(derive(system_from(small), {}, TODAY))
    assert counted.statuses["not_applicable"] == 2
    assert sum(counted.inherent.values()) == 1
    assert counted.mitigations == {"verified": 0, "failed": 0, "unverified": 2}


def test_a_found_weakness_that_no_threat_names_is_listed(small):
    assert unmodelled(system_from(small), ["CWE-345", "CWE-502", "CWE-502"]) == ("CWE-502",)


def test_report_a_has_its_four_rows_with_six_cells_each(shipped, statuses):
    rows = seed_a_matrix(shipped, statuses)
    names = [row.element for row in rows]
    assert names == ["Dataset", "Model", "Python object", "User interface"]
    assert all(tuple(cell.stride for cell in row.cells) == LETTERS for row in rows)


def test_a_denied_threat_stands_beside_the_one_that_we_have(shipped, statuses):
    model = seed_a_matrix(shipped, statuses)[1].cells[LETTERS.index("E")]
    assert model.kind == "denied"
    assert "T-WEIGHTS-E1" in model.ours
    assert (model.inherent, model.residual) == ("high", "low")
    assert "CWE-502" in model.note


def test_report_b_has_six_categories_with_its_threats_and_mitigations(shipped, statuses):
    rows = {row.stride: row for row in seed_b_categories(shipped, statuses)}
    assert tuple(rows) == LETTERS
    assert [one.id for one in rows["D"].threats] == ["B-D-1", "B-D-2"]
    assert [one.status for one in rows["D"].mitigations] == ["verified", "unverified", "unverified"]
    assert sum(rows["D"].states.values()) == 3


def test_the_appendix_of_report_b_disagrees_with_its_own_ratings_in_four_rows(shipped):
    rows = seed_b_appendix(shipped)
    assert [row.stride for row in rows if not row.agrees] == ["S", "T", "R", "D"]
    assert {row.stride: row.computed for row in rows}["T"] == "critical"


def test_a_claimed_mitigation_is_verified_only_if_all_that_answer_it_are(shipped, statuses):
    lines = {one.id: one.status for seed in "AB" for one in seed_lines(shipped, seed, statuses)}
    assert lines["A-FIX-1"] == "verified"
    assert lines["A-FIX-3"] == "unverified"
    assert lines["B-FIX-14"] == "unverified"


def test_the_facts_are_plain_and_survive_a_record(shipped, statuses):
    note = Note(name="system-model", facts=to_facts(shipped, statuses))
    back = record_from_json(json.loads(json.dumps(note.to_json())))
    assert isinstance(back, Note)
    assert back.id == note.id
    assert back.facts["summary"]["worst"] == "high"


def test_every_list_of_the_facts_is_a_table_of_flat_rows(shipped, statuses):
    facts = to_facts(shipped, statuses)
    tables = [*facts["seed_tables"].values()]
    tables += [facts[name] for name in ("zones", "elements", "flows", "threats", "cells")]
    for row in (row for table in tables for row in table):
        for value in row.values():
            assert not isinstance(value, dict)
            assert not isinstance(value, list) or all(isinstance(one, str) for one in value)


def test_the_facts_say_in_which_order_columns_are_read(shipped):
    facts = to_facts(shipped)
    assert facts["columns"]["flows"][:3] == ["number", "id", "name"]
    tables = facts["seed_tables"] | {name: facts[name] for name in ("flows", "cells", "threats")}
    for name, rows in tables.items():
        assert all(set(row) == set(facts["columns"][name]) for row in rows), name


def test_the_facts_tell_what_report_a_says_and_what_stands_here(shipped, statuses):
    rows = to_facts(shipped, statuses)["seed_tables"]["A, elements and letters"]
    assert rows[1]["tampering"] == (
        "says: a threat; ours: T-WEIGHTS-T1, T-WEIGHTS-T2 (high, remains low, partly)"
    )
    assert set(rows[0]) == {"element"} | {one.lower().replace(" ", "_") for one in STRIDE.values()}


def test_the_facts_name_the_level_that_report_b_states_beside_the_computed_one(shipped):
    row = to_facts(shipped)["seed_tables"]["B, appendix"][1]
    assert (row["category"], row["said_level"], row["computed_level"], row["agrees"]) == (
        "Tampering",
        "High",
        "critical",
        "no",
    )


def test_a_system_without_earlier_reports_has_no_tables_of_them(small):
    del small["seed_items"]
    small["threats"][0]["origin"] = []
    assert to_facts(system_from(small))["seed_tables"] == {}
