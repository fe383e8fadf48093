from __future__ import annotations

from datetime import date, timedelta
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from purpleteam.core.records import CheckResult, Verdict
from purpleteam.threats import derive, load_system, system_from, verdicts
from purpleteam.threats.model import LEVELS, Checks
from purpleteam.threats.status import mitigation_state
from threat_results import passing, ran, said

TODAY = date(2026, 11, 20)
VERDICTS = get_args(Verdict)
SHIPPED = load_system()
CHECKS = sorted({check for one in SHIPPED.mitigations for check in one.checks.ids})
RESULTS = st.dictionaries(st.sampled_from(CHECKS), st.sampled_from(VERDICTS))
IDS = st.lists(st.sampled_from(CHECKS[:4]), unique=True, max_size=4).map(tuple)


def only(system, results):
    return derive(system, said(results), TODAY)[0]


@given(IDS, IDS, RESULTS)
def test_nothing_but_passes_can_verify_a_mitigation(every, some, results):
    state = mitigation_state(Checks(all=every, any=some), results)
    passed = {check for check, verdict in results.items() if verdict == "pass"}
    proved = bool(every) and set(every) <= passed
    assert (state == "verified") == (proved or bool(set(some) & passed))


@pytest.mark.parametrize("verdict", [one for one in VERDICTS if one != "pass"])
def test_no_other_verdict_counts(verdict):
    state = mitigation_state(Checks(all=("a.b",)), {"a.b": verdict})
    assert state == ("failed" if verdict == "fail" else "unverified")


def test_a_mitigation_without_checks_stays_unverified():
    assert mitigation_state(Checks(), dict.fromkeys(CHECKS, "pass")) == "unverified"


def test_any_fails_only_where_every_one_fails():
    checks = Checks(any=("a.b", "a.c"))
    assert mitigation_state(checks, {"a.b": "fail", "a.c": "skipped"}) == "unverified"
    assert mitigation_state(checks, {"a.b": "fail", "a.c": "fail"}) == "failed"
    assert mitigation_state(checks, {"a.b": "fail", "a.c": "pass"}) == "verified"


@settings(deadline=None)
@given(RESULTS)
def test_what_remains_is_never_above_what_was(results):
    for one in derive(SHIPPED, said(results), TODAY):
        assert LEVELS.index(one.residual) <= LEVELS.index(one.inherent)


@settings(deadline=None)
@given(RESULTS, st.sampled_from(CHECKS))
def test_one_more_pass_never_raises_what_remains(results, check):
    before = derive(SHIPPED, said(results), TODAY)
    after = derive(SHIPPED, said(results | {check: "pass"}), TODAY)
    for old, new in zip(before, after, strict=True):
        assert LEVELS.index(new.residual) <= LEVELS.index(old.residual)


@settings(deadline=None)
@given(RESULTS)
def test_mitigated_means_all_verified_and_little_left(results):
    for one in derive(SHIPPED, said(results), TODAY):
        states = [facts["status"] for facts in one.mitigations.values()]
        if one.status == "mitigated":
            assert set(states) == {"verified"}
            assert one.residual in ("note", "low")


def test_without_any_result_nothing_is_mitigated_and_nothing_lowered():
    for one in derive(SHIPPED, [], TODAY):
        assert one.status in ("open", "accepted", "not_applicable")
        assert one.residual == one.inherent


def test_a_threat_goes_from_open_over_partly_to_mitigated(small):
    system = system_from(small)
    digest = {"model.digest": "pass", "web.model-digest": "pass"}
    assert only(system, {"model.digest": "pass"}).status == "open"
    assert (only(system, digest).status, only(system, digest).residual) == ("partly", "medium")
    both = only(system, digest | {"model.scan": "pass"})
    assert (both.status, both.residual) == ("mitigated", "low")


def test_all_verified_is_only_partly_where_much_remains(bend):
    risk = {"likelihood": "high", "impact": "high", "why": ""}
    system = system_from(bend("threats", 0, inherent=risk, mitigations=["M-DIGEST", "M-FORMAT"]))
    passed = {"model.digest": "pass", "web.model-digest": "pass", "model.format": "pass"}
    assert (only(system, passed).status, only(system, passed).residual) == ("partly", "medium")


