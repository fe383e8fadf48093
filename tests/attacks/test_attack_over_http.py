"""Attacks on an app that is asked over HTTP: what is found is found in the app itself."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from purpleteam.attacks.evaluate import evaluate
from purpleteam.attacks.evasion import ATTACKS, Attacked
from purpleteam.attacks.outcomes import WRONG_WHEN_CLEAN
from purpleteam.core.cards import ModelCard
from purpleteam.core.errors import UsageError
from purpleteam.data.images import ImageSet
from purpleteam.models.black_box import BlackBox, OnnxFile, as_bytes, log_scores
from purpleteam.models.endpoint import FAINTEST, Endpoint
from purpleteam.serve.engine import Answer, Engine
from purpleteam.serve.main import running_app

EPSILON, QUERIES = 0.3, 150
OFTEN = ("rate", "abuse")  # attacks ask as fast as they can


@pytest.fixture(scope="module")
def content(images: ImageSet) -> bytes:
    """The nearest class mean as a linear net: `(x @ mean - |mean|^2 / 2)`, in ONNX."""
    flat = images.images.reshape(len(images), -1) / 255
    means = np.stack([flat[images.labels == label].mean(0) for label in range(10)])
    tensors = {"weight": means.T, "bias": -(means**2).sum(1) / 2}
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["flat"]),
            helper.make_node("Gemm", ["flat", "weight", "bias"], ["logits"]),
        ],
        "means",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, 28, 28])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(one.astype(np.float32), name) for name, one in tensors.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    made: bytes = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    return made


@pytest.fixture(scope="module")
def engine(content: bytes) -> Engine:
    from onnxruntime import InferenceSession

    card = ModelCard(
        name="means",
        digest="sha256:" + "0" * 64,
        onnx_digest="sha256:" + "1" * 64,
        architecture="linear",
        input={"channels": 1, "height": 28, "width": 28, "range": [0, 1]},
        classes=tuple("0123456789"),
    )
    return Engine(card, InferenceSession(content))


@pytest.fixture(scope="module")
def app(engine: Engine) -> Iterator[Endpoint]:
    with running_app(engine, without=OFTEN) as url:
        yield (model := Endpoint(url))
        model._app.close()


@pytest.fixture(scope="module")
def open_app(engine: Engine) -> Iterator[Endpoint]:
    with running_app(engine, expose_confidences=True, without=OFTEN) as url:
        yield (model := Endpoint(url))
        model._app.close()


class Frank(Engine):
    """The app's engine without the rules that send away what is no digit."""

    def classify(self, pixels: bytes) -> Answer:
        image = np.frombuffer(pixels, np.uint8).reshape(28, 28)
        return Answer(label=int(self.logits(image).argmax()))


class Direct(BlackBox):
    """The app's engine without the wire; where it is `only` for some images, it refuses others."""

    def __init__(self, engine: Engine, only: set[bytes] | None = None) -> None:
        super().__init__("direct", digest="", shape=(1, 28, 28), classes=10, gives="scores")
        self.engine, self.only = engine, only

    def ask(self, images: Tensor) -> Tensor:
        rows = torch.full((len(images), 10), torch.nan)
        for row, image in zip(rows, as_bytes(images)):
            found = self.engine.classify(image.tobytes())
            if found.label is not None and (self.only is None or image.tobytes() in self.only):
                shares = [round(one, 6) for one in found.confidences]
                row[:] = log_scores(torch.tensor([shares]), FAINTEST)[0]
        return rows


def right(model: Endpoint, images: ImageSet, n: int) -> tuple[Tensor, Tensor]:
    """Return the first images that the app labels rightly, and their labels."""
    x = torch.from_numpy(images.images.astype(np.float32) / 255).permute(0, 3, 1, 2)
    y = torch.tensor(images.labels)
    scores = model(x)
    rows = ((scores.argmax(1) == y) & ~scores.isnan().any(1)).nonzero().flatten()[:n]
    return x[rows], y[rows]


