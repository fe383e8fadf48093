"""A model's bill of materials: valid CycloneDX 1.6, and no number that was not measured on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from purpleteam.core.bom import bill_of_materials
from purpleteam.core.cards import find_stored
from purpleteam.core.errors import Refused
from purpleteam.core.records import Measurement
from purpleteam.core.runfolder import RunFolder
from purpleteam.core.statistics import Rate

schemas = pytest.importorskip("jsonschema_rs", reason="it comes with the tools of developers")
SCHEMA = json.loads(Path(__file__).with_name("bom-1.6.schema.json").read_text("utf-8"))
STORED = find_stored("standard")


def validate(bom: Any) -> list[str]:
    # What it refers to elsewhere, names of licences and signatures in XML's way, is not used here.
    found = schemas.Draft7Validator(SCHEMA, retriever=lambda _: {"definitions": {"signature": {}}})
    return [str(error.message) for error in found.iter_errors(bom)]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    made = RunFolder.create(tmp_path / "run", {"dataset": "digits", "seed": 0})
    numbers = [
        Measurement(
            name="clean_accuracy",
            value=Rate.of(count, 10),
            subject={"model": digest, "dataset": "sha256:1", "split": "test"},
        )
        for count, digest in ((9, STORED.card.digest), (7, "sha256:other"))
    ]
    made.cell("models", {}, lambda: numbers)
    made.finish("finished")
    return made.path


def test_it_is_valid_and_holds_the_measured_numbers_of_this_model_alone(run):
    bom = json.loads(json.dumps(bill_of_materials(STORED, run)))
    assert validate(bom) == []
    card = bom["metadata"]["component"]["modelCard"]
    (number,) = card["quantitativeAnalysis"]["performanceMetrics"]
    rate = Rate.of(9, 10)
    assert (number["type"], number["value"]) == ("clean_accuracy", "0.9")
    assert number["confidenceInterval"] == {
        "lowerBound": repr(rate.low),
        "upperBound": repr(rate.high),
    }
    assert json.loads(number["slice"])["n"] == 10


def test_it_names_the_commit_of_the_code_that_measured(run):
    made = RunFolder.open(run)
    made._write({**made.info, "code": [{"digest": "sha256:c", "commit": "c" * 40, "differ": 0}]})
    bom = bill_of_materials(STORED, run)
    model = bom["metadata"]["component"]
    assert validate(bom) == [] and model["pedigree"]["commits"] == [{"uid": "c" * 40}]
    told = {row["name"]: row["value"] for row in model["modelCard"]["properties"]}
    assert told["purpleteam:code"] == f"commit {'c' * 40}, unchanged"


@pytest.mark.parametrize("name", ["net", "my net ü (1)+2", "-", "..net", "x" * 200])
def test_a_file_without_a_card_has_a_valid_bill_with_blanks(tmp_path, name):
    (tmp_path / f"{name}.onnx").write_bytes(b"onnx")
    bom = bill_of_materials(tmp_path / f"{name}.onnx")
    assert validate(bom) == [] and bom["components"] == []
    assert bom["metadata"]["component"]["modelCard"]["modelParameters"] == {
        "task": "image classification"
    }


def test_without_a_run_it_tells_no_number():
    bom = bill_of_materials(STORED)
    assert validate(bom) == []
    analysis = bom["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]
    assert analysis["performanceMetrics"] == []


def test_the_schema_would_see_what_is_wrong():
    for key, value in (("specVersion", 1.6), ("metadata", []), ("more", 1)):
        assert validate(bill_of_materials(STORED) | {key: value}), key


def test_it_leads_from_the_model_to_files_data_and_packages():
    bom, card = bill_of_materials(STORED), STORED.card
    files = {
        one["name"]: one["hashes"][0]["content"]
        for one in bom["metadata"]["component"]["components"]
    }
    assert f"sha256:{files['standard.onnx']}" == card.onnx_digest and len(files) == 3
    parts = {one["bom-ref"]: one for one in bom["components"]}
    assert parts["data"]["hashes"][0]["content"] == (card.data_digest or "")[7:]
    assert parts["pkg:pypi/torch@2.13.0%2Bcpu"]["version"] == card.versions["torch"]
    (needs,) = bom["dependencies"]
    assert needs == {"ref": card.digest, "dependsOn": list(parts)}
    assert bom["serialNumber"] == bill_of_materials(STORED)["serialNumber"]


def test_a_model_that_is_not_that_of_its_card_has_none(tmp_path):
    import shutil

    for end in (".json", ".onnx", ".safetensors"):
        shutil.copy(STORED.stem.with_suffix(end), tmp_path / f"m{end}")
    (tmp_path / "m.onnx").write_bytes(b"other")
    with pytest.raises(Refused, match="is not the file of its card"):
        bill_of_materials(find_stored(str(tmp_path / "m")))
