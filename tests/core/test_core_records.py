"""Records of every kind: out as JSON, back the same, and named by what does not vary."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from core_records import ANY_RECORD, KINDS
from hypothesis import given
from hypothesis import strategies as st

from purpleteam.core.digest import canonical_json
from purpleteam.core.errors import RunError, UsageError
from purpleteam.core.metrics import METRICS, Metric, add
from purpleteam.core.records import Artefact, Measurement, Note, Record, record_from_json
from purpleteam.core.statistics import Rate


def again(record: Record) -> Record:
    return record_from_json(json.loads(canonical_json(record.to_json())))


def test_every_kind_is_drawn_below():
    assert set(KINDS) == set(Record.__subclasses__())


@given(ANY_RECORD)
def test_a_record_comes_back_from_a_line_of_json(record):
    assert again(record) == record


@given(ANY_RECORD)
def test_a_line_names_id_and_kind_first_and_gives_the_identity_of_its_record(record):
    line = record.to_json()
    assert list(line)[:2] == ["id", "kind"]
    assert line["id"] == again(record).id == record.id
    assert record.id.startswith(f"{record.letter}-")


@given(ANY_RECORD, st.dictionaries(st.text(max_size=3), st.floats(0, 9)), st.text(max_size=5))
def test_an_id_leaves_out_cost_and_command(record, cost, word):
    other = dataclasses.replace(record, cost=cost, command=(word,))
    assert other.id == record.id
    assert other.metric() == record.metric()


CHANGES: dict[str, Any] = {
    "value": Rate.of(4, 7),
    "seed": 97,
    "measured": 0.125,
    "threshold": 0.125,
    "verdict": "stale",
    "severity": "critical",
    "inherent": "critical",
    "residual": "critical",
    "status": "accepted",
    "origin": ("changed",),
    "negative_control": {"changed": True},
}
CHANGED_NAMES = {Measurement: "base_rate"}
"""Of a measurement only a known metric is another name."""
MAPPINGS = ("subject", "how", "detail", "place", "facts", "mitigations", "inputs")
FIELDS = [
    (kind, one.name)
    for kind in KINDS
    for one in dataclasses.fields(kind)
    if one.name not in ("cost", "command")
]


@pytest.mark.parametrize(("kind", "name"), FIELDS, ids=[f"{k.kind}.{n}" for k, n in FIELDS])
def test_an_id_changes_with_every_other_field(kind, name):
    changed = {"changed": "yes"} if name in MAPPINGS else CHANGES.get(name, "changed to this text")
    if name == "name":
        changed = CHANGED_NAMES.get(kind, changed)

    @given(KINDS[kind].filter(lambda record: getattr(record, name) != changed))
    def check(record):
        assert dataclasses.replace(record, **{name: changed}).id != record.id

    check()


def test_the_kind_is_part_of_the_identity():
    note = Note(name="x", facts={})
    assert note.metric()["kind"] == "note"
    assert note.id.split("-")[1] != Artefact(path="", digest="", made_by="").id.split("-")[1]


def test_values_inside_facts_are_written_as_json():
    note = Note(name="x", facts={"rate": Rate.of(1, 2), "rows": (1, (2, 3)), 7: None})
    assert note.to_json()["facts"] == {
        "rate": Rate.of(1, 2).to_json(),
        "rows": [1, [2, 3]],
        "7": None,
    }


def test_an_unknown_kind_names_the_nearest():
    with pytest.raises(RunError, match=r"unknown record kind 'measurment' .*'measurement'"):
        record_from_json({"kind": "measurment"})


@pytest.mark.parametrize(
    "line",
    [
        {"kind": "note", "id": "n-1", "name": "x"},
        {"kind": "measurement", "id": "n-1", "name": "x", "subject": {}},
        {"kind": "measurement", "id": "n-1", "name": "x", "subject": {}, "value": {"n": 1}},
        {"kind": "measurement", "id": "n-1", "name": "x", "subject": {}, "value": None},
    ],
)
def test_a_line_that_lacks_a_field_is_a_clear_error(line):
    with pytest.raises(RunError, match="record 'n-1' is not whole"):
        record_from_json(line)


def test_a_field_of_a_later_version_is_passed_over():
    record = Measurement(name="loss", value=Rate.of(1, 2), subject={})
    assert record_from_json(record.to_json() | {"later": 1, "chain": "sha256:"}) == record


def test_a_measurement_of_no_metric_names_the_nearest():
    with pytest.raises(UsageError, match=r"unknown metric 'clean_acuracy' .*'clean_accuracy'"):
        Measurement(name="clean_acuracy", value=Rate.of(1, 2), subject={})


def test_a_metric_that_a_plug_in_adds_is_one_and_without_it_a_file_is_read_all_the_same():
    add(Metric("depth_accuracy", "Fraction of images whose depth is right.", "fraction", "higher"))
    record = Measurement(name="depth_accuracy", value=Rate.of(1, 2), subject={})
    assert METRICS["depth_accuracy"].better == "higher"
    del METRICS._items["depth_accuracy"]  # as where the plug-in is not loaded
    read = again(record)
    assert read == record and dataclasses.replace(read, seed=1).name == "depth_accuracy"


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_says_in_a_sentence_what_it_means(name):
    assert METRICS[name].name == name
    assert METRICS[name].meaning.endswith(".") and METRICS[name].meaning[0].isupper()
