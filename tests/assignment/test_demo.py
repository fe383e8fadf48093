"""`purple demo`: the assignment, offline, in time, and true in the end."""

from __future__ import annotations

import json
import resource
from typing import Any

import pytest

from purpleteam.core.records import CheckResult, Measurement, Note, Record, ThreatStatus
from purpleteam.core.runfolder import RunFolder
from watching import Watched

TRAININGS = 80
"""What the demo may cost, in trainings of its baseline: on a slow or shared machine it is as
many as on an idle one. It was 55 before evaluations and scans were looked at several times."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Watched, float]:
    """What `purple demo --json` printed, where it ran, and the CPU seconds it took."""
    purple = Watched(tmp_path_factory.mktemp("demo"))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    out = purple.ended(purple.start("demo", "--json"), seconds=2400)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return json.loads(out), purple, took


@pytest.fixture(scope="module")
def records(demo: tuple[dict[str, Any], Watched, float]) -> list[Record]:
    answer, purple, _ = demo
    return RunFolder.open(purple.here / answer["run"]).records()


def lowest(records: list[Record], name: str, model: str, **how: object) -> float:
    found = [
        float(one.value.value)  # type: ignore[arg-type]
        for one in records
        if isinstance(one, Measurement)
        and (one.name, one.subject.get("model_name")) == (name, model)
        and how.items() <= one.how.items()
    ]
    return min(found)


def test_it_asks_nobody_and_writes_into_its_run_alone(
    demo: tuple[dict[str, Any], Watched, float],
) -> None:
    _, purple, _ = demo
    assert (purple.reached(), purple.wrote(purple.here / "runs")) == ([], [])
    assert [path.name for path in purple.here.iterdir()] == ["runs"]
    assert list(purple.home.iterdir()) == []


def test_it_names_its_run_and_report_and_costs_no_more_than_some_trainings(
    demo: tuple[dict[str, Any], Watched, float], records: list[Record]
) -> None:
    answer, purple, took = demo
    assert answer["run"] == "runs/demo" and (purple.here / answer["report"]).is_file()
    assert {"seconds", "stages"} <= set(answer)
    (baseline,) = {
        one.cost["seconds"]
        for one in records
        if isinstance(one, Measurement) and one.name == "validation_accuracy"
        if one.subject.get("model_name") == "baseline"
    }
    assert took <= TRAININGS * baseline, (
        f"{took:.0f} CPU seconds, {baseline:.1f} of them a training"
    )


def test_the_report_is_whole(demo: tuple[dict[str, Any], Watched, float]) -> None:
    answer, purple, _ = demo
    page = (purple.here / answer["report"]).read_text("utf-8")
    assert page.rstrip().endswith("</html>")
    assert (purple.here / "runs/demo/report.md").stat().st_size > 5000
    for name in ("baseline", "hardened", "poisoned-badnets", "report-a-defence"):
        assert name in page


def test_the_undefended_model_is_right_until_it_is_attacked(records: list[Record]) -> None:
    attack = {"attack": "pgd", "norm": "linf", "epsilon": 0.1}
    assert lowest(records, "clean_accuracy", "baseline") > 0.9
    assert lowest(records, "robust_accuracy", "baseline", **attack) < 0.5


def test_hardening_helps_against_the_same_attack_on_the_model_itself(records: list[Record]) -> None:
    attack = {"attack": "pgd", "norm": "linf", "epsilon": 0.1, "knowledge": "white-box"}
    before = lowest(records, "robust_accuracy", "baseline", **attack)
    assert lowest(records, "robust_accuracy", "hardened", **attack) > before + 0.3


def test_a_new_label_opens_the_backdoor_wider_than_a_kept_one(records: list[Record]) -> None:
    relabelled = lowest(records, "attack_success_rate", "poisoned-badnets")
    assert relabelled > 0.8
    # Not near 0: of a hundred-odd sevens the demo stamps a share that the reports never had.
    assert lowest(records, "attack_success_rate", "report-a-poisoned") < relabelled - 0.2
    for model in ("poisoned-badnets", "report-a-poisoned"):
        assert lowest(records, "base_rate", model) < 0.1


def test_the_planted_backdoor_is_found_and_drawn(
    demo: tuple[dict[str, Any], Watched, float], records: list[Record]
) -> None:
    answer, purple, _ = demo
    scans = {
        (one.name, one.facts["model_name"]): one.facts
        for one in records
        if isinstance(one, Note) and one.name in ("model-scan", "training-set-scan")
    }
    for name in ("model-scan", "training-set-scan"):
        facts = scans[name, "poisoned-badnets"]
        assert facts["backdoored"] and facts["target_label"] == 7
    assert scans["model-scan", "baseline"]["backdoored"] is False
    measured = [one for one in records if isinstance(one, Measurement)]
    ranked = [one for one in measured if one.name == "detector_auroc"]
    assert {one.how["detector"] for one in ranked} == {"combined"}  # the search alone, for time
    assert (purple.here / answer["run"] / "images/poisoned-badnets-0-recovered.png").is_file()


def test_every_check_could_have_failed_and_every_threat_has_a_status(records: list[Record]) -> None:
    checks = [one for one in records if isinstance(one, CheckResult)]
    assert checks and {one.verdict for one in checks} <= {"pass", "fail", "skipped"}
    ran = [one for one in checks if one.verdict != "skipped"]
    assert all(one.negative_control["failed_as_required"] for one in ran)
    assert {one.status for one in records if isinstance(one, ThreatStatus)} >= {"mitigated"}
