"""The poison lab on a few embedded digits: one backdoor from planting to repair, a clean model."""

from __future__ import annotations

from pathlib import Path

import pytest

from few_digits import EPOCHS, few_digits
from purpleteam.core.errors import ConfigError, UsageError
from purpleteam.core.records import Artefact, Measurement, Note
from purpleteam.core.runfolder import RunFolder
from purpleteam.data.folders import save_dataset
from purpleteam.defences.detection.recovered import RecoveredTrigger
from purpleteam.pipeline.config import RunConfig, resolve
from purpleteam.pipeline.replay import replay
from purpleteam.pipeline.run import prepare, run
from purpleteam.pipeline.stages.lab import _recovered

NAME = "backdoored-badnets-count-80-target_label-3-trigger-size-2"
SETTINGS = (
    *('architecture="small_cnn"', "threads=1", 'device="cpu"', "processes=1"),
    'backdoors.attacks=["badnets:count=80,target_label=3,trigger.size=2"]',
    *(f"backdoors.epochs={EPOCHS}", "backdoors.trusted=123", "backdoors.plant_again=[10]"),
    'backdoors.repairs=["retrain", "unlearn:steps=100,rounds=1"]',
)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    few = save_dataset(few_digits(), tmp_path_factory.mktemp("data") / "few")
    return resolve("backdoors", None, (*SETTINGS, f'dataset="{few}"'))


@pytest.fixture(scope="module")
def lab(asked: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(asked, tmp_path_factory.mktemp("runs") / "lab").run


def measured(lab: Path, name: str, model: str) -> list[Measurement]:
    return [
        one
        for one in RunFolder.open(lab).records()
        if isinstance(one, Measurement)
        and one.name == name
        and one.subject.get("model_name") == model
    ]


def notes(lab: Path, name: str) -> dict[str, Note]:
    found = [one for one in RunFolder.open(lab).records() if isinstance(one, Note)]
    return {str(one.facts["model_name"]): one for one in found if one.name == name}


def rate(lab: Path, name: str, model: str) -> float:
    (one,) = measured(lab, name, model)
    return float(one.value.value)  # type: ignore[arg-type]


def test_the_backdoor_works_and_the_clean_model_has_none(lab: Path) -> None:
    assert rate(lab, "attack_success_rate", NAME) > 0.9
    assert rate(lab, "base_rate", NAME) < 0.2


def test_its_poisoned_images_are_found_and_few_others(lab: Path) -> None:
    assert rate(lab, "detection_recall", NAME) > 0.9
    assert rate(lab, "false_positive_rate", NAME) < 0.01


def test_both_searches_name_the_target_and_spare_the_clean_one(lab: Path) -> None:
    for name in ("training-set-scan", "model-scan"):
        found = notes(lab, name)
        assert found[NAME].facts["backdoored"] and found[NAME].facts["target_label"] == 3, name
        assert not found["backdoors-clean"].facts["backdoored"], name


def test_what_was_planted_is_kept_apart_from_what_was_answered(lab: Path) -> None:
    facts = notes(lab, "training-set-scan")[NAME].facts
    assert facts["planted"] == {"poison": "badnets", "poisoned": 80, "target_label": 3}
    assert "seconds" not in facts  # what differs from run to run is no part of a record


@pytest.mark.parametrize("repair", ["retrain", "unlearn"])
def test_each_repair_takes_it_out_at_little_cost(lab: Path, repair: str) -> None:
    model = f"{NAME}/{repair}"
    assert rate(lab, "attack_success_rate", model) < 0.3
    assert abs(rate(lab, "clean_accuracy_difference", model)) < 0.05
    assert (lab / "models" / f"{NAME}-0-{repair}.safetensors").exists()


def test_a_repaired_model_is_attacked_again(lab: Path) -> None:
    (again,) = measured(lab, "attack_success_rate_planted_again", f"{NAME}/unlearn")
    assert again.how["planted_again"] == 10 and again.detail["clean_model"] is not None


def test_the_recovered_trigger_is_a_picture_and_a_file(lab: Path) -> None:
    files = {one.path for one in RunFolder.open(lab).records() if isinstance(one, Artefact)}
    assert f"images/{NAME}-0-recovered.png" in files
    trigger = RecoveredTrigger.load(lab / "exports" / f"{NAME}-0-trigger.safetensors")
    assert trigger.target_label == 3


def test_a_trigger_counts_only_where_the_scan_itself_names_it(lab: Path, asked: RunConfig) -> None:
    work = prepare(asked, lab, resume=True)
    records = work.folder.records()
    _, trigger = _recovered(work, records)
    assert trigger is not None and trigger.target_label == 3
    without = [one for one in records if not isinstance(one, Artefact)]
    assert _recovered(work, without) == (None, None)  # though the file is there


def test_the_report_shows_the_three_side_by_side(lab: Path) -> None:
    text = (lab / "report.md").read_text("utf-8")
    chapter = text.split("## Backdoors")[1].split("\n## ")[0]
    assert "Attack, detection and repair" in chapter and "Planted, and recovered: " in chapter
    assert "## Attacks: evasion" not in text  # a stage that was not asked for


def test_going_on_with_it_does_nothing_again(lab: Path, asked: RunConfig) -> None:
    before = (lab / "records.jsonl").read_bytes()
    run(asked, lab, resume=True)
    assert (lab / "records.jsonl").read_bytes() == before


def test_a_number_of_it_can_be_replayed(lab: Path) -> None:
    (one,) = measured(lab, "attack_success_rate", f"{NAME}/unlearn")
    assert replay(lab, one.id).agrees


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ('backdoors.attacks=["badnest"]', "unknown poison attack 'badnest'"),
        ('backdoors.repairs=["unlern"]', "unknown repair 'unlern'"),
        ("backdoors.plant_again=[0]", "plant_again must be at least 1, not 0"),
        ("backdoors.trainings=0", "backdoors.trainings must be at least 1, not 0"),
        ('stages=["defence"]', "unknown stage 'defence'"),
    ],
)
def test_what_cannot_be_done_is_refused_before_the_work(
    tmp_path: Path, setting: str, said: str
) -> None:
    asked = resolve("backdoors", None, [*SETTINGS, 'dataset="digits"', setting])
    with pytest.raises((ConfigError, UsageError), match=said):
        prepare(asked, tmp_path / "run")
    assert not (tmp_path / "run").exists()
