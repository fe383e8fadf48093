"""Files of arrays: what is taken for what, and said; nothing is unpickled."""

from __future__ import annotations

import pickle
import pkgutil
import re

import numpy as np
import pytest

from purpleteam.core.errors import DataError, PurpleError, Refused
from purpleteam.data.folders import load_dataset

N = 12


def images(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (N, *shape)).astype(np.uint8)


def labels(classes=3):
    return np.arange(N) % classes


@pytest.fixture
def load(tmp_path):
    """Write arrays as an .npz and load it."""

    def write_and_load(**arrays):
        np.savez(tmp_path / "set.npz", **arrays)
        return load_dataset(tmp_path / "set.npz")

    return write_and_load


def all_of(dataset):
    """Return all images in the order of their first pixels, as bytes of one image each."""
    return sorted(one.tobytes() for one in dataset.split("all").images)


def same(dataset, pixels):
    return all_of(dataset) == sorted(np.ascontiguousarray(one).tobytes() for one in pixels)


@pytest.mark.parametrize(
    "names", ["images labels", "x y", "X y", "data target", "arr_0 arr_1", "imgs label"]
)
def test_one_pair_of_arrays_is_a_set_without_splits(load, names):
    x = images(5, 4, 3)
    found = load(**dict(zip(names.split(), (x, labels()), strict=True)))
    assert found.tested == "all" and found.classes == ("0", "1", "2") and same(found, x)


@pytest.mark.parametrize(
    "names",
    [
        "x_train y_train x_test y_test",
        "train_images train_labels test_images test_labels",
        "trainX trainY testX testY",
        "arr_0 arr_1 arr_2 arr_3",
    ],
)
def test_splits_are_read_from_names_or_places(load, names):
    values = (images(5, 4, 3), labels(), images(5, 4, 3, seed=1), labels())
    found = load(**dict(zip(names.split(), values, strict=True)))
    assert len(found.test) == N and len(found.train) + len(found.validation) == N
    assert found.test.images[0].tobytes() == values[2][0].tobytes()


def test_axes_are_told_apart_and_said(load):
    x = images(5, 4, 3)
    assert same(load(x=np.moveaxis(x, 3, 1), y=labels()), x)
    found = load(x=np.moveaxis(x, 0, 3), y=labels())
    assert same(found, x) and "'x' is taken as (H, W, C, N)" in found.origin["notes"]
    assert load(x=images(3, 4, 3), y=labels()).shape == (3, 4, 3)  # either way: the last axis
    assert same(load(x=images(5, 4), y=labels()), images(5, 4))
    planes = np.moveaxis(images(4, 4, 3), 3, 1).reshape(N, -1)
    assert same(load(data=planes, labels=labels()), images(4, 4, 3))


def test_ranges_of_pixels_are_told_apart_and_said(load):
    x = images(5, 4, 3)
    for given, told in (
        (x / np.float32(255), "floats in [0, 1]: taken as pixels times 255"),
        (x.astype(np.float64), "taken as pixels from 0 to 255"),
        (x.astype(np.int64), ""),
        (x.astype(np.uint16) * 257, "16 bits and was scaled"),
    ):
        found = load(x=given, y=labels())
        assert same(found, x) and told in "; ".join(found.origin["notes"])


def test_labels_come_as_columns_one_hot_names_or_floats(load):
    x, y = images(5, 4), labels()
    for given in (y[:, None], np.eye(3)[y], y.astype(np.float32), y.astype(np.uint8)):
        assert np.bincount(load(x=x, y=given).split("all").labels).tolist() == [4, 4, 4]
    named = load(x=x, y=np.array(["owl", "cat", "dog"])[y])
    assert named.classes == ("cat", "dog", "owl")
    named = load(x=x, y=y, classes=np.array(["owl", "cat", "dog", "fox"]))
    assert named.classes == ("owl", "cat", "dog", "fox")


def test_what_is_named_goes_before_what_only_has_the_form(load):
    x, y = images(5, 4), labels()
    found = load(x=x, y=y, ids=np.arange(N), weights=np.ones(N))
    assert found.classes == ("0", "1", "2") and "'ids' was passed over" in str(found.origin)


def test_floats_that_rounding_put_over_1_are_white_still(load):
    x = images(5, 4)
    x[0, 0, 0] = 255
    assert same(load(x=(x / 255 * (1 + 1e-6)).astype(np.float32), y=labels()), x)


NAN = np.where(np.arange(N)[:, None, None] == 2, np.nan, 0.5) * np.ones((N, 4, 4))


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"x": images(4, 4), "y": labels() + 1}, "labels run from 1 to 3, not from 0: subtract 1"),
        ({"x": images(4, 4), "y": labels() * 2}, "but 1, 3 of 0 to 4 has no image"),
        ({"x": images(4, 4), "y": labels() * 0}, "all 12 labels are of one class, '0'"),
        ({"x": images(4, 4), "y": labels() - 1}, "label -1 is below 0"),
        ({"x": images(4, 4), "y": labels() + 0.5}, "are no whole numbers: 0.5, 1.5"),
        ({"x": images(4, 4), "y": np.full((N, 3), 0.3)}, "neither one number for each image nor"),
        ({"x": images(4, 4), "y": labels()[:5]}, "holds 12 images, but 'y' 5 labels"),
        ({"x": NAN, "y": labels()}, "1 of 12 hold NaN"),
        ({"x": images(4, 4) / 99.0 - 1, "y": labels()}, "look normalised.*--normalise"),
        ({"x": images(4, 4) / 250.0, "y": labels()}, "up to 1.02, a little over 1: store"),
        ({"x": images(4, 4) * 9.0, "y": labels()}, "not 255, 1 or"),
        ({"x": images(4, 4, 7), "y": labels()}, "with 1, 3 or 4 channels"),
        ({"x": images(4, 4)}, "there are no labels for 'x'; found: x uint8 (12, 4, 4)"),
        ({"y": labels()}, "there are no images"),
        ({"x": images(4, 4), "images": images(4, 4), "y": labels()}, "are both images"),
        ({"note": np.array(3)}, "holds no images"),
    ],
)
def test_what_is_wrong_with_arrays_is_named(load, arrays, told):
    with pytest.raises(DataError) as caught:
        load(**arrays)
    import re

    assert re.search(told.replace("(", r"\(").replace(")", r"\)"), str(caught.value))
    assert "\n" not in str(caught.value)


