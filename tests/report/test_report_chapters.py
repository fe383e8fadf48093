"""Chapters are declarations: one that a plug-in registers is told, in its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from purpleteam.core.metrics import METRICS, Metric, add
from purpleteam.core.records import CheckResult, Finding, Measurement, Note, Severity
from purpleteam.core.schema import MODEL_SCAN, model_note
from purpleteam.core.statistics import Counts, Rate, mean_over_seeds
from purpleteam.report import CHAPTERS, Chapter, Sheet, render, view
from purpleteam.report.blocks import matrices
from purpleteam.report.chapter import of_itself, of_model, ordered
from purpleteam.report.chapters.scan import MOST
from purpleteam.report.collect import Evidence
from report_records import measured

Maker = Callable[..., Path]


@pytest.fixture
def depth() -> Iterator[None]:
    """A plug-in's metric and chapter, taken away again."""
    add(Metric("depth_accuracy", "Fraction of images whose depth is right.", "fraction", "higher"))
    CHAPTERS.register("depth")(
        Chapter(
            title="Depth",
            lead="How well the model tells depth.",
            metrics=("depth_accuracy",),
            parts=(
                Sheet(
                    caption="Depth of each model",
                    metrics=("depth_accuracy",),
                    columns={"Model": of_model, "Accuracy": of_itself},
                ),
            ),
            gap="Depth: it was not measured",
            try_="purple depth --model {model}",
            after="models",
        )
    )
    yield
    del CHAPTERS._items["depth"], METRICS._items["depth_accuracy"]


@pytest.mark.usefixtures("depth")
def test_a_chapter_of_a_plug_in_is_told_in_its_place(make_run: Maker) -> None:
    one = measured("depth_accuracy", Rate.of(9, 10), "m")
    page = render(make_run(one, measured("clean_accuracy", Rate.of(9, 10), "m"))).html
    text = page.read_text("utf-8")
    assert "Depth of each model" in text and 'title="Fraction of images whose depth' in text
    order = list(ordered())
    assert order.index("models") + 1 == order.index("depth") < order.index("poison")
    assert text.index('id="models"') < text.index('id="depth"')


@pytest.mark.usefixtures("depth")
def test_a_chapter_without_records_is_a_gap_with_the_command_that_fills_it(make_run: Maker) -> None:
    text = render(make_run(measured("clean_accuracy", Rate.of(9, 10), "m"))).html.read_text("utf-8")
    assert 'id="depth"' not in text
    assert "Depth: it was not measured" in text and "purple depth --model m" in text


def test_what_was_not_tested_follows_from_the_records(make_run: Maker) -> None:
    pgd = {"attack": "pgd", "norm": "linf", "epsilon": 0.3, "knowledge": "white-box"}
    run = make_run(measured("robust_accuracy", Rate.of(3, 10), "m", pgd))
    text = render(run).markdown.read_text("utf-8").split("## What was not tested")[1]
    assert "AutoAttack" in text and "l2, l1, l0" in text and "no model was attacked" not in text
    assert "neither a model nor a training set was scanned" in text
    assert "Drawings by people" not in text  # no app was asked


def robust(survived: int, **more: object) -> Measurement:
    how = {"attack": "pgd", "norm": "linf", "epsilon": 0.1, "knowledge": "white-box", **more}
    sound = {"soundness": {"verdict": "sound", "reasons": []}}
    return measured("robust_accuracy", Rate.of(survived, 100), "silhouettes", how, sound)


def test_a_run_of_one_attack_is_one_page_with_verdict_pictures_and_the_next_step(
    make_run: Maker,
) -> None:
    one = robust(3)
    pictures = Note(
        name="gallery",
        facts={
            "title": "What broke",
            "kind": "evasion",
            "images": [{"path": "x.png", "caption": "a"}],
        },
    )
    role = model_note(one.subject["model"], "silhouettes", "brought")
    text = render(make_run(one, role, pictures)).html.read_text("utf-8")
    verdict = text.split('<p class="verdict">')[1].split("</p>")[0]
    assert "silhouettes breaks" in verdict and 'value="0.03"' in verdict
    assert '<details class="chapter" open>' in text.split("What broke")[0]
    assert "purple harden" in text and "What was not tested" in text


def test_a_model_that_errs_as_often_without_an_attack_is_not_said_to_break(
    make_run: Maker,
) -> None:
    one, clean = robust(30), measured("clean_accuracy", Rate.of(30, 100), "silhouettes")
    role = model_note(one.subject["model"], "silhouettes", "brought")
    text = render(make_run(one, clean, role)).html.read_text("utf-8")
    assert "silhouettes errs without an attack" in text and "silhouettes breaks" not in text


