"""The checks on data: they pass on good files, and it is proved that they can fail."""

from __future__ import annotations

import numpy as np
import pytest

from purpleteam.core.checks import Target, run_check
from purpleteam.data.checks import DataDigest, DataSchema
from purpleteam.data.folders import load_dataset
from purpleteam.data.idx import IDX_FILES, open_idx, write_idx
from purpleteam.data.images import SPLITS


@pytest.mark.parametrize("check", [DataDigest(), DataSchema()])
def test_the_negative_control_fails_as_required(tmp_path, check):
    assert not check.examine(check.bad_example(tmp_path)).passed
    result = run_check(check, Target())
    assert (result.verdict, result.message) == ("skipped", "needs data")


def test_files_and_splits_with_the_pinned_digests_pass(four_files):
    name, dataset = IDX_FILES[1], load_dataset(four_files)
    pinned = {
        name: open_idx(four_files / f"{name}.gz").digest,
        "train": dataset.train.digest,
        "test": dataset.test.digest,
    }
    result = run_check(DataDigest(), Target(data=four_files, data_digests=pinned))
    assert result.verdict == "pass"
    assert result.inputs == pinned
    assert result.negative_control == {"ran": True, "failed_as_required": True}


def test_one_changed_byte_fails(four_files):
    name = IDX_FILES[0]
    pinned = {name: open_idx(four_files / f"{name}.gz").digest}
    pixels = open_idx(four_files / f"{name}.gz").array.copy()
    pixels[3, 2, 1] ^= 1
    write_idx(four_files / f"{name}.gz", pixels)
    result = run_check(DataDigest(), Target(data=four_files, data_digests=pinned))
    assert (result.verdict, result.message) == ("fail", f"changed: {name}")


def test_without_pinned_digests_the_folder_must_be_mnist(four_files):
    result = run_check(DataDigest(), Target(data=four_files))
    assert result.verdict == "fail"
    assert result.message.count("ubyte") == 4


def test_data_of_ones_own_that_nothing_pins_are_skipped(tmp_path):
    (tmp_path / "train" / "cat").mkdir(parents=True)
    result = run_check(DataDigest(), Target(data=tmp_path))
    assert (result.verdict, result.message) == ("skipped", "nothing pins the digests of these data")


def test_a_file_that_is_not_there_is_an_error_not_a_pass(four_files):
    (four_files / f"{IDX_FILES[2]}.gz").unlink()
    for check in (DataDigest(), DataSchema()):
        assert run_check(check, Target(data=four_files)).verdict == "error"


def test_a_sound_set_passes_with_its_counts(four_files):
    result = run_check(DataSchema(), Target(data=four_files))
    assert result.verdict == "pass"
    assert result.measured["counts"] == {"train": 22, "validation": 2, "test": 6}
    assert sorted(result.inputs) == sorted(IDX_FILES)


def test_a_folder_of_pictures_is_read_as_it_is(tmp_path):
    image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    for place in range(20):
        folder = tmp_path / "shapes" / "ab"[place % 2]
        folder.mkdir(parents=True, exist_ok=True)
        image.fromarray(np.full((4, 3), place, np.uint8)).save(folder / f"{place}.png")
    dataset = load_dataset(tmp_path / "shapes")
    pinned = {name: dataset.split(name).digest for name in SPLITS}
    target = Target(data=tmp_path / "shapes", data_digests=pinned)
    assert run_check(DataDigest(), target).verdict == "pass"
    assert run_check(DataSchema(), target).verdict == "pass"
    (tmp_path / "shapes" / "a" / "0.png").unlink()
    assert run_check(DataDigest(), target).verdict == "fail"


def test_a_class_that_training_lacks_fails(four_files):
    write_idx(four_files / f"{IDX_FILES[1]}.gz", (np.arange(24) % 2).astype(np.uint8))
    result = run_check(DataSchema(), Target(data=four_files))
    assert (result.verdict, result.message) == ("fail", "no training image of class 2")


def test_more_images_than_labels_fail(four_files):
    write_idx(four_files / f"{IDX_FILES[3]}.gz", np.zeros(5, np.uint8))
    result = run_check(DataSchema(), Target(data=four_files))
    assert result.verdict == "fail"
    assert "6 images" in result.message and "5 labels" in result.message


@pytest.mark.parametrize(
    ("train", "test", "told"),
    [
        ([0, 1, 2, 0, 1, 2], {6: 0, 7: 1, 8: 2}, ""),
        ([0, 1, 2, 0, 1, 2], {6: 0, 0: 0, 8: 2}, "are in two splits"),
        ([0, 1, 2, 0, 1, 2], {6: 0, 1: 2, 8: 2}, "are of two classes"),
        ([2] + [0, 1] * 60, {200: 0, 201: 1, 202: 2}, "class 2 is rare: 1 of"),
    ],
)
def test_leaks_contradictions_and_rare_classes_are_found(tmp_path, train, test, told):
    every = np.arange(256, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), np.uint8)
    for (images, labels), which, classes in (
        (IDX_FILES[:2], range(len(train)), train),
        (IDX_FILES[2:], list(test), list(test.values())),
    ):
        write_idx(tmp_path / images, every[list(which)])
        write_idx(tmp_path / labels, np.array(classes, np.uint8))
    result = run_check(DataSchema(), Target(data=tmp_path))
    assert result.verdict == ("fail" if told else "pass") and told in result.message
