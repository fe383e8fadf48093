"""The system that ships: complete, traced to both earlier reports, honest about plans."""

from __future__ import annotations

from collections import Counter
from datetime import date

from purpleteam.core.records import ThreatStatus
from purpleteam.threats import derive, missing, summary
from purpleteam.threats.stride import LETTERS, required_letters

TODAY = date(2026, 11, 20)
A_DENIES = {"Dataset": "SIE", "Model": "SIE", "Python object": "STRIDE", "User interface": ""}
A_NAMES = {"Dataset": "TRD", "Model": "TRD", "Python object": "", "User interface": "TD"}
B_NAMES = {"S": 3, "T": 3, "R": 2, "I": 3, "D": 2, "E": 2}


def passing(system):
    return {check: "pass" for one in system.mitigations for check in one.checks.ids}


def test_every_required_cell_holds_a_threat_or_a_reason(shipped):
    for part, kind in shipped.kinds.items():
        for letter in required_letters(kind):
            cell = (part, letter)
            assert shipped.threats_at(cell) or shipped.reason_at(cell), f"{part}/{letter}"
    assert missing(shipped).cells == ()


def test_a_cell_that_loses_its_answer_is_listed(bend):
    from purpleteam.threats import system_from

    gaps = missing(system_from(bend("not_applicable", 0, stride=["R"])))
    assert "file/I" in gaps.cells
    assert "file/R" not in gaps.cells
    assert {"user/S", "app/E", "f-ask/D"} <= set(gaps.cells)


def test_every_statement_of_both_reports_is_answered(shipped):
    assert missing(shipped).untraced == ()


def test_every_cell_of_report_a_is_there_as_it_was_marked(shipped):
    for kind, marked in (("threat", A_NAMES), ("denied", A_DENIES)):
        for element, letters in marked.items():
            found = {
                one.stride
                for one in shipped.seed_items
                if (one.seed, one.kind, one.element) == ("A", kind, element)
            }
            assert found == set(letters), (kind, element)


def test_every_threat_of_report_b_is_there_by_category(shipped):
    found = Counter(
        one.stride for one in shipped.seed_items if (one.seed, one.kind) == ("B", "threat")
    )
    assert found == B_NAMES
    assert [one.stride for one in shipped.seed_levels] == list(LETTERS)


def test_every_threat_of_the_reports_leads_to_a_threat_of_ours(shipped):
    ours = {origin for one in shipped.threats for origin in one.origin}
    for item in shipped.seed_items:
        if item.kind == "threat" or (item.kind == "denied" and item.note):
            assert item.id in ours, item.id


def test_at_least_fourteen_mitigations_are_tied_to_checks_and_the_others_say_why(shipped):
    plans = [one for one in shipped.mitigations if not one.checks.ids]
    assert len(shipped.mitigations) - len(plans) >= 14
    assert all(one.why for one in shipped.mitigations)
    assert {one.id for one in plans} == set(missing(shipped).unchecked)


def test_checks_belong_to_rooms_that_have_them(shipped):
    rooms = {check.partition(".")[0] for check in passing(shipped)}
    assert rooms == {"code", "data", "model", "run", "web"}
    assert missing(shipped, known_checks=[]).unknown_checks == tuple(sorted(passing(shipped)))


def test_every_threat_names_a_mitigation_or_is_accepted(shipped):
    assert missing(shipped).unmitigated == ()


def test_every_catalogued_name_is_used(shipped):
    used = {ref for one in shipped.threats for refs in one.refs.values() for ref in refs}
    assert set(shipped.catalogue) <= used


def test_with_every_check_passing_the_plans_still_keep_threats_open(shipped):
    statuses = derive(shipped, passing(shipped), TODAY)
    state = {one.threat: one.status for one in statuses}
    assert state["T-WEIGHTS-E1"] == "mitigated"
    assert state["T-WEIGHTS-T1"] == "partly"
    assert state["T-DRAWING-T1"] == "open"
    counted = summary(statuses)
    assert counted.statuses["open"] and counted.statuses["partly"]
    assert counted.mitigations["failed"] == 0
    assert counted.worst == "high"


def test_one_failed_check_takes_a_threat_back(shipped):
    results = passing(shipped) | {"model.format": "fail"}
    before, after = (
        {one.threat: one for one in derive(shipped, found, TODAY)}
        for found in (passing(shipped), results)
    )
    changed = after["T-WEIGHTS-E1"]
    assert isinstance(changed, ThreatStatus)
    assert (before["T-WEIGHTS-E1"].status, changed.status) == ("mitigated", "partly")
    assert changed.mitigations["M-SAFE-FORMAT"]["status"] == "failed"


def test_an_expired_acceptance_opens_its_threat_again(shipped):
    late = {one.threat: one.status for one in derive(shipped, {}, date(2099, 1, 1))}
    assert {late[one.threat] for one in shipped.accepted} == {"open"}
