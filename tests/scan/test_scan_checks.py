"""The checks of this room: each can fail, and passes where it should."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import scan_corpus as corpus

import purpleteam
from purpleteam.core.cards import ModelCard
from purpleteam.core.checks import CHECKS, Target, run_check
from purpleteam.core.digest import sha256_file
from purpleteam.core.errors import UsageError
from purpleteam.scan import checks

OWN = [name for name in CHECKS if CHECKS[name].__module__ == checks.__name__]
SOURCE = Path(purpleteam.__file__).parent


def verdict(name: str, **target) -> object:
    return run_check(CHECKS[name](), Target(**target))


@pytest.fixture
def model(tmp_path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    header = json.dumps(corpus.good_header()).encode()
    (folder / "net.safetensors").write_bytes(corpus.safetensors(header, corpus.FLOATS))
    (folder / "net.onnx").write_bytes(corpus.onnx_file())
    ModelCard(
        name="net",
        digest=sha256_file(folder / "net.safetensors"),
        onnx_digest=sha256_file(folder / "net.onnx"),
        architecture="a",
        input={},
        classes=("0",),
    ).write(folder / "net.json")
    return folder


def test_the_room_has_its_seven_checks():
    assert OWN == [
        "code.debug-off",
        "code.no-unsafe-load",
        "code.sast",
        "code.secrets",
        "model.digest",
        "model.format",
        "run.secrets",
    ]


@pytest.mark.parametrize("name", OWN)
def test_every_check_fails_on_its_bad_example(tmp_path, name):
    check = CHECKS[name]()
    outcome = check.examine(check.bad_example(tmp_path))
    assert not outcome.passed
    assert outcome.message
    assert all(digest.startswith("sha256:") for digest in outcome.inputs.values())


@pytest.mark.parametrize("name", [name for name in OWN if name.startswith("code.")])
def test_clean_code_passes_and_broken_or_absent_code_does_not(tmp_path, name):
    (tmp_path / "a.py").write_text("x = 1\n")
    assert verdict(name, code=tmp_path).verdict == "pass"
    (tmp_path / "empty").mkdir()
    assert not CHECKS[name]().examine(Target(code=tmp_path / "empty")).passed
    with pytest.raises(UsageError, match="does not exist"):
        CHECKS[name]().examine(Target(code=tmp_path / "no"))
    assert verdict(name).verdict == "skipped"


def test_source_that_cannot_be_parsed_does_not_pass(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "b.py").write_text("def f(:\n")
    for name in ("code.sast", "code.no-unsafe-load"):
        outcome = CHECKS[name]().examine(Target(code=tmp_path))
        assert not outcome.passed and "b.py: code that was not read" in outcome.message


@pytest.mark.parametrize(
    "name", ["code.sast", "code.no-unsafe-load", "code.debug-off", "code.secrets"]
)
def test_our_own_source_passes(name):
    outcome = CHECKS[name]().examine(Target(code=SOURCE))
    assert outcome.passed, outcome.message


def test_a_good_model_passes_as_folder_file_stem_and_card(model):
    for path in (
        model,
        model / "net.safetensors",
        model / "net.onnx",
        model / "net",
        model / "net.json",
    ):
        for name in ("model.format", "model.digest"):
            result = verdict(name, model=path)
            assert result.verdict == "pass", (path, result.message)


@pytest.mark.parametrize("name", ["net.safetensors", "net.onnx"])
def test_one_changed_byte_fails_the_digest(model, name):
    data = bytearray((model / name).read_bytes())
    data[-1] ^= 1
    (model / name).write_bytes(bytes(data))
    result = verdict("model.digest", model=model)
    assert result.verdict == "fail"
    assert name in result.message


def test_a_given_digest_is_compared_with_the_weights(model):
    path = model / "net.safetensors"
    assert verdict("model.digest", model=path, model_digest=sha256_file(path)).verdict == "pass"
    assert verdict("model.digest", model=path, model_digest="sha256:0").verdict == "fail"


def test_a_model_file_without_a_digest_does_not_pass(model):
    (model / "stray.onnx").write_bytes(corpus.onnx_file())
    assert "stray.onnx has no recorded digest" in verdict("model.digest", model=model).message
    (model / "net.json").unlink()
    assert verdict("model.digest", model=model).verdict == "fail"


def test_a_missing_file_of_a_stored_model_fails_the_digest(model):
    (model / "net.onnx").unlink()
    assert "missing" in verdict("model.digest", model=model).message


@pytest.mark.parametrize("name", ["net.pt", "renamed.safetensors", "notes.txt", "data.json"])
def test_a_file_that_is_no_plain_model_fails_the_format(model, marker, name):
    (model / name).write_bytes(corpus.pickles(marker)["os_system"])
    result = verdict("model.format", model=model)
    assert result.verdict == "fail"
    assert name in result.message
