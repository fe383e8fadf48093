"""The system that ships: complete in whatever is there, honest about plans."""

from __future__ import annotations

import json
import re
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from purpleteam.core.errors import ConfigError
from purpleteam.core.records import ThreatStatus
from purpleteam.threats import derive, load_system, missing, summary, to_facts
from purpleteam.threats.loading import APP, CONDITIONS, only
from purpleteam.threats.model import REQUIRED
from threat_results import passing, ran

TODAY = date(2026, 11, 20)


def test_every_required_cell_holds_a_threat_or_a_reason(shipped):
    reasons = {(one.element, letter) for one in shipped.not_applicable for letter in one.stride}
    for part, kind in shipped.kinds.items():
        for letter in REQUIRED[kind]:
            cell = (part, letter)
            assert shipped.threats_at(cell) or cell in reasons, f"{part}/{letter}"
    assert missing(shipped)["cells"] == []


def test_a_cell_that_loses_its_answer_is_listed(bend):
    from purpleteam.threats import system_from

    gaps = missing(system_from(bend("not_applicable", 0, stride=["R"])))["cells"]
    assert "file/I" in gaps
    assert "file/R" not in gaps
    assert {"user/S", "app/E", "f-ask/D"} <= set(gaps)


def test_at_least_fourteen_mitigations_are_tied_to_checks_and_the_others_say_why(shipped):
    plans = [one for one in shipped.mitigations if not one.checks.ids]
    assert len(shipped.mitigations) - len(plans) >= 14
    assert all(one.why for one in shipped.mitigations)
    assert {one.id for one in plans} == set(missing(shipped)["unchecked"])


def test_checks_belong_to_rooms_that_have_them(shipped):
    checks = [one.check for one in passing(shipped)]
    rooms = {check.partition(".")[0] for check in checks}
    assert rooms == {"code", "data", "model", "packages", "privacy", "run", "web"}
    assert missing(shipped, known_checks=[])["unknown_checks"] == list(checks)


def test_every_threat_names_a_mitigation_or_is_accepted(shipped):
    assert missing(shipped)["unmitigated"] == []


def test_every_catalogued_name_is_used(shipped):
    used = {ref for one in shipped.threats for refs in one.refs.values() for ref in refs}
    assert set(shipped.catalogue) <= used


def test_with_every_check_passing_the_plans_still_keep_threats_open(shipped):
    statuses = derive(shipped, passing(shipped), TODAY)
    state = {one.threat: one.status for one in statuses}
    assert state["T-WEIGHTS-E1"] == "mitigated"
    assert state["T-WEIGHTS-R1"] == "mitigated"
    assert state["T-WEIGHTS-T1"] == state["T-RECORDS-T1"] == "mitigated"
    assert state["T-SOURCE-T1"] == "accepted"
    assert state["T-APP-E2"] == "mitigated"
    assert state["T-PACKAGES-T1"] == state["T-SOURCE-E1"] == "accepted"
    assert state["T-DRAWING-T1"] == "accepted"
    counted = summary(statuses)
    assert counted["statuses"]["open"] and counted["statuses"]["partly"]
    assert counted["mitigations"]["failed"] == 0
    assert counted["worst"] == "high"


def test_what_threatens_code_models_records_and_operator_is_mitigated_or_accepted(shipped):
    statuses = derive(shipped, passing(shipped), TODAY)
    rooms = ("T-WEIGHTS", "T-RECORDS", "T-OPERATOR", "T-SOURCE", "T-PACKAGES")
    asked = [one for one in statuses if one.threat.startswith(rooms)]
    assert len(asked) >= 20
    assert {one.threat: one.status for one in asked if one.status in ("open", "partly")} == {}


def test_one_failed_check_takes_a_threat_back(shipped):
    results = [*passing(shipped), ran("model.format", "fail")]
    before, after = (
        {one.threat: one for one in derive(shipped, found, TODAY)}
        for found in (passing(shipped), results)
    )
    changed = after["T-WEIGHTS-E1"]
    assert isinstance(changed, ThreatStatus)
    assert (before["T-WEIGHTS-E1"].status, changed.status) == ("mitigated", "partly")
    assert changed.mitigations["M-SAFE-FORMAT"]["status"] == "failed"


def test_an_expired_acceptance_opens_its_threat_again(shipped):
    late = {one.threat: one.status for one in derive(shipped, [], date(2099, 1, 1))}
    assert {late[one.threat] for one in shipped.accepted} == {"open"}


WHOLE = load_system(None, CONDITIONS)
PRESENT = st.sets(st.sampled_from(sorted(APP | {"brought"})))
BROUGHT = {"data", "model", "brought", "run", "code"}
OURS = re.compile(r"mnist|digit|draw|course|\bapp\b", re.IGNORECASE)


@given(PRESENT)
def test_whatever_is_there_every_required_cell_holds_a_threat_or_a_reason(present):
    system = only(WHOLE, present)
    assert missing(system)["cells"] == [] and missing(system)["unmitigated"] == []
    named = {name for threat in system.threats for name in threat.mitigations}
    assert named == set(system.mitigation)
    for one in system.not_applicable:
        assert not [letter for letter in one.stride if system.threats_at((one.element, letter))]


def test_only_what_is_there_is_in_the_system():
    system = load_system(None, BROUGHT)
    assert not {"app", "user", "assets", "trainer", "f-training"} & set(system.kinds)
    assert {"weights", "supplier", "dataset", "evaluator", "records", "source"} <= set(system.kinds)
    assert {zone.id for zone in system.zones} == {"internet", "lab", "serving", "supply"}
    assert not [one for one in system.mitigations if one.id.startswith("M-HEADERS")]
    always = {"T-PACKAGES-T1", "T-SOURCE-T1", "T-SOURCE-D1", "T-SOURCE-E1", "T-OPERATOR-S1"}
    assert {one.threat for one in system.accepted} == {*always, "T-WEIGHTS-I1"}


def test_a_system_of_others_names_their_model_and_dataset_and_nothing_of_ours():
    system = load_system(None, BROUGHT, model="owl.onnx", dataset="silhouettes")
    text = json.dumps(to_facts(system, derive(system, [], TODAY)), ensure_ascii=False)
    assert OURS.findall(text) == [] and "{" not in text.replace('{"', "").replace("{}", "")
    assert system.name == "owl.onnx on silhouettes" and text.count("silhouettes") > 3


def test_data_and_models_are_private_unless_somebody_says_that_they_are_public():
    def threats(*words):
        return {one.id for one in only(WHOLE, {*BROUGHT, *words}).threats}

    assert {"T-DATASET-I1", "T-WEIGHTS-I1"} <= threats()
    assert not {"T-DATASET-I1", "T-WEIGHTS-I1"} & threats("public-data", "public-model")


def test_a_long_name_is_cut_at_its_start():
    assert len(load_system(None, BROUGHT, model="x" * 300 + "/owl").name) < 90
    assert load_system(None, BROUGHT, model="x" * 300 + "/owl").name.startswith("...x")


def test_a_part_that_nobody_knows_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'brought'"):
        load_system(None, {"brougth"})


def test_a_chain_without_a_key_answers_accidents_and_no_attacker(shipped):
    named = {threat.id: threat.mitigations for threat in shipped.threats}
    assert named["T-RECORDS-T2"] == ("M-LEDGER",)
    assert "M-LEDGER" not in named["T-RECORDS-T1"] + named["T-OPERATOR-R1"]


def test_a_log_answers_no_tampering_and_no_spoofing(shipped):
    assert {one.stride for one in shipped.threats if "M-LINEAGE" in one.mitigations} == {"R"}
