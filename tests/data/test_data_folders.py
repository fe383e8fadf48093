"""Datasets by reference: names, folders of IDX files, and what is saved as one."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

import purpleteam
from purpleteam.core.errors import DataError, UsageError
from purpleteam.core.progress import SILENT, Progress
from purpleteam.data.folders import MANIFEST, load_dataset, save_dataset
from purpleteam.data.idx import IDX_FILES, find_idx, write_idx
from purpleteam.data.images import SPLITS, Dataset, ImageSet
from purpleteam.data.sources import DATASETS


def toy(*, channels: int = 1, counts=(7, 3, 2)) -> Dataset:
    rng = np.random.default_rng(1)
    parts = {
        name: ImageSet(
            rng.integers(0, 256, (n, 5, 4, channels)).astype(np.uint8), np.arange(n) % 2 * 1
        )
        for name, n in zip(SPLITS, counts)
    }
    return Dataset(name="toy", classes=("cat", "dog"), **parts)


def test_a_name_goes_before_a_folder_of_that_name_and_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    made = load_dataset("digits")
    assert made.origin["notes"] == (
        "'digits' is the data set of that name, not the folder here: that is './digits'",
    )
    assert made.digest == DATASETS["digits"]().digest
    save_dataset(toy(), tmp_path / "digits" / "own")
    assert load_dataset("./digits/own").digest == toy().digest


def test_an_unknown_reference_names_the_value_and_the_choices():
    with pytest.raises(UsageError) as caught:
        load_dataset("mnits")
    assert str(caught.value) == (
        "unknown dataset 'mnits' (did you mean 'mnist'?); known: digits, drawn_shapes, mnist, or a "
        "folder, or module:factory (MAITE)"
    )


def test_a_new_dataset_is_one_function_that_is_known_by_its_name_everywhere(monkeypatch):
    monkeypatch.setattr(DATASETS, "_items", dict(DATASETS._items))

    @DATASETS.register("toys")
    def toys() -> Dataset:
        return toy()

    assert load_dataset("toys").digest == toy().digest
    with pytest.raises(UsageError, match="known: digits, drawn_shapes, mnist, toys, or a folder"):
        load_dataset("tyos")
    with pytest.raises(UsageError, match="no folder of image files"):
        load_dataset("toys:resize=32")


def test_a_dataset_that_asks_for_it_may_report_progress(monkeypatch):
    monkeypatch.setattr(DATASETS, "_items", dict(DATASETS._items))
    told = []

    @DATASETS.register("slow")
    def slow(progress: Progress) -> Dataset:
        told.append(progress)
        return toy()

    load_dataset("slow", progress=SILENT)
    assert told == [SILENT]


def test_an_idx_folder_is_split_as_mnist_is(four_files):
    found = load_dataset(str(four_files))
    assert [len(found.split(name)) for name in SPLITS] == [22, 2, 6]
    assert found.classes == ("0", "1", "2")
    assert (found.name, found.shape) == ("four", (6, 6, 1))
    assert set(found.origin["files"]) == set(IDX_FILES)


@pytest.mark.parametrize("counts", [(7, 3, 2), (0, 2, 2), (0, 1, 5)])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_saved_is_loaded_again_split_for_split(tmp_path, channels, counts):
    saved = toy(channels=channels, counts=counts)
    found = load_dataset(save_dataset(saved, tmp_path / "set", {"trigger": "corner", "seed": 3}))
    assert found.digest == saved.digest
    assert (found.name, found.classes) == (saved.name, saved.classes)
    assert found.origin["manifest"]["trigger"] == "corner"


def test_saving_twice_gives_the_same_bytes(tmp_path):
    one, two = (save_dataset(toy(), tmp_path / name) for name in ("one", "two"))
    for name in (*(f"{name}.gz" for name in IDX_FILES), MANIFEST):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_files_that_are_not_what_the_manifest_says_are_refused(tmp_path):
    folder = save_dataset(toy(), tmp_path / "set")
    write_idx(folder / f"{IDX_FILES[3]}.gz", np.array([1, 1], np.uint8))
    with pytest.raises(DataError, match=r"test is sha256:.*, but its manifest says sha256:"):
        load_dataset(folder)


def splits_of(count: int) -> str:
    return json.dumps({"splits": {name: {"n": count, "digest": "?"} for name in SPLITS}})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "no readable JSON"),
        ("[" * 200_000, "no readable JSON"),
        ("[]", "must be a JSON object, not list"),
        ('{"splits": 3}', "must give n and digest of train, validation, test"),
        ('{"splits": {"train": {"n": 9}}}', "must give n and digest"),
        (splits_of(9), "training file holds 24"),
        (splits_of(12), "but its manifest says [?]"),
        ('{"classes": ["only"]}', "at least 3 names"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_a_clear_error(four_files, text, words):
    (four_files / MANIFEST).write_text(text)
    with pytest.raises(DataError, match=words):
        load_dataset(four_files)


def test_a_manifest_of_ones_own_is_kept_in_the_origin(four_files):
    (four_files / MANIFEST).write_text(json.dumps({"made by": "me"}))
    assert load_dataset(four_files).origin["manifest"] == {"made by": "me"}


def test_a_missing_file_or_two_sizes_of_image_are_clear_errors(four_files):
    write_idx(four_files / f"{IDX_FILES[2]}.gz", np.zeros((6, 7, 7), np.uint8))
    with pytest.raises(DataError, match=r"training images are \(6, 6, 1\), test images \(7, 7, 1"):
        load_dataset(four_files)
    (four_files / f"{IDX_FILES[2]}.gz").unlink()
    with pytest.raises(DataError, match="holds no t10k-images"):
        load_dataset(four_files)


def test_one_training_image_is_too_few(four_files):
    write_idx(four_files / f"{IDX_FILES[0]}.gz", np.zeros((1, 6, 6), np.uint8))
    write_idx(four_files / f"{IDX_FILES[1]}.gz", np.zeros(1, np.uint8))
    with pytest.raises(DataError, match="1 training images cannot be split"):
        load_dataset(four_files)


def test_more_classes_than_a_byte_counts_are_written_and_read_again(tmp_path):
    train = ImageSet(toy().train.images, 290 + toy().train.labels)
    many = dataclasses.replace(toy(), train=train, classes=tuple(map(str, range(300))))
    found = load_dataset(save_dataset(many, tmp_path / "set"))
    assert found.digest == many.digest and found.classes == many.classes
    pixels = find_idx(tmp_path / "set", IDX_FILES[0])
    with pytest.raises(DataError, match="cannot write int32"):
        write_idx(pixels, np.zeros((2, 4, 4), np.int32))
    pixels.write_bytes(b"\0\0\x0c\3" + bytes(12))  # images are bytes
    with pytest.raises(DataError, match="no IDX file of bytes"):
        load_dataset(tmp_path / "set")


def test_the_room_names_its_parts_and_imports_none_of_them():
    code = "import sys, purpleteam.data as d; print('numpy' in sys.modules, d.place.__name__)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["False", "place"]
    assert all(hasattr(purpleteam.data, name) for name in purpleteam.data.__all__)
    assert not hasattr(purpleteam.data, "cifar10")


def test_no_public_name_is_a_module_of_the_same_name():
    import purpleteam.data as room

    assert [name for name in room.__all__ if isinstance(getattr(room, name), type(room))] == []
