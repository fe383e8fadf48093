"""The check that what is served is what was evaluated."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from models_tiny import SHAPE
from safetensors.torch import save_file

from purpleteam.core.cards import StoredModel
from purpleteam.core.checks import CHECKS, Outcome, Target, run_check
from purpleteam.core.errors import ModelError
from purpleteam.core.records import CheckResult
from purpleteam.models import build
from purpleteam.models.checks import OnnxParity


def seen(model: Path) -> Outcome:
    return OnnxParity().examine(Target(model=model))


@pytest.fixture(scope="module")
def bad(tmp_path_factory) -> Target:
    return OnnxParity().bad_example(tmp_path_factory.mktemp("bad"))


def test_the_check_is_registered_and_can_fail(kept, bad, monkeypatch):
    monkeypatch.setattr(OnnxParity, "bad_example", lambda *_: bad)
    found = run_check(CHECKS["model.onnx-parity"](), Target(model=kept.weights))
    assert found.verdict == "pass"
    assert found.negative_control == {"ran": True, "failed_as_required": True}


def test_its_bad_example_is_a_net_of_other_weights(bad):
    outcome = OnnxParity().examine(bad)
    assert not outcome.passed
    assert outcome.measured["largest_difference"] > outcome.threshold
    assert outcome.message == "the two nets differ: standard"


@pytest.mark.parametrize("ending", ["", ".safetensors", ".onnx", ".json"])
def test_a_stored_model_passes_by_any_of_its_names(kept, ending):
    found = seen(kept.stem.with_name(kept.stem.name + ending))
    assert (found.passed, found.message) == (True, "")
    assert found.inputs == {"small-0.3": kept.card.digest}
    assert found.measured["models"] == 1


def test_a_folder_passes_when_all_of_its_models_do(own: StoredModel, tmp_path_factory):
    folder = own.stem.parent
    (folder / ".training.checkpoint.safetensors").write_bytes(b"half")
    for ending in (".safetensors", ".onnx", ".json"):
        shutil.copy(f"{own.stem}{ending}", folder / f"standard{ending}")  # no zoo name is meant
    found = seen(folder)
    assert found.passed
    assert set(found.inputs) == {"small-0.3", "standard"}
    assert set(found.inputs.values()) == {own.card.digest}


def test_one_net_of_other_weights_fails_the_folder(own):
    folder = own.stem.parent
    for ending in (".onnx", ".json"):
        shutil.copy(f"{own.stem}{ending}", folder / f"b{ending}")
    save_file(build("small_cnn", SHAPE, 3, seed=6).state_dict(), folder / "b.safetensors")
    found = seen(folder)
    assert (found.passed, found.message) == (False, "the two nets differ: b")


def test_a_net_that_answers_nan_fails_and_can_be_recorded(own):
    import onnx
    from onnx import numpy_helper

    net = onnx.load(own.onnx)
    for tensor in net.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == "float32":
            tensor.CopyFrom(numpy_helper.from_array(values * float("nan"), tensor.name))
    onnx.save(net, own.onnx)
    found = seen(own.stem)
    assert not found.passed
    assert found.measured["largest_difference"] == "nan"
    assert CheckResult(check="c", proves="", verdict="fail", measured=found.measured).id


def test_no_model_at_all_fails(tmp_path):
    found = seen(tmp_path)
    assert (found.passed, found.message) == (False, "there is no stored model")


@pytest.mark.parametrize("name", ["none", "none.safetensors"])
def test_a_model_that_is_not_there_is_an_error(tmp_path, name):
    with pytest.raises(ModelError, match="unknown model"):
        seen(tmp_path / name)


def test_a_net_that_cannot_be_run_is_an_error(own):
    own.onnx.write_bytes(b"no net")
    with pytest.raises(Exception, match="INVALID_PROTOBUF"):
        seen(own.stem)