def test_a_number_below_a_failed_floor_is_not_praised_above_it(make_run: Maker) -> None:
    one = robust(72)
    floor = CheckResult(
        check="model.robust", proves="It stays right.", verdict="fail", inputs={one.id: "sha256:0"}
    )
    text = render(make_run(one, floor)).html.read_text("utf-8")
    card = text.split("Robust accuracy</a>")[1].split("</li>")[0]
    assert "below the floor of model.robust" in card and "withstands" not in text
    assert "silhouettes is below the floor of model.robust" in text


@pytest.mark.parametrize("verdict", ["sound", "weak"])
def test_a_hardened_model_is_advised_only_where_its_evaluation_is_sound(
    make_run: Maker, verdict: str
) -> None:
    def attacked(model: str, left: int, worth: str) -> Measurement:
        how = {"attack": "pgd", "norm": "linf", "epsilon": 0.1}
        detail = {"soundness": {"verdict": worth}}
        return measured("robust_accuracy", Rate.of(left, 100), model, how, detail)

    before, after = attacked("m", 3, "sound"), attacked("h", 80, verdict)
    parts = (
        model_note(before.subject["model"], "m", "baseline"),
        model_note(after.subject["model"], "h", "hardened"),
    )
    told = render(make_run(before, after, *parts)).markdown.read_text("utf-8")
    assert ("Use h instead" in told) == (verdict == "sound")
    assert ("is not sound, so attack it harder" in told) == (verdict == "weak")


def test_a_backdoor_that_was_found_comes_first(make_run: Maker) -> None:
    one = robust(72)
    facts = {"model": one.subject["model"], "model_name": "silhouettes", "own": True,
             "backdoored": True, "target_label": 3, "score": 5.1, "threshold": 2.0}  # fmt: skip
    text = render(make_run(one, Note(name=MODEL_SCAN, facts=facts))).markdown.read_text("utf-8")
    first = text.split("## Data")[0]
    assert "A backdoor was found." in first
    assert "1. Take the backdoor out" in first and "purple repair" in first


def test_a_mean_of_equal_trainings_has_pooled_counts_beside_it(make_run: Maker) -> None:
    rates = [measured("attack_success_rate", Rate.of(90, 100), "p", seed=seed) for seed in (0, 1)]
    mean = measured("attack_success_rate_mean", mean_over_seeds([0.9, 0.9], bounds=(0, 1)), "p")
    object.__setattr__(mean, "detail", {"records": [one.id for one in rates]})
    text = render(make_run(*rates, mean)).markdown.read_text("utf-8")
    row = next(line for line in text.splitlines() if "Attack success rate mean" in line)
    assert "180 of 200 in 2 trainings" in row and "90.00 to 90.00" not in row


def test_the_shipped_model_is_no_subject_of_the_first_screen_beside_another(
    make_run: Maker,
) -> None:
    mine, shipped = robust(72), measured("clean_accuracy", Rate.of(1, 10), "standard")
    roles = (
        model_note(mine.subject["model"], "silhouettes", "brought"),
        model_note(shipped.subject["model"], "standard", "served"),
    )
    text = render(make_run(shipped, mine, *roles)).markdown.read_text("utf-8")
    assert "standard" not in text.split("## Data")[0]


def test_no_word_of_digits_or_the_course_stands_on_a_page_about_other_images(
    make_run: Maker,
) -> None:
    one = robust(72)
    object.__setattr__(one, "subject", {**one.subject, "dataset_name": "animals"})
    text = render(make_run(one)).html.read_text("utf-8").lower()
    for word in ("mnist", "digit", "course", "seed_a", "seeds"):
        assert word not in text.split("</style>")[1], word


def test_attacked_and_certified_accuracy_are_drawn_beside_the_clean_of_an_epoch(
    make_run: Maker,
) -> None:
    epochs = [
        {"epoch": 1, "loss": 0.5, "validation_accuracy": 0.9, "attacked": 0.5, "certified": None},
        {"epoch": 2, "loss": 0.4, "validation_accuracy": 0.95, "attacked": 0.7, "certified": 0.65},
    ]
    training = Note(name="training", facts={"model_name": "robust", "epochs": epochs})
    model = model_note("sha256:0", "robust", "baseline")
    run = make_run(measured("clean_accuracy", Rate.of(9, 10), "robust"), model, training)
    page = render(run).html.read_text("utf-8")
    figure = page.split("Training: validation accuracy", 1)[1].split("</figure>")[0]
    assert "robust, attacked" in figure and "robust, certified" in figure
    assert all(number in figure for number in ("95.00", "70.00", "65.00"))


