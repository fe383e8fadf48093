"""Stored models without torch: found by any of their files, refused where one was changed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from purpleteam.core import cards
from purpleteam.core.cards import BOUND, ZOO, ModelCard, StoredModel, find_stored, zoo_names
from purpleteam.core.digest import sha256_file
from purpleteam.core.errors import ModelError, Refused


@pytest.fixture
def stored(tmp_path: Path) -> StoredModel:
    """A model of the right form whose name has a dot in it."""
    stem = tmp_path / "robust-0.3"
    model = StoredModel(
        stem, ModelCard(name="", digest="", onnx_digest="", architecture="", input={}, classes=())
    )
    model.weights.write_bytes(b"weights")
    model.onnx.write_bytes(b"net")
    card = ModelCard(
        name=stem.name,
        digest=sha256_file(model.weights),
        onnx_digest=sha256_file(model.onnx),
        architecture="small_cnn",
        input={"channels": 1, "height": 20, "width": 24, "range": [0, 1]},
        classes=("zero", "one"),
        recipe={"epochs": 3, "seed": 0},
        validation_accuracy=0.5,
    )
    card.write(stem.with_name("robust-0.3.json"))
    return StoredModel(stem, card)


def test_a_card_comes_back_as_it_was_written(stored, tmp_path):
    assert ModelCard.read(tmp_path / "robust-0.3.json") == stored.card


@pytest.mark.parametrize("ending", ["", ".safetensors", ".onnx", ".json"])
def test_a_model_is_found_by_its_stem_and_each_of_its_files(stored, tmp_path, ending):
    found = find_stored(str(tmp_path / f"robust-0.3{ending}"))
    assert found == stored
    found.verify()


def test_a_zoo_name_means_the_model_that_ships():
    assert "standard" in zoo_names()
    found = find_stored("standard")
    found.verify()
    assert found.card.name == "standard"
    assert found.card.shape == (1, 28, 28)


@pytest.mark.parametrize("ending", [".safetensors", ".onnx"])
def test_a_file_of_another_digest_is_refused(stored, ending):
    path = stored.stem.with_name(stored.stem.name + ending)
    path.write_bytes(b"other")
    with pytest.raises(Refused, match=r"is not the file of its card: sha256:.*, not sha256:"):
        stored.verify()


@pytest.mark.parametrize("ending", [".safetensors", ".onnx"])
def test_a_missing_file_is_named(stored, ending):
    path = stored.stem.with_name(stored.stem.name + ending)
    path.unlink()
    with pytest.raises(ModelError, match=f"{path.name}' is missing"):
        stored.verify()


@pytest.mark.parametrize("name", ["net.pt", "net.pth", "net.pkl", "net"])
def test_a_file_of_another_format_is_told_how_to_become_a_model(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ModelError, match=r"is not a stored model; .*purple import .* --arch NAME"):
        find_stored(str(tmp_path / name))


@pytest.mark.parametrize("ending", [".safetensors", ".onnx"])
def test_a_file_without_a_card_is_told_how_to_get_one(stored, tmp_path, ending):
    (tmp_path / "robust-0.3.json").unlink()
    with pytest.raises(ModelError, match=r"no card .*robust-0\.3\.json.* purple import "):
        find_stored(str(tmp_path / f"robust-0.3{ending}"))


def test_an_unknown_name_gives_the_nearest_of_the_zoo():
    with pytest.raises(ModelError, match=r"unknown model 'standart' .*did you mean 'standard'"):
        find_stored("standart")


@pytest.mark.parametrize("reference", ["", ".", "/", "..", "./", "no/such/model.safetensors"])
def test_what_names_no_model_is_a_clear_error(tmp_path, monkeypatch, reference):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"unknown model .* or the path of a stored model"):
        find_stored(reference)


def test_a_folder_is_no_model(stored, tmp_path):
    with pytest.raises(ModelError, match="unknown model"):
        find_stored(str(tmp_path))


CARD = {"name": "n", "digest": "d", "onnx_digest": "o", "architecture": "a", "input": {}}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "7",
        "[" * 100_000,
        json.dumps(CARD),
        json.dumps({"classes": ["0"]}),
        json.dumps({**CARD, "classes": 3}),
        json.dumps({**CARD, "classes": "0123"}),
        json.dumps({**CARD, "classes": ["0"], "input": 28}),
        '"\\xff"',
    ],
)
def test_an_unreadable_card_is_a_clear_error(tmp_path, content):
    (tmp_path / "card.json").write_text(content)
    with pytest.raises(ModelError, match=r"model card .*card\.json' cannot be read: "):
        ModelCard.read(tmp_path / "card.json")


def test_a_card_in_other_letters_or_that_is_a_folder_is_a_clear_error(tmp_path):
    (tmp_path / "card.json").write_bytes(b'{"name": "\xff"}')
    for path in (tmp_path / "card.json", tmp_path, tmp_path / "none.json"):
        with pytest.raises(ModelError, match="cannot be read"):
            ModelCard.read(path)


def test_a_card_of_a_later_version_is_read(stored, tmp_path):
    path = tmp_path / "robust-0.3.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "later": 1}))
    assert find_stored(str(path)).card == stored.card


def test_a_card_says_what_images_its_model_takes(stored):
    assert stored.card.shape == (1, 20, 24)


@pytest.mark.parametrize(
    "given", [{}, {"height": 0}, {"height": "28"}, {"height": None}, {"height": 2.5}]
)
def test_a_card_that_does_not_say_what_images_it_takes_is_a_clear_error(stored, given):
    sizes = {**stored.card.input, **given} if given else {}
    with pytest.raises(ModelError, match=r"'robust-0\.3' does not say what images it takes"):
        _ = replace(stored.card, input=sizes).shape


@pytest.mark.parametrize("field", BOUND)
def test_the_identity_binds_all_that_decides_an_answer(stored, field):
    changed = {"classes": ("one", "zero"), "input": {}, "normalisation": {"mean": [0.1]}}
    other = replace(stored.card, **{field: changed.get(field, "sha256:0")})
    assert other.identity != stored.card.identity


def test_the_identity_is_the_same_after_reading_and_under_another_name(stored, tmp_path):
    read = ModelCard.read(tmp_path / "robust-0.3.json")
    assert replace(read, name="other", versions={}).identity == stored.card.identity


def test_the_models_that_ship_have_the_identities_of_the_source_code():
    assert {name: find_stored(name).card.identity for name in zoo_names()} == ZOO


def test_a_model_that_ships_is_refused_once_files_and_card_are_exchanged(
    stored, tmp_path, monkeypatch
):
    monkeypatch.setattr(cards, "_zoo", lambda: tmp_path)
    with pytest.raises(Refused, match="is not the model of the package: sha256:"):
        find_stored("robust-0.3").verify()


def test_a_card_with_a_number_that_is_none_is_a_clear_error(stored, tmp_path):
    replace(stored.card, validation_accuracy=float("nan")).write(tmp_path / "robust-0.3.json")
    with pytest.raises(ModelError, match="cannot be read"):
        find_stored(str(tmp_path / "robust-0.3"))