def test_an_array_of_objects_is_refused(tmp_path):
    np.savez(tmp_path / "set.npz", x=np.array([{}, []], object), y=labels())
    with pytest.raises(Refused, match=r"set\.npz"):
        load_dataset(tmp_path / "set.npz")
    (tmp_path / "set.pkl").write_bytes(pickle.dumps({"x": images(4, 4), "y": labels()}))
    with pytest.raises(Refused, match=r"set\.pkl"):
        load_dataset(tmp_path / "set.pkl")


def packed(tmp_path):
    np.savez(tmp_path / "whole.npz", x=images(4, 4), y=labels())
    return (tmp_path / "whole.npz").read_bytes()


@pytest.mark.parametrize("end", ["npz", "npy"])
@pytest.mark.parametrize(
    ("content", "told"),
    [
        (lambda _: b"", "empty: write it as np.savez"),
        (lambda whole: whole[:-40], "broken or cut off"),
        (lambda whole: whole[:60] + b"?" * 60 + whole[120:], "broken or cut off"),
        (lambda _: b"\x93NUMPY\x01\x00\x10\x00{'descr': '<u1', ", "broken or cut off"),
        (lambda _: b"\x93NUMPY\x01\x00\x10\x00" + b"{}" + b" " * 14, "broken or cut off"),
        (lambda _: b"<html>404</html>", "no .npz and no .npy file: write it as np.savez"),
        (lambda _: pickle.dumps({}), "pickled, .* read_arrays=purpleteam.scan.formats.read_arrays"),
        (lambda whole: b"\x1f\x8b" + whole, "packed by gzip"),
    ],
    ids=["empty", "cut", "overwritten", "cut header", "no header", "html", "pickle", "gzip"],
)
def test_a_broken_file_is_refused_in_a_line_of_our_own(tmp_path, content, told, end):
    file = tmp_path / f"set.{end}"
    file.write_bytes(content(packed(tmp_path)))
    with pytest.raises(Refused, match=f"set.{end}' is refused: it is .*{told}") as error:
        load_dataset(file)
    assert "\n" not in str(error.value) and "allow_pickle" not in str(error.value)


def test_a_single_array_of_objects_is_refused_with_the_remedy(tmp_path):
    for save, end in ((np.save, "npy"), (np.savez, "npz")):
        save(tmp_path / f"set.{end}", np.array([{}, []], object))
        with pytest.raises(Refused, match=r"Python objects.*: give numbers or text, such as"):
            load_dataset(tmp_path / f"set.{end}")


def test_a_folder_of_npy_files_is_one_set(tmp_path):
    values = {
        "x_train": images(5, 4),
        "y_train": labels(),
        "x_test": images(5, 4),
        "y_test": labels(),
    }
    for name, array in values.items():
        np.save(tmp_path / f"{name}.npy", array)
    assert len(load_dataset(tmp_path).test) == N


class Marker:
    """What a pickle must never make."""

    def __reduce__(self):
        return (open, ("marker", "w"))


def test_pickled_sets_pass_the_gate_or_are_refused(tmp_path):
    pipeline = pytest.importorskip("purpleteam.verbs._subject")
    x, y = images(4, 4, 3), labels()
    flat = np.moveaxis(x, 3, 1).reshape(N, -1)
    for number in (1, 2):
        batch = {b"batch_label": b"training", b"data": flat, b"labels": y.tolist()}
        (tmp_path / f"data_batch_{number}").write_bytes(pickle.dumps(batch, 2))
    (tmp_path / "test_batch").write_bytes(pickle.dumps({b"data": flat, b"labels": y.tolist()}, 2))
    names = {b"label_names": [b"owl", b"cat", b"dog"]}
    (tmp_path / "batches.meta").write_bytes(pickle.dumps(names, 2))
    found = pipeline.open_dataset(str(tmp_path))
    assert found.classes == ("owl", "cat", "dog") and same_order(found.test, x)
    assert len(found.train) + len(found.validation) == 2 * N
    pair = tmp_path / "pair.pkl"
    pair.write_bytes(pickle.dumps(((x, y), (x, y))))
    assert len(pipeline.open_dataset(str(pair)).test) == N
    pair.write_bytes(pickle.dumps({"x": x, "y": Marker()}))
    with pytest.raises(PurpleError, match="refused"):
        pipeline.open_dataset(str(pair))


def same_order(part, pixels):
    return part.images.tobytes() == pixels.tobytes()


def test_the_reader_that_a_pickled_file_asks_for_reads_it(tmp_path):
    file = tmp_path / "set.pkl"
    file.write_bytes(pickle.dumps({"x": np.zeros((30, 4, 4), np.uint8)}))
    with pytest.raises(Refused) as error:
        load_dataset(file)
    (named,) = re.findall(r"read_arrays=(\S+)", str(error.value))
    assert pkgutil.resolve_name(named)(file)["x"].shape == (30, 4, 4)