@pytest.mark.parametrize("private", [False, True])
def test_the_loss_of_a_private_training_is_called_that_of_validation_images(
    make_run: Maker, private: bool
) -> None:
    recipe = {"name": "dp_sgd"} | ({"privacy": {"epsilon": 3.0}} if private else {})
    epochs = [{"epoch": n, "loss": 1 / n, "validation_accuracy": 0.9} for n in (1, 2)]
    facts = {"model_name": "robust", "epochs": epochs, "recipe": recipe}
    model = model_note("sha256:0", "robust", "baseline")
    rate = measured("clean_accuracy", Rate.of(9, 10), "robust")
    page = render(make_run(rate, model, Note(name="training", facts=facts))).html
    assert ("robust, of validation images" in page.read_text("utf-8")) is private


def test_beside_each_number_of_a_net_with_a_ramp_stands_that_of_its_weights_alone(
    make_run: Maker,
) -> None:
    found, bare = (f"certified_accuracy{end}" for end in ("", "_without_ramp"))
    rates = [(found, 9, 0.1), (found, 8, 0.3), (bare, 1, 0.3)]
    run = make_run(
        *(measured(name, Rate.of(k, 10), "m", how={"epsilon": e}) for name, k, e in rates)
    )
    text = render(run).html.with_name("report.md").read_text("utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| m |") and "ε" in line]
    assert "Without the ramp" in text and ["(0.3 to 44.5" in line for line in rows] == [
        False,
        True,
    ], rows


def test_a_net_without_a_ramp_has_no_such_column(make_run: Maker) -> None:
    one = measured("certified_accuracy", Rate.of(9, 10), "m", how={"epsilon": 0.1})
    assert "Without the ramp" not in render(make_run(one)).html.read_text("utf-8")


@pytest.mark.parametrize(("other", "said"), [("all", "truth lies"), ("first 5", "may cross")])
def test_one_figure_has_both_lines_and_says_whether_they_are_of_the_same_images(
    make_run: Maker, other: str, said: str
) -> None:
    ball = {"detail": {"counts": {"verified": 8}}, "selection": other}
    run = make_run(
        measured(
            "certified_accuracy", Rate.of(8, 10), "m", {"norm": "linf", "epsilon": 0.1}, **ball
        ),
        measured("robust_accuracy", Rate.of(9, 10), "m", {"norm": "linf", "epsilon": 0.3 / 3}),
    )
    text = render(run).html.with_name("report.md").read_text("utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| Accuracy | ε")]
    assert said in text and [row.count("ε") for row in rows] == [1], rows


def found(rule: str, severity: Severity, line: int) -> Finding:
    return Finding(
        tool="bandit",
        rule=rule,
        severity=severity,
        confidence="high",
        cwe=None,
        place={"path": "a.py", "line": line},
        message="assert",
        fix="",
    )


def test_of_very_many_findings_the_gravest_are_listed_and_the_others_counted(
    make_run: Maker,
) -> None:
    many = [found("B101", "low", line) for line in range(MOST + 4)]
    text = render(make_run(*many, found("B102", "high", 1))).html.with_name("report.md")
    lines = text.read_text("utf-8").splitlines()
    assert sum(line.startswith("| `B101`  [") for line in lines) == MOST - 1
    assert sum(line.startswith("| `B102`  [") for line in lines) == 1
    assert [line for line in lines if line.startswith("| `B101` | low | 5 ")]


def test_a_matrix_of_a_thousand_classes_is_told_by_its_most_frequent_mistakes() -> None:
    rows = tuple(tuple(int(j == (i + 1) % 40) * i for j in range(40)) for i in range(40))
    names = [f"class {number}" for number in range(40)]
    counts = Counts(value=rows, n=sum(map(sum, rows)))
    record = measured("confusion_matrix", counts, "m", detail={"classes": names})
    evidence = Evidence(Path(), {}, [record, model_note(record.subject["model"], "m", "baseline")])
    (table,) = view.flat(matrices("baseline")(evidence))
    assert isinstance(table, view.Table) and len(table.rows) == 30
    assert "class 39" in repr(table.rows[0]) and "class 0" in repr(table.rows[0])
