"""What is in a data set and whether it is whole; and that no litter ends in a traceback."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from purpleteam.core.errors import PurpleError
from purpleteam.data.arrays import plain_arrays
from purpleteam.data.checks import claims_mnist, examine
from purpleteam.data.folders import load_dataset, save_dataset
from purpleteam.data.images import SPLITS

Image = pytest.importorskip("PIL.Image", reason="needs Pillow")


def draw(path, seed=0, shape=(6, 5)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def pair(tmp_path):
    """A train and a test folder of two classes, four images each, all different."""
    for number, place in enumerate(("train/a", "train/b", "test/a", "test/b")):
        for one in range(4):
            draw(tmp_path / place / f"{one}.png", 10 * number + one)
    return tmp_path


def test_a_whole_set_is_described(pair):
    found = examine(pair, plain_arrays)
    assert found.problems == [] and found.count == 16 and found.classes == ("a", "b")
    assert found.splits == {"train": {"a": 4, "b": 4}, "test": {"a": 4, "b": 4}}
    assert (found.sizes, found.modes) == ({"5x6": 16}, {"L": 16})


def test_an_image_of_train_and_test_is_leakage(pair):
    shutil.copy(pair / "train" / "a" / "0.png", pair / "test" / "a" / "copy.png")
    (problem,) = examine(pair, plain_arrays).problems
    assert problem.startswith("1 images are in two splits") and "test/a/copy.png is" in problem


def test_an_image_of_two_classes_is_a_problem_and_a_copy_is_a_note(pair):
    shutil.copy(pair / "train" / "a" / "0.png", pair / "train" / "b" / "copy.png")
    shutil.copy(pair / "train" / "a" / "1.png", pair / "train" / "a" / "copy.png")
    found = examine(pair, plain_arrays)
    assert [one.partition(":")[0] for one in found.problems] == ["1 images are of two classes"]
    assert "2 images are there more than once" in found.notes


def test_all_that_is_amiss_is_told_at_once(pair):
    draw(pair / "train" / "a" / "big.png", 99, (9, 9))
    (pair / "train" / "b" / "cut.png").write_bytes(b"no image")
    (pair / "train" / "c").mkdir()
    found = examine(pair, plain_arrays)
    told = "; ".join(found.problems)
    assert "1 of 18 images cannot be read: train/b/cut.png" in told
    assert "images are of 2 sizes" in told and "no image is of class c" in told


def test_arrays_and_sets_of_ours_are_described_too(pair, tmp_path_factory):
    folder = tmp_path_factory.mktemp("other")
    saved = save_dataset(load_dataset(pair), folder / "saved")
    assert not claims_mnist(saved) and examine(saved, plain_arrays).problems == []
    assert examine(saved, plain_arrays).count == 16
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (9, 4, 4)).astype(np.uint8)
    np.savez(folder / "set.npz", x=x, y=np.arange(9) % 3)
    assert examine(folder / "set.npz", plain_arrays).splits == {"": {"0": 3, "1": 3, "2": 3}}
    np.savez(folder / "set.npz", x=x, y=np.arange(9) % 3 + 1)
    assert "labels run from 1 to 3" in examine(folder / "set.npz", plain_arrays).problems[0]


def test_only_files_of_its_names_claim_to_be_mnist(four_files, pair, tmp_path_factory):
    assert claims_mnist(four_files) and not claims_mnist(pair)
    assert claims_mnist(tmp_path_factory.mktemp("empty"))


NAMES = st.sampled_from(
    [
        *("train", "test", "val", "Training", "a", "b", "B", "1", "10", "2", "__MACOSX", ".git"),
        *("x y", "Ünï", "images", "validation"),
    ]
)
FILES = st.sampled_from(
    [
        *("0.png", "1.PNG", "2.jpg", "3.gif", "4.tiff", "5.webp", "6.bmp", "Thumbs.db", "._0.png"),
        *("README.txt", "labels.csv", "classes.txt", "x.npy", "y.npy", "set.npz", "s.pkl", "noend"),
        *("manifest.json", "train-images-idx3-ubyte", "data_batch_1", "deep.png"),
    ]
)
CONTENTS = st.sampled_from(["image", "colour", "other size", "cut", "empty", "text", "array"])


def put(path, content, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    ends = {".png", ".jpg", ".gif", ".tiff", ".webp", ".bmp"}
    if path.suffix.lower() in ends and content in ("image", "colour", "other size", "cut"):
        draw(path, seed, {"colour": (6, 5, 3), "other size": (3, 9)}.get(content, (6, 5)))
        if content == "cut":
            path.write_bytes(path.read_bytes()[: 20 + seed % 40])
    elif content == "array" and path.suffix in (".npy", ".npz"):
        with path.open("wb") as file:
            np.save(file, np.arange(12).reshape(3, 2, 2) % (seed % 5 + 1))
    else:
        path.write_bytes({"empty": b"", "text": b"0.png,a\n1.PNG,b\n"}.get(content, b"\x80\x04."))


@settings(max_examples=70, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    st.lists(st.tuples(st.lists(NAMES, max_size=3), FILES, CONTENTS), max_size=14),
    st.sampled_from(["", ":resize=4", ":skip_unreadable=true", ":labels=labels.csv"]),
)
def test_no_folder_ends_in_a_traceback(tmp_path_factory, tree, how):
    folder = tmp_path_factory.mktemp("tree")
    for seed, (places, name, content) in enumerate(tree):
        path = folder.joinpath(*places, name)
        if not any(one.is_file() for one in path.parents) and not path.exists():
            put(path, content, seed)
    assert len(examine(folder, plain_arrays).problems) < 20
    try:
        found = load_dataset(f"{folder}{how}")
    except PurpleError as error:
        told = str(error)
        assert told.count("\n") == 0 and len(told) < 2000
        return
    assert len(found.classes) >= 2 and len(found.test) and len(found.validation)
    assert {found.split(name).images.shape[1:] for name in SPLITS} == {found.shape}
    assert len(found.summary("all")) < 2000


def test_a_wrong_image_set_is_named_in_a_line():
    from purpleteam.core.errors import DataError
    from purpleteam.data.images import Dataset, ImageSet

    x, y = np.zeros((3, 4, 4, 1), np.uint8), np.arange(3)
    for images, labels, told in (
        (x.tolist(), y, "images must be a NumPy array, not list"),
        (x[..., 0], y, r"grey images need a last axis, images\[..., None\]"),
        (x / 255, y, r"\(255 \* images\).round\(\).astype\('uint8'\)"),
        (x, np.eye(3, dtype=np.int64), r"not int64 \(3, 3\): one-hot\? give labels.argmax\(1\)"),
        (x, y[:2], r"one for each of 3 images, not int64 \(2,\)"),
        (x, y.astype(float), r"labels must be int64"),
        (x, y - 1, "labels must be at least 0, not -1"),
    ):
        with pytest.raises(DataError, match=told):
            ImageSet(images, labels)
    part = ImageSet(x, y)
    with pytest.raises(DataError, match="holds label 2, but there are 2 classes, 0 to 1"):
        Dataset("mine", part, part, part, ("a", "b"))