def test_an_acceptance_holds_through_its_last_day_and_no_longer(small):
    last = date(2027, 1, 1)
    accepted = {"threat": "T-FILE-T1", "reason": "a demo", "by": "us", "until": last}
    system = system_from(small | {"accepted": [accepted]})
    assert derive(system, [], last)[0].status == "accepted"
    assert derive(system, [], last + timedelta(days=1))[0].status == "open"


def test_the_evidence_names_each_check_and_its_verdict(small):
    status = only(system_from(small), {"model.digest": "fail"})
    assert status.mitigations["M-DIGEST"] == {
        "statement": "The digest is checked.",
        "status": "failed",
        "checks": {"model.digest": "fail", "web.model-digest": "not run"},
    }


def test_cells_that_are_not_applicable_come_with_their_reason(small):
    cells = derive(system_from(small), [], TODAY)[1:]
    assert [(one.threat, one.status, one.title) for one in cells] == [
        ("N-FILE-R", "not_applicable", "Public."),
        ("N-FILE-I", "not_applicable", "Public."),
    ]


def test_of_several_runs_of_a_check_the_worst_stands():
    results = [ran("a.b", "pass"), ran("a.b", "skipped"), ran("a.c", "pass"), ran("a.c", "fail")]
    assert verdicts(results) == {"a.b": "skipped", "a.c": "fail"}


def test_a_pass_whose_negative_control_did_not_fail_is_no_pass():
    assert verdicts([ran("a.b", "pass", controlled=False)]) == {"a.b": "broken"}
    bare = CheckResult(check="a.c", proves="", verdict="pass")
    assert verdicts([bare]) == {"a.c": "broken"}


ABOUT = {"model": {"sha256:mine"}}


@pytest.mark.parametrize(
    ("looked_at", "subjects", "state"),
    [
        (("sha256:mine",), ABOUT, "verified"),
        (("sha256:mine", "sha256:other"), ABOUT, "verified"),
        (("sha256:other",), ABOUT, "unverified"),
        ((), ABOUT, "unverified"),
        (("sha256:mine",), {"model": {"sha256:mine", "sha256:other"}}, "unverified"),
        (("sha256:mine",), {"model": set()}, "unverified"),
        (("sha256:mine",), {}, "unverified"),
        (("sha256:other",), None, "verified"),  # the caller says that it was given the system
    ],
)
def test_a_pass_counts_only_where_the_check_looked_at_the_subject(bend, looked_at, subjects, state):
    system = system_from(bend("mitigations", 1, about=["model"]))
    results = [ran("model.format", "pass", *looked_at)]
    facts = derive(system, results, TODAY, subjects)[0].mitigations["M-FORMAT"]
    assert facts["status"] == state
    assert facts.get("not_looked_at", []) == (
        [] if state == "verified" else ["the model under test"]
    )


def test_a_failure_counts_whatever_the_check_did_not_look_at_but_not_against_nothing(bend):
    system = system_from(bend("mitigations", 0, about=["model"]))
    results = [ran("model.digest", "fail", "sha256:swapped")]

    def state(subjects):
        return derive(system, results, TODAY, subjects)[0].mitigations["M-DIGEST"]["status"]

    assert (state(ABOUT), state({})) == ("failed", "unverified")


def test_what_looked_at_another_model_lowers_nothing_of_the_one_at_hand():
    system = load_system(None, {"data", "model", "brought", "run", "code"})
    others = passing(system, "sha256:shipped")
    mine = {name: {"sha256:mine"} for name in ("model", "files", "deployed", "package")}
    for one in derive(system, others, TODAY, mine):
        if one.element == "weights":
            assert one.residual == one.inherent
            assert one.status in ("open", "accepted", "not_applicable")
    both = passing(system, "sha256:shipped", "sha256:mine")
    states = {one.threat: one.status for one in derive(system, both, TODAY, mine)}
    assert states["T-WEIGHTS-E1"] == "mitigated" and states["T-WEIGHTS-T4"] == "partly"