def check_found(
    found: Attacked, engine: Engine, x: Tensor, y: Tensor, epsilon: float = EPSILON
) -> None:
    """See that what counts as broken is wrong in the app when its bytes are sent once more."""
    assert found.broken.any()
    for image, clean, label in zip(found.x_adv[found.broken], x[found.broken], y[found.broken]):
        pixels = as_bytes(image)
        assert torch.equal(torch.from_numpy(pixels).float() / 255, image)
        again = engine.classify(pixels.tobytes()).label
        assert again is not None
        assert again != int(label)
        assert (image.double() - clean.double()).abs().max() <= epsilon + 1e-6


def test_square_breaks_an_app_that_tells_confidences(open_app, engine, images):
    x, y = right(open_app, images, 8)
    attack, before = ATTACKS["square"](epsilon=EPSILON, queries=QUERIES), open_app.calls
    found = attack.run(open_app, x, y, seed=0)
    check_found(found, engine, x, y)
    assert int(found.queries.sum()) == open_app.calls - before  # all that was sent is counted
    assert found.queries.max() <= QUERIES


def test_the_wire_changes_nothing(open_app, engine, images):
    x, y = right(open_app, images, 8)
    attack = ATTACKS["square"](epsilon=EPSILON, queries=QUERIES)
    far, near = (attack.run(model, x, y, seed=0) for model in (open_app, Direct(engine)))
    assert torch.equal(far.x_adv, near.x_adv)
    assert torch.equal(far.queries, near.queries)


def test_a_file_is_attacked_like_the_app_around_it(content, images, tmp_path):
    (tmp_path / "means.onnx").write_bytes(content)
    attack = ATTACKS["square"](epsilon=EPSILON, queries=QUERIES)
    found = evaluate(OnnxFile(tmp_path / "means.onnx"), images.first(8), attack, seed=0)
    assert found.clean_accuracy.value > 0.5
    assert found.robust_accuracy.value < 0.5


def test_labels_alone_are_enough_for_hop_skip_jump(engine, content, images):
    from onnxruntime import InferenceSession

    frank = Frank(engine.card, InferenceSession(content))
    with running_app(frank, without=OFTEN) as url:
        app = Endpoint(url)
        x, y = right(app, images, 3)
        attack, before = ATTACKS["hop_skip_jump"](norm="linf", queries=200), app.calls
        found = attack.run(app, x, y, seed=0)
        check_found(found, frank, x, y, epsilon=1)
        assert int(found.queries.sum()) == app.calls - before
        assert found.queries.max() <= 200
        app._app.close()


@pytest.mark.parametrize("name", ["pgd", "square"])
def test_an_attack_that_needs_more_than_labels_is_refused(app, images, name):
    x, y = right(app, images, 1)
    with pytest.raises(UsageError, match=f"attack '{name}' is .*, the model gives only labels"):
        ATTACKS[name](epsilon=EPSILON).run(app, x, y, seed=0)


def test_an_app_that_refuses_all_that_is_changed_is_not_broken(engine, images):
    attack = ATTACKS["square"](epsilon=EPSILON, queries=20)
    known = {image.tobytes() for image in images.images}
    found = evaluate(Direct(engine, only=known), images.first(8), attack, seed=0)
    assert found.clean_accuracy.value > 0.5
    assert found.robust_accuracy.value == found.clean_accuracy.value


def test_an_image_that_the_app_refuses_when_clean_is_wrong_and_not_attacked(open_app):
    blank = ImageSet(np.zeros((2, 28, 28, 1), np.uint8), np.zeros(2, np.int64))
    before = open_app.calls
    found = evaluate(open_app, blank, ATTACKS["square"](epsilon=EPSILON), seed=0)
    assert found.broken_by.tolist() == [WRONG_WHEN_CLEAN] * 2
    assert open_app.calls == before + 2
