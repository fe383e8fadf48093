"""Classifiers that follow MAITE's protocol: how much an attack may know of each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from models_tiny import bars
from torch import Tensor, nn

from purpleteam.core.errors import ModelError, UsageError
from purpleteam.data.images import ImageSet
from purpleteam.models import evaluate, load
from purpleteam.models.adapters import NORMALISATIONS
from purpleteam.models.black_box import ObjectClassifier, ObjectNet
from purpleteam.models.devices import to_batch
from purpleteam.models.fit import examine
from purpleteam.models.inference import logits
from purpleteam.models.loading import LoadedModel, opened

IMAGES = bars(30)
X = to_batch(IMAGES.images)


def ready(loaded: LoadedModel, images: ImageSet) -> LoadedModel:
    """Return the model as it would be attacked, with all that is to be told of it."""
    found = opened(loaded, images)
    return found.noting(*examine(found.module, images))


def net() -> nn.Module:
    """Return a net that knows the bars, as far as three weights for each pixel go."""
    made = blank()
    rows = torch.eye(3).repeat_interleave(48, 1) - 1 / 3
    made.load_state_dict({"1.weight": rows / 2})
    return made


def blank() -> nn.Module:
    """Return the same net without knowledge."""
    with torch.random.fork_rng(devices=[]):
        return nn.Sequential(nn.Flatten(), nn.Linear(144, 3, bias=False))


class Model:
    """A MAITE model around a net, or around numpy alone."""

    metadata: ClassVar[Any] = {"id": "bars", "index2label": {0: "top", 1: "middle", 2: "bottom"}}

    def __init__(self, call: Callable[[Any, Sequence[Any]], Any], inner: object = None) -> None:
        self.call = call
        if inner is not None:
            self.model = inner

    def __call__(self, batch: Sequence[Any]) -> Any:
        return self.call(self, batch)


def by_numpy(_: Any, batch: Sequence[Any]) -> list[np.ndarray[Any, Any]]:
    weights = net()[1].weight.detach().numpy()  # type: ignore[index]
    scores = [weights @ np.asarray(image, np.float32).ravel() for image in batch]
    return [np.exp(row) / np.exp(row).sum() for row in scores]


def by_net(model: Any, batch: Sequence[Any]) -> Tensor:
    with torch.no_grad():
        found: Tensor = model.model(torch.stack([torch.as_tensor(one) for one in batch]))
    return found.softmax(1)


def by_net_after(change: Callable[[Tensor], Tensor], grad: bool) -> Callable[[Any, Any], Tensor]:
    def call(model: Any, batch: Sequence[Any]) -> Tensor:
        with torch.set_grad_enabled(grad):
            found: Tensor = model.model(change(torch.stack(list(batch))))
        return found.softmax(1)

    return call


class Itself(nn.Module):
    """A net that is a MAITE model itself."""

    def __init__(self) -> None:
        super().__init__()
        self.metadata = {"id": "itself"}
        self.net = net()

    def forward(self, batch: Sequence[Tensor]) -> list[Tensor]:
        return list(self.net(torch.stack([*batch])))


@pytest.fixture
def given_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Load what a factory returns."""
    (tmp_path / "own_maite.py").write_text("made = None\ndef make():\n    return made\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "own_maite", raising=False)

    def given(made: object, **options: Any) -> Any:
        import own_maite  # type: ignore[import-not-found]

        own_maite.made = made
        return load("own_maite:make", **options)

    yield given
    sys.modules.pop("own_maite", None)


def test_without_a_net_it_is_a_black_box_that_gives_scores(given_by: Any) -> None:
    loaded = ready(given_by(Model(by_numpy)), IMAGES)
    assert isinstance(loaded.module, ObjectClassifier)
    assert (loaded.module.differentiable, loaded.module.quantised) == (False, False)
    assert loaded.notes[0] == "'own_maite:make' returned a MAITE model"
    assert "black-box attacks only" in loaded.notes[1] and len(loaded.notes) == 2
    torch.testing.assert_close(loaded.module(X), net()(X).log_softmax(1))
    assert loaded.module.classes == 3 and loaded.module.calls >= 30
    assert evaluate(loaded.module, IMAGES, classes=3).clean_accuracy.value == 1


def test_a_net_that_answers_as_the_model_does_is_attacked_itself(given_by: Any) -> None:
    model = Model(by_net, net())
    loaded = ready(given_by(model), IMAGES)
    assert loaded.module is model.model
    assert "attacked" not in loaded.notes[-1] and loaded.notes[-1].endswith("white-box")
    torch.testing.assert_close(loaded.module(X), net()(X))


def test_a_net_behind_preprocessing_is_not_mistaken_for_the_model(given_by: Any) -> None:
    blurred = by_net_after(lambda x: 1 - x, grad=False)
    loaded = ready(given_by(Model(blurred, net())), IMAGES)
    assert isinstance(loaded.module, ObjectClassifier)
    torch.testing.assert_close(loaded.module(X), net()(1 - X).log_softmax(1))


def test_gradients_through_its_own_preprocessing_are_used(given_by: Any) -> None:
    loaded = ready(given_by(Model(by_net_after(lambda x: 1 - x, grad=True), net())), IMAGES)
    assert isinstance(loaded.module, ObjectNet)
    x = X.clone().requires_grad_(True)
    (ours,) = torch.autograd.grad(loaded.module(x)[:, 0].sum(), x)
    (true,) = torch.autograd.grad(net()(1 - x).log_softmax(1)[:, 0].sum(), x)
    torch.testing.assert_close(ours, true)


def test_a_net_that_is_a_model_itself_is_white_box(given_by: Any) -> None:
    loaded = ready(given_by(Itself()), IMAGES)
    assert isinstance(loaded.module, ObjectNet)
    assert loaded.notes[-1] == "its own call lets gradients through: white-box"
    torch.testing.assert_close(loaded.module(X), net()(X))


def test_its_net_takes_weights_from_a_file(given_by: Any, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(net().state_dict(), tmp_path / "w.safetensors")
    model = Model(by_net, blank())
    loaded = given_by(model, weights=tmp_path / "w.safetensors")
    torch.testing.assert_close(loaded.module(X), net()(X).log_softmax(1))
    with pytest.raises(UsageError, match="MAITE model with no net for --weights"):
        given_by(Model(by_numpy), weights=tmp_path / "w.safetensors")


def test_a_normalisation_goes_before_it_whatever_is_known_of_it(given_by: Any) -> None:
    layer = NORMALISATIONS["inverted"]
    for model in (Model(by_numpy), Model(by_net, net()), Itself()):
        loaded = ready(given_by(model, normalisation=layer), IMAGES)
        scores = torch.from_numpy(logits(loaded.module, IMAGES.images))
        torch.testing.assert_close(scores.softmax(1), net()(1 - X).softmax(1))


def test_its_digest_is_of_the_weights_where_they_are_known(given_by: Any) -> None:
    other = net()
    other[1].weight.data += 1  # type: ignore[index,operator]
    digests = [given_by(Model(by_net, one)).digest for one in (net(), net(), other)]
    assert digests[0] == digests[1] != digests[2]
    assert given_by(Model(by_numpy)).digest.startswith("sha256:")


def test_dropout_in_its_net_is_turned_off_and_it_is_said(given_by: Any) -> None:
    inner = nn.Sequential(nn.Dropout(0.5), net())
    loaded = ready(given_by(Model(by_net, inner)), IMAGES)
    assert any("train mode (Dropout)" in note for note in loaded.notes)
    assert not any("from call to call" in note for note in loaded.notes)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda *_: None, "returned no row of scores each"),
        (lambda *_: [[1.0, 2.0], [1.0]], "returned no row of scores each"),
        (lambda *_: [["a", "b"]], "returned no row of scores each"),
        (lambda _, batch: [1.0 for _ in batch], r"returned \(8,\), not \(8, classes\)"),
        (lambda _, batch: np.zeros((len(batch) - 1, 3)), r"returned \(7, 3\), not \(8, cl"),
    ],
    ids=["none", "ragged", "text", "flat", "few"],
)
def test_answers_that_are_no_scores_are_a_clear_error(
    given_by: Any, answer: Any, message: str
) -> None:
    with pytest.raises(ModelError, match=message) as error:
        ready(given_by(Model(answer)), IMAGES)
    assert "\n" not in str(error.value)


def test_what_it_raises_is_told_in_a_line(given_by: Any) -> None:
    def fails(*_: Any) -> Any:
        raise RuntimeError("no\nmore")

    with pytest.raises(ModelError, match=r"does not take images of shape .* no more"):
        logits(given_by(Model(fails)).module, IMAGES.images)


def test_its_own_names_say_which_output_is_which_class(given_by: Any) -> None:
    for model in (Model(by_numpy), Model(by_net, net())):
        same = given_by(model).in_order_of(("top", "middle", "bottom"), "bars")
        assert same.notes == given_by(model).notes
        other = given_by(model).in_order_of(("a", "b", "c"), "bars")
        assert "(top, middle, bottom) are others" in other.notes[-1]
        turned = given_by(model).in_order_of(("bottom", "middle", "top"), "bars")
        assert turned.notes[-1] == "its outputs are, in this order: top, middle, bottom"
        scores = opened(turned, IMAGES).module(X)
        torch.testing.assert_close(scores.softmax(1), net()(X).softmax(1).flip(1))
        fewer = given_by(model).in_order_of(("bottom", "middle"), "bars")
        assert fewer.notes[-1] == "top: left out, since the data has no such class"
