"""The chapter on backdoors: planted, found and removed side by side, the lost ones in sight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from purpleteam.core.records import Measurement, Note, Record
from purpleteam.core.statistics import Rate, paired_difference
from purpleteam.report import render
from report_records import measured

Maker = Callable[..., Path]
LAB = {"lab": True, "poison": "badnets", "target_label": 7}
NAME = "backdoored-badnets"


def planted(seed: int, hits: int) -> Measurement:
    return measured("attack_success_rate", Rate.of(hits, 100), NAME, how=LAB, seed=seed)


def scan(about: Measurement, target: int | None, poison: str = "badnets") -> Note:
    facts = {
        "model_name": about.subject["model_name"],
        "model": about.subject["model"],
        "seed": about.seed,
        "backdoored": target is not None,
        "target_label": target,
        "score": 5.2 if target is not None else 1.1,
        "threshold": 3.0,
        "planted": {"poison": poison, "target_label": 7},
    }
    return Note(name="model-scan", facts=facts)


def repaired(before: Measurement, repair: str, hits: int) -> list[Measurement]:
    how = LAB | {"repair": repair}
    name = f"{NAME}/{repair}"
    made = [
        measured("attack_success_rate", Rate.of(hits, 100), name, how=how, seed=before.seed),
        measured(
            "clean_accuracy_difference",
            paired_difference([True] * 99 + [False], [True] * 98 + [False] * 2),
            name,
            how=how,
            seed=before.seed,
        ),
    ]
    about: dict[str, Any] = {"before": before.subject["model"]}
    return [replace(one, subject=dict(one.subject) | about) for one in made]


def page(make_run: Maker, *records: Record) -> str:
    text = render(make_run(*records)).markdown.read_text("utf-8")
    return text.split("## Backdoors")[1].split("\n## ")[0]


def test_attack_detection_and_repair_stand_in_one_row(make_run: Maker) -> None:
    one = planted(0, 97)
    found = measured(
        "detection_recall", Rate.of(99, 100), NAME, how=LAB | {"detector": "combined"}, seed=0
    )
    text = page(make_run, one, found, scan(one, 7), *repaired(one, "unlearn", 1))
    row = next(line for line in text.splitlines() if line.startswith(f"| {NAME} "))
    assert "97.0" in row and "99.0" in row and "found" in row and "1.0" in row
    assert "unlearn" in row


def test_a_lost_backdoor_a_wrong_target_and_a_false_alarm_are_said(make_run: Maker) -> None:
    lost, wrong = planted(0, 97), planted(1, 98)
    clean = measured("clean_accuracy", Rate.of(99, 100), "backdoors-clean", seed=0)
    text = page(make_run, lost, wrong, clean, scan(lost, None), scan(wrong, 3),
                scan(clean, 4, poison="none"))  # fmt: skip
    assert "nothing found" in text and "wrong target" in text and "false alarm" in text


def test_the_best_repair_is_the_one_that_leaves_least(make_run: Maker) -> None:
    one = planted(0, 97)
    after = [*repaired(one, "fine_tune", 88), *repaired(one, "retrain", 2)]
    text = page(make_run, one, *after)
    row = next(line for line in text.splitlines() if line.startswith(f"| {NAME} "))
    assert "retrain" in row and "fine_tune" not in row.replace("\\", "")
    assert "88.0" in text  # and the failure is shown too


def test_a_repair_that_had_nothing_to_go_by_is_named(make_run: Maker) -> None:
    one = planted(0, 97)
    why = {"model_name": f"{NAME}/unlearn", "seed": 0, "why": "needs a recovered trigger"}
    assert "needs a recovered trigger" in page(
        make_run, one, scan(one, None), Note(name="no-repair", facts=why)
    )


def test_where_nothing_was_planted_the_chapter_does_not_say_so(make_run: Maker) -> None:
    ours = measured("clean_accuracy", Rate.of(99, 100), "baseline", seed=0)
    note = scan(ours, None, poison="unknown")
    text = page(make_run, ours, replace(note, facts=dict(note.facts) | {"own": True}))
    assert "Nothing was planted here" in text and "nothing found" in text
    assert "Each backdoor was planted" not in text and "wrong target" not in text


def test_the_lab_is_not_told_twice(make_run: Maker) -> None:
    one = planted(0, 97)
    text = render(make_run(one, scan(one, 7))).markdown.read_text("utf-8")
    assert "## Attacks: poison" not in text and NAME in text.split("## Backdoors")[1]


def test_a_stage_that_was_not_asked_for_has_no_empty_chapter(tmp_path: Path) -> None:
    from purpleteam.core.runfolder import RunFolder

    asked = {"seed": 0, "stages": ["data", "defences"], "defences": {"recipes": []}}
    run = RunFolder.create(tmp_path / "run", asked)
    one = planted(0, 97)
    run.cell("defences", {}, lambda: [one, scan(one, 7)])
    run.finish("finished")
    text = render(run.path).markdown.read_text("utf-8")
    assert "## Backdoors" in text and "## Data" in text
    assert "## Attacks: poison" not in text and "## Defences" not in text
