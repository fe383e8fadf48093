"""From a name to a classifier, and to a clear error where there is none."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from models_tiny import SHAPE, bars, equal_weights

from purpleteam.core.cards import ModelCard, find_stored
from purpleteam.core.digest import sha256_file
from purpleteam.core.errors import ModelError, Refused, UsageError
from purpleteam.models import build, evaluate, load
from purpleteam.models.adapters import parse_classes
from purpleteam.models.loading import LoadedModel
from purpleteam.models.store import net_of

CODE = """
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(144, 3))

def needs(width, height=3):
    return net()

def fails():
    raise RuntimeError("no\\nweights here")

def leaves():
    raise SystemExit("bye")

def number():
    return 7

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(144, 3))

three = 3
builtin = iter
"""


@pytest.fixture
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The current folder, with a module of the user's own in it."""
    (tmp_path / "purple_own_net.py").write_text(CODE)
    (tmp_path / "purple_broken.py").write_text("def net(:\n")
    (tmp_path / "purple_leaves.py").write_text("raise SystemExit('bye')\n")
    (tmp_path / "purple_needs.py").write_text("import purple_no_such_module\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in [one for one in sys.modules if one.startswith("purple_")]:
        del sys.modules[name]


@pytest.fixture
def weights(own_code: Path) -> Path:
    """Weights that fit the user's net."""
    from safetensors.torch import save_file

    path = own_code / "own.safetensors"
    save_file({"1.weight": torch.eye(3, 144), "1.bias": torch.arange(3.0)}, path)
    return path


def test_a_zoo_name_is_the_model_that_ships():
    model, files = load("standard"), find_stored("standard")
    assert (model.name, model.card) == ("standard", files.card)
    assert model.digest == sha256_file(files.weights)
    assert not model.module.training
    model.check_fits((1, 28, 28), 10, "mnist")


def test_a_stored_model_is_named_by_its_card(kept):
    model = load(str(kept.weights))
    assert (model.name, model.digest, model.card) == ("small-0.3", kept.card.digest, kept.card)
    assert equal_weights(model.module, build("small_cnn", SHAPE, 3, seed=5))


def test_a_changed_file_is_refused_before_it_is_read(own):
    own.weights.write_bytes(b"\xff" * 100)
    with pytest.raises(Refused, match="is not the file of its card"):
        load(str(own.stem))


@pytest.mark.parametrize("change", [{"architecture": "classic_cnn"}, {"classes": ["0", "1"]}])
def test_a_card_that_does_not_fit_its_weights_is_a_clear_error(own, change):
    path = own.stem.with_name("small-0.3.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ModelError, match="do not fit"):
        load(str(own.stem))


def test_a_card_that_does_not_name_its_input_is_a_clear_error(own):
    path = own.stem.with_name("small-0.3.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "input": {"channels": 1}}))
    with pytest.raises(ModelError, match="does not say what images it takes"):
        load(str(own.stem))


def test_a_card_of_an_unknown_architecture_gives_the_choices(own):
    path = own.stem.with_name("small-0.3.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "architecture": "resnet"}))
    with pytest.raises(UsageError, match=r"unknown architecture 'resnet'.*small_cnn"):
        load(str(own.stem))


@pytest.mark.parametrize("factory", ["net", "Net"])
def test_a_factory_of_the_users_own_is_filled_with_weights(weights, factory):
    model = load(f"purple_own_net:{factory}", weights=weights)
    assert model.name == f"purple_own_net:{factory}"
    assert (model.digest, model.card) == (sha256_file(weights), None)
    assert model.module(torch.zeros(1, *SHAPE)).tolist() == [[0.0, 1.0, 2.0]]
    assert not model.module.training


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("purple_missing:net", "module 'purple_missing' cannot be imported: No module named"),
        ("purple_needs:net", "'purple_needs' cannot be imported: No module named 'purple_no"),
        ("purple_broken:net", "module 'purple_broken' cannot be imported: "),
        ("purple_leaves:net", "module 'purple_leaves' cannot be imported: bye"),
        ("purple_own_net:other", "module 'purple_own_net' has no 'other'"),
        ("purple_own_net:needs", "'purple_own_net:needs'(width, height=3) failed when called"),
        ("purple_own_net:fails", "failed when called without arguments: no weights here"),
        ("purple_own_net:leaves", "failed when called without arguments: bye"),
        ("purple_own_net:number", "returned int, not a torch nn.Module"),
        ("purple_own_net:three", "failed when called without arguments: 'int' object is not"),
        ("purple_own_net:builtin", "failed when called without arguments: "),
    ],
)
def test_a_factory_that_gives_no_net_is_a_clear_error(weights, reference, message):
    with pytest.raises(ModelError) as error:
        load(reference, weights=weights)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_factory_needs_weights_and_a_stored_model_has_its_own(weights, kept):
    with pytest.raises(UsageError, match="purple_own_net:net needs --weights FILE"):
        load("purple_own_net:net")
    with pytest.raises(UsageError, match="--weights goes with --model module:factory"):
        load(str(kept.stem), weights=weights)


def test_weights_that_are_not_there_are_a_clear_error(own_code):
    with pytest.raises(ModelError, match="cannot be read"):
        load("purple_own_net:net", weights=own_code / "none.safetensors")


def test_a_factory_can_be_built_with_a_seed(own_code):
    one, same, other = (build("purple_own_net:net", SHAPE, 3, seed=seed) for seed in (1, 1, 2))
    assert equal_weights(one, same)
    assert not equal_weights(one, other)


@pytest.mark.parametrize("reference", ["", ":", "a:", ":b", "C:\\net", "a b:c", "standart"])
def test_what_is_neither_name_nor_path_nor_factory_is_a_clear_error(reference):
    with pytest.raises(ModelError, match="unknown model"):
        load(reference)


def test_images_and_classes_of_another_dataset_are_refused(kept):
    model = load(str(kept.stem))
    model.check_fits(SHAPE, 3, "bars")
    with pytest.raises(ModelError, match=r"takes images \(1, 12, 12\), dataset 'd' has \(3, 12,"):
        model.check_fits((3, 12, 12), 3, "d")
    with pytest.raises(ModelError, match="has 3 classes, dataset 'd' has 10"):
        model.check_fits(SHAPE, 10, "d")


def test_a_net_without_a_card_is_checked_when_it_is_called(weights):
    model = load("purple_own_net:net", weights=weights)
    model.check_fits((3, 99, 99), 10, "d")
    with pytest.raises(ModelError, match="scores 3 classes, the images have 10"):
        evaluate(model.module, bars(6), classes=10)


def test_a_loaded_model_without_a_card_fits_what_it_takes():
    card = ModelCard(
        name="n", digest="", onnx_digest="", architecture="a", input={}, classes=("0",)
    )
    unsaid = LoadedModel("n", "", torch.nn.Flatten(), card)
    with pytest.raises(ModelError, match="does not say"):
        unsaid.check_fits(SHAPE, 1, "d")
    replace(unsaid, card=None).check_fits(SHAPE, 1, "d")


@pytest.mark.parametrize(
    "code",
    [
        "os:abort",
        "torch.nn:Identity",
        "purple_elsewhere.deep:net",
        "../evil.py:net",
        "{}/evil.py:net",
        "{}/here/evil.py:net",
        "link.py:net",
    ],
)
def test_a_card_cannot_name_code_from_outside_the_current_folder(code, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    for folder in (tmp_path, tmp_path / "here"):
        (folder / "evil.py").write_text("open('ran', 'w')\nnet = print\n")
    (tmp_path / "here" / "link.py").symlink_to(tmp_path / "evil.py")
    monkeypatch.chdir(tmp_path / "here")
    code = code.format(tmp_path)
    card = ModelCard(
        name="n",
        digest="",
        onnx_digest="",
        architecture=code,
        input={"channels": 1, "height": 12, "width": 12},
        classes=("0", "1", "2"),
    )
    with pytest.raises(ModelError, match="not in the current folder, so it is not called"):
        net_of(card)
    assert not (tmp_path / "here" / "ran").exists()


def test_names_of_classes_are_a_text_or_a_list_and_a_list_may_hold_commas():
    assert parse_classes("a, b") == ("a", "b")
    assert parse_classes(["a, b", "c"]) == ("a, b", "c")
    for given in (5, ["a"], ["a", "a"]):
        with pytest.raises(UsageError, match="--classes"):
            parse_classes(given)
