"""Whose weights an ONNX file holds."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load, save
from serve_tiny_model import halves, write_linear_model

from purpleteam.core.cards import find_stored, zoo_names
from purpleteam.core.checks import Target, run_check
from purpleteam.core.errors import ModelError
from purpleteam.serve.checks.weights import OnnxWeights
from purpleteam.serve.weights import held

CHECK = OnnxWeights()


def onnx_of(*tensors: tuple[str, np.ndarray]) -> bytes:
    """An ONNX file that holds these tensors and does nothing."""
    parts = [numpy_helper.from_array(values, name) for name, values in tensors]
    return helper.make_model(helper.make_graph([], "", [], [], parts)).SerializeToString()


@pytest.fixture
def layers(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A convolution with a batch normalisation after it."""
    sizes = {"0.weight": (16, 3, 3, 3), "0.bias": (16,), "1.num_batches_tracked": ()}
    sizes |= dict.fromkeys(("1.weight", "1.bias", "1.running_mean", "1.running_var"), (16,))
    return {name: np.array(rng.random(size, np.float32) + 0.5) for name, size in sizes.items()}


@pytest.fixture
def folded(layers: dict[str, np.ndarray]) -> tuple[tuple[str, np.ndarray], ...]:
    scale = layers["1.weight"] / np.sqrt(layers["1.running_var"] + np.float32(1e-5))
    shift = layers["1.bias"] + (layers["0.bias"] - layers["1.running_mean"]) * scale
    return ("0.weight", layers["0.weight"] * scale[:, None, None, None]), ("0.weight_bias", shift)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("name", zoo_names())
def test_the_shipped_models_are_whole(name: str) -> None:
    model = find_stored(name)
    assert held(model.onnx.read_bytes(), model.weights.read_bytes()).whole


def test_each_of_two_shipped_models_holds_nothing_of_the_other() -> None:
    one, other = find_stored("standard"), find_stored("robust-0.3")
    found = held(other.onnx.read_bytes(), one.weights.read_bytes())
    assert len(found.missing) > 25 and len(found.foreign) > 5 and not found.whole


def test_weights_that_were_transposed_are_found(rng: np.random.Generator) -> None:
    weight = rng.random((20, 30), np.float32)
    assert held(onnx_of(("val_0", weight.T.copy())), save({"weight": weight})).whole


def test_a_folded_batch_normalisation_is_followed(layers, folded) -> None:
    found = held(onnx_of(*folded), save(layers))
    assert found.whole and len(found.folded) == 6
    assert str(found).endswith("holds the 6 tensors of the weights (6 folded) and no others")


@pytest.mark.parametrize("place", [0, 1])
def test_one_changed_number_of_what_was_folded_is_seen(layers, folded, place: int) -> None:
    folded[place][1].flat[5] *= 1.01
    assert not held(onnx_of(*folded), save(layers)).whole


def test_one_changed_bit_of_what_was_not_folded_is_seen(tmp_path: Path) -> None:
    model = find_stored(str(write_linear_model(tmp_path, halves(), (1, 28, 28))))
    weights = load(model.weights.read_bytes())
    weights["weight"].view(np.uint32)[0, 0] ^= 1
    found = held(model.onnx.read_bytes(), save(weights))
    assert (found.missing, found.foreign) == (("weight",), ("weight",))
    assert str(found) == (
        "the ONNX file lacks 1 of the 1 tensors of the weights"
        " and holds 1 that are not theirs (weight, weight)"
    )


def test_a_second_net_beside_the_first_is_seen(rng: np.random.Generator) -> None:
    weight, more = rng.random((20, 30), np.float32), rng.random((9, 9), np.float32)
    found = held(onnx_of(("weight", weight), ("trigger", more)), save({"weight": weight}))
    assert found.foreign == ("trigger",) and not found.missing


def test_weights_in_a_node_count_too(rng: np.random.Generator) -> None:
    weight = rng.random((20, 30), np.float32)
    node = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(weight))
    model = helper.make_model(helper.make_graph([node], "", [], [])).SerializeToString()
    assert held(model, save({"weight": weight})).whole
    assert held(model, save({"other": weight + 1})).foreign == ("constant 0",)


def test_weights_that_are_written_as_numbers_are_read(rng: np.random.Generator) -> None:
    values = rng.random(12, np.float32)
    tensor = helper.make_tensor("weight", TensorProto.FLOAT, (3, 4), values.tolist())
    model = helper.make_model(helper.make_graph([], "", [], [], [tensor])).SerializeToString()
    assert held(model, save({"weight": values.reshape(3, 4)})).whole


@given(st.binary(max_size=200))
def test_garbage_holds_nothing_or_is_a_clear_error(content: bytes) -> None:
    with suppress(ModelError):
        assert not held(content, save({"weight": np.ones(9, np.float32)})).whole


@pytest.mark.parametrize("side", [-1, 2**62, 5])
def test_a_shape_that_its_values_do_not_have_is_a_clear_error(side: int) -> None:
    tensor = numpy_helper.from_array(np.ones((3, 4), np.float32), "weight")
    tensor.dims[:] = [side, 2**62]
    model = helper.make_model(helper.make_graph([], "", [], [], [tensor])).SerializeToString()
    with pytest.raises(ModelError, match="the weights cannot be compared"):
        held(model, save({"weight": np.ones((3, 4), np.float32)}))


def test_no_graph_is_a_clear_error() -> None:
    with pytest.raises(ModelError, match="cannot be compared: this is no ONNX file"):
        held(b"", save({"weight": np.ones(9, np.float32)}))


def test_the_check_passes_and_its_control_fails(tmp_path: Path) -> None:
    write_linear_model(tmp_path, halves(), (1, 28, 28))
    result = run_check(CHECK, Target(model=tmp_path))
    assert (result.verdict, result.measured["tensors"]) == ("pass", 1)
    assert result.negative_control["failed_as_required"]


def test_another_onnx_under_the_same_card_fails_the_check(tmp_path: Path) -> None:
    path = write_linear_model(tmp_path, halves(), (1, 28, 28))
    net = onnx.load(path)
    net.graph.initializer[0].CopyFrom(numpy_helper.from_array(-halves(), "weight"))
    onnx.save(net, path)
    result = run_check(CHECK, Target(model=tmp_path))
    assert result.verdict == "fail" and result.message.startswith("tiny: the ONNX file lacks 1")
