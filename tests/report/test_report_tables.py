"""README tables from results/*.json: a pure function of the records."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from purpleteam.core.errors import RunError
from purpleteam.core.records import Record
from purpleteam.core.statistics import Rate, mean, mean_over_seeds
from purpleteam.report import readme_table, render_results
from purpleteam.report.numbers import of_value
from report_records import attack_records, clean_records, measured, poison_records


def results(path: Path, *records: Record) -> Path:
    path.write_text(json.dumps({"run": {}, "records": [record.to_json() for record in records]}))
    return path


def test_the_table_sets_the_claim_beside_the_white_box_number() -> None:
    text = readme_table([*clean_records(), *attack_records()])
    line = next(line for line in text.splitlines() if line.startswith("| seed-a-defence"))
    assert "0.0\u202f%" in line and "99.71\u202f%" in line
    assert line.index("0.0\u202f%") < line.index("99.71\u202f%")


def test_models_of_the_lab_that_nobody_attacks_by_pixels_have_no_row_of_dashes() -> None:
    voted = measured("clean_accuracy", Rate.of(9752, 10000), "partitions")
    assert "partitions" not in readme_table([*clean_records(), *attack_records(), voted])


def test_a_backdoor_never_stands_without_base_rate_and_clean_accuracy() -> None:
    text = readme_table([*clean_records(), *poison_records()])
    line = next(line for line in text.splitlines() if line.startswith("| poisoned-kept | 0"))
    assert line.count("[m-") == 3


def test_a_file_reads_back_as_the_same_table(tmp_path: Path) -> None:
    records = [*clean_records(), *attack_records()]
    assert render_results(results(tmp_path / "mnist.json", *records)) == readme_table(records)


def test_a_folder_gives_a_heading_for_each_file(tmp_path: Path) -> None:
    one = measured("clean_accuracy", Rate.of(9, 10), "standard")
    results(tmp_path / "b.json", one), results(tmp_path / "a.json", one)
    text = render_results(tmp_path)
    assert text.index("### a") < text.index("### b")


def test_nothing_measured_is_said() -> None:
    assert readme_table([]) == "Nothing is measured yet.\n"


def test_a_damaged_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(RunError, match=r"x\.json.* cannot be read"):
        render_results(tmp_path)


def test_an_interval_says_what_n_counts_and_where_it_has_no_end() -> None:
    alike = of_value(mean_over_seeds([1.0, 1.0], bounds=(0, 1)), "attack_success_rate", "m-1")
    assert alike.interval == "15.81 to 100.00, n\u202f=\u202f2\u202ftrainings"
    loss = of_value(mean([0.5], bounds=(0, math.inf)), "loss", "m-2")
    assert loss.interval == "0.0125 to \u221e, n\u202f=\u202f1"
