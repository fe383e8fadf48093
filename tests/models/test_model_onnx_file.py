"""An ONNX file as a black box."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch
from black_box_tiny import LOWER, UPPER, halves, labels_of, linear, write
from models_tiny import SHAPE, bars
from onnx import TensorProto

from purpleteam.core.digest import sha256_file
from purpleteam.core.errors import ModelError, Refused, UsageError
from purpleteam.models import load
from purpleteam.models.adapters import NORMALISATIONS
from purpleteam.models.black_box import BlackBox, OnnxFile
from purpleteam.models.inference import correct, logits

RGB = (3, 4, 4)
WEIGHT = np.random.default_rng(0).normal(size=(48, 5)).astype(np.float32)


def colours(n: int) -> torch.Tensor:
    """Random images in steps of 1/255."""
    rng = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (n, *RGB), generator=rng).float() / 255


def test_a_file_answers_as_the_net_it_was_made_of(kept):
    box, net = OnnxFile(kept.onnx), load(str(kept.weights)).module
    images = bars(7)
    assert np.allclose(logits(box, images.images), logits(net, images.images), atol=1e-4)
    assert correct(box, images).tolist() == correct(net, images).tolist()


def test_a_file_beside_a_card_has_its_name_and_the_digest_of_the_file(kept):
    box = OnnxFile(kept.onnx)
    assert (box.name, box.card, box.digest) == ("small-0.3", kept.card, kept.card.onnx_digest)
    assert (box.classes, box.shape, box.gives) == (3, SHAPE, "scores")
    assert (box.differentiable, box.quantised) == (False, True)


def test_a_file_that_is_not_of_its_card_is_refused(own):
    own.onnx.write_bytes(own.onnx.read_bytes() + b"\x00")
    with pytest.raises(Refused, match="is not the file of its card"):
        OnnxFile(own.onnx)


def test_a_card_of_other_classes_is_a_clear_error(own):
    path = own.stem.with_name("small-0.3.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "classes": ["a", "b"]}))
    with pytest.raises(ModelError, match="scores 3 classes, its card 2"):
        OnnxFile(own.onnx)


def test_a_file_alone_is_named_by_itself(tmp_path):
    path = write(tmp_path, linear(halves(), ("n", 1, 28, 28)))
    box = OnnxFile(path)
    assert (box.name, box.digest, box.card) == ("tiny", sha256_file(path), None)
    assert labels_of(box, torch.from_numpy(np.concatenate([UPPER, LOWER]))) == [0, 1]
    assert box.calls == 2


@pytest.mark.parametrize("batch", ["n", 1, 3, 8])
def test_a_fixed_batch_is_filled_and_answers_the_same(tmp_path, batch):
    box = OnnxFile(write(tmp_path, linear(WEIGHT, (batch, *RGB))))
    x = colours(7)
    assert torch.allclose(box(x), x.flatten(1) @ torch.from_numpy(WEIGHT), atol=1e-4)
    assert box.calls == 7


def test_a_file_that_takes_bytes_gets_bytes(tmp_path):
    box = OnnxFile(write(tmp_path, linear(WEIGHT, ("n", *RGB), kind=TensorProto.UINT8)))
    x = colours(4)
    assert torch.allclose(box(x), 255 * x.flatten(1) @ torch.from_numpy(WEIGHT), rtol=1e-4)


@pytest.mark.parametrize(("sides", "shape"), [((28, 28), (3, 28, 28)), ("hw", (3, None, None))])
def test_channels_may_come_last(tmp_path, sides, shape):
    weight = np.random.default_rng(0).normal(size=(28, 28, 3, 5)).astype(np.float32)
    box = OnnxFile(write(tmp_path, linear(weight.reshape(-1, 5), ("n", *sides, 3))))
    rng = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (4, 3, 28, 28), generator=rng).float() / 255
    truth = torch.einsum("nchw,hwck->nk", x, torch.from_numpy(weight))
    assert box.shape == shape and torch.allclose(box(x), truth, atol=1e-3)
    assert "it takes images (N, H, W, C): they are turned" in box.notes


@pytest.mark.parametrize("kind", [TensorProto.DOUBLE, TensorProto.FLOAT16])
def test_other_floats_are_taken(tmp_path, kind):
    box = OnnxFile(write(tmp_path, linear(WEIGHT, ("n", *RGB), kind=kind)))
    x = colours(4)
    assert torch.allclose(box(x), x.flatten(1) @ torch.from_numpy(WEIGHT), atol=0.02)


def test_the_scores_beside_a_label_are_taken_and_that_is_said(tmp_path):
    model = linear(WEIGHT, ("n", *RGB))
    model.graph.node.append(onnx.helper.make_node("ArgMax", ["logits"], ["label"], axis=1))
    told = onnx.helper.make_tensor_value_info("label", TensorProto.INT64, ["n", 1])
    model.graph.output.insert(0, told)
    box = OnnxFile(write(tmp_path, model))
    x = colours(4)
    assert torch.allclose(box(x), x.flatten(1) @ torch.from_numpy(WEIGHT), atol=1e-4)
    assert box.notes[0] == "of its 2 outputs 'logits' is taken for the scores"


def test_probabilities_become_their_logarithms(tmp_path):
    box = OnnxFile(write(tmp_path, linear(WEIGHT, ("n", *RGB), end="Softmax")))
    truth = (colours(4).flatten(1) @ torch.from_numpy(WEIGHT)).log_softmax(1)
    assert torch.allclose(box(colours(4)), truth, atol=1e-3)


def test_probabilities_of_zero_stay_finite(tmp_path):
    box = OnnxFile(write(tmp_path, linear(1000 * WEIGHT, ("n", *RGB), end="Softmax")))
    assert torch.isfinite(box(colours(4))).all()


def test_open_sides_take_any_image(tmp_path):
    weight = np.ones((784, 2), np.float32)
    box = OnnxFile(write(tmp_path, linear(weight, ("n", 1, "h", "w"))))
    assert box.shape == (1, None, None)
    with pytest.raises(ModelError, match=r"cannot be run: .*matmul|cannot be run: .*MatMul"):
        box(torch.zeros(1, 1, 4, 4))
    with pytest.raises(ModelError, match=r"takes images \(1, any, any\), not \(3, 28, 28\)"):
        box(torch.zeros(1, 3, 28, 28))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (linear(WEIGHT, ("n", 48)), "takes image tensor(float) ['n', 48]; known: one input (N, C"),
        (
            linear(WEIGHT, ("n", *RGB), outputs=2),
            "known: one output (N, classes) of scores: export it anew",
        ),
        (linear(WEIGHT, ("n", *RGB), kind=TensorProto.INT64), "takes image tensor(int64)"),
        (linear(WEIGHT * np.nan, ("n", *RGB)), "answered with NaN, infinity or no real numbers"),
        (linear(WEIGHT[:7], ("n", *RGB)), "tiny.onnx' cannot be "),
        (linear(WEIGHT, ("n", *RGB), end="NoSuchOperator"), "cannot be opened by ONNX Runtime: "),
    ],
)
def test_what_is_no_classifier_of_images_is_a_clear_error(tmp_path, model, message):
    with pytest.raises(ModelError) as error:
        OnnxFile(write(tmp_path, model))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\x08\x08", b"not a model", b"\xff" * 300])
def test_a_broken_file_is_a_clear_error(tmp_path, content):
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"broken\.onnx' (cannot be opened|takes )"):
        OnnxFile(path)


def test_a_file_that_is_missing_or_a_folder_is_a_clear_error(tmp_path):
    with pytest.raises(ModelError, match=r"none\.onnx' cannot be read: No such file"):
        OnnxFile(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="cannot be read: Is a directory"):
        OnnxFile(tmp_path)


@pytest.mark.parametrize("place", ["weight.bin", "../weight.bin", "{absolute}"])
def test_weights_in_another_file_are_never_read(tmp_path, monkeypatch, place):
    folder = tmp_path / "model"
    folder.mkdir()
    for home in (tmp_path, folder):
        (home / "weight.bin").write_bytes(WEIGHT.tobytes())
    model = linear(WEIGHT, ("n", *RGB))
    (tensor,) = model.graph.initializer
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", place.format(absolute=tmp_path / "weight.bin")
    monkeypatch.chdir(folder)
    with pytest.raises(ModelError, match="it reads its weights from other files, which is not"):
        OnnxFile(write(folder, model))


def test_load_takes_a_path_to_an_onnx_file(kept, tmp_path):
    loaded = load(str(kept.onnx))
    assert isinstance(loaded.module, BlackBox)
    assert (loaded.name, loaded.digest) == ("small-0.3", kept.card.onnx_digest)
    assert loaded.card == kept.card
    assert not loaded.module.differentiable
    onnx.save(linear(WEIGHT, ("n", *RGB)), tmp_path / "other.onnx")
    assert load(str(tmp_path / "other.onnx")).card is None
    with pytest.raises(UsageError, match="--weights goes with --model module:factory"):
        load(str(kept.onnx), weights=kept.weights)


def test_a_normalisation_follows_the_bytes_of_a_file_that_wants_one(kept, tmp_path):
    images = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    layer = NORMALISATIONS["signed"]
    plain, behind = load(str(kept.onnx)), load(str(kept.onnx), normalisation=layer)
    assert behind.normalisation == layer and behind.digest == plain.digest
    rounded = (images * 255).round() / 255
    expected = plain.module.ask(layer(rounded))
    torch.testing.assert_close(behind.module(images), expected)
    onnx.save(linear(WEIGHT, ("n", *RGB), kind=TensorProto.UINT8), tmp_path / "bytes.onnx")
    with pytest.raises(UsageError, match=r"a normalisation goes before a net, and .* takes bytes"):
        load(str(tmp_path / "bytes.onnx"), normalisation=layer)
