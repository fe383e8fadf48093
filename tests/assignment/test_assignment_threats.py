"""Both course reports beside what is derived here: every statement is answered, as it was made."""

from __future__ import annotations

from collections import Counter
from datetime import date

import pytest

from purpleteam.assignment.threats import beside, reports, tables_of, with_origins
from purpleteam.core.schema import STRIDE
from purpleteam.threats import derive, load_system, to_facts
from purpleteam.threats.model import LETTERS
from threat_results import passing

A_DENIES = {"Dataset": "SIE", "Model": "SIE", "Python object": "STRIDE", "User interface": ""}
A_NAMES = {"Dataset": "TRD", "Model": "TRD", "Python object": "", "User interface": "TD"}
B_NAMES = {"S": 3, "T": 3, "R": 2, "I": 3, "D": 2, "E": 2}


@pytest.fixture(scope="module")
def shipped():
    return load_system()


@pytest.fixture(scope="module")
def statuses(shipped):
    return derive(shipped, passing(shipped), date(2026, 11, 20))


@pytest.fixture(scope="module")
def facts(shipped, statuses):
    return tables_of(shipped, statuses)


def test_every_statement_of_both_reports_is_answered(shipped):
    ids = {*shipped.names, *shipped.mitigation, *(one.id for one in shipped.threats)}
    ids |= {f"{one.element}/{''.join(one.stride)}" for one in shipped.not_applicable}
    assert set(reports().origins) <= ids
    known = {one.id for one in reports().items}
    assert known == {origin for origins in reports().origins.values() for origin in origins}
    assert len(known) == len(reports().items)


def test_every_cell_of_report_a_is_there_as_it_was_marked():
    for kind, marked in (("threat", A_NAMES), ("denied", A_DENIES)):
        for element, letters in marked.items():
            stated = {
                one.stride
                for one in reports().items
                if (one.report, one.kind, one.element) == ("A", kind, element)
            }
            assert stated == set(letters), (kind, element)


def test_every_threat_of_report_b_is_there_by_category():
    threats = [one for one in reports().items if (one.report, one.kind) == ("B", "threat")]
    assert Counter(one.stride for one in threats) == B_NAMES
    assert [one.stride for one in reports().levels] == list(LETTERS)


def test_every_threat_of_the_reports_leads_to_a_threat_of_ours():
    ours = {
        origin
        for name, origins in reports().origins.items()
        for origin in origins
        if name.startswith("T-")
    }
    for item in reports().items:
        if item.kind == "threat" or (item.kind == "denied" and item.note):
            assert item.id in ours, item.id


def test_a_status_names_the_statements_that_its_threat_or_its_reason_answers(statuses):
    assert not any(one.origin for one in statuses)
    origins = {one.threat: one.origin for one in with_origins(statuses)}
    assert origins["T-WEIGHTS-T1"] == ("A-T-2", "B-T-2")
    assert (origins["N-DATASET-E"], origins["N-MIRROR-R"]) == (("A-E-1",), ())


def test_report_a_has_its_four_rows_with_six_cells_each(facts):
    rows = facts["tables"]["A, elements and letters"]
    elements = [row["element"] for row in rows]
    assert elements == ["Dataset", "Model", "Python object", "User interface"]
    assert all(len(row) == 1 + len(LETTERS) and all(row.values()) for row in rows)


def test_a_denied_threat_stands_beside_the_one_that_we_have(shipped, statuses):
    rows = beside(shipped, "A", statuses)
    model = next(row for said, row in rows.items() if (said.element, said.stride) == ("Model", "E"))
    assert model["kind"] == "denied"
    assert "T-WEIGHTS-E1" in model["ours"]
    assert (model["our_level"], model["remains"]) == ("high", "medium")
    assert "CWE-502" in model["note"]


def test_report_b_has_six_categories_with_its_threats_and_mitigations(facts):
    rows = {row["category"]: row for row in facts["tables"]["B, categories"]}
    assert list(rows) == list(STRIDE.values())
    denial = rows["Denial of service"]
    says = {one.id: one.says for one in reports().items}
    assert [text.rpartition(" (")[0] for text in denial["threats"]] == [
        says["B-D-1"],
        says["B-D-2"],
    ]
    stated = [text.rpartition(" (")[2] for text in denial["mitigations"]]
    assert stated == ["verified)"] * 3
    assert sum(int(part.split()[0]) for part in denial["our_threats"].split(", ")) == 3


def test_the_appendix_of_report_b_disagrees_with_its_own_ratings_in_four_rows(shipped):
    rows = {row["category"]: row for row in tables_of(shipped)["tables"]["B, appendix"]}
    differ = [name for name, row in rows.items() if row["agrees"] == "no"]
    assert differ == [STRIDE[letter] for letter in "STRD"]
    assert rows["Tampering"]["computed_level"] == "critical"


def test_a_claimed_mitigation_is_verified_only_if_all_that_answer_it_are(shipped, statuses):
    rows = [row for one in "AB" for row in beside(shipped, one, statuses).values()]
    states = {row["id"]: row["status"] for row in rows}
    assert states["A-FIX-1"] == "verified"
    assert states["A-FIX-3"] == "verified"
    assert states["A-FIX-4"] == "unverified"
    assert states["B-FIX-14"] == "verified"
    assert states["B-FIX-24"] == "unverified"


def test_the_facts_tell_what_report_a_says_and_what_stands_here(facts):
    rows = facts["tables"]["A, elements and letters"]
    assert rows[1]["tampering"] == (
        "says: a threat; ours: T-WEIGHTS-T1, T-WEIGHTS-T2 (high, remains low, mitigated)"
    )
    assert set(rows[0]) == {"element"} | {one.lower().replace(" ", "_") for one in STRIDE.values()}


def test_the_facts_name_the_level_that_report_b_states_beside_the_computed_one(facts):
    row = facts["tables"]["B, appendix"][1]
    assert (row["category"], row["said_level"], row["computed_level"], row["agrees"]) == (
        "Tampering",
        "High",
        "critical",
        "no",
    )


def test_every_table_has_flat_rows_and_says_in_which_order_its_columns_are_read(facts):
    for name, rows in facts["tables"].items():
        assert all(set(row) == set(facts["columns"][name]) for row in rows), name
        for value in (value for row in rows for value in row.values()):
            assert not isinstance(value, dict)
            assert not isinstance(value, list) or all(isinstance(one, str) for one in value)


def test_without_them_nothing_here_names_the_reports(shipped, statuses):
    assert "tables" not in to_facts(shipped, statuses)
