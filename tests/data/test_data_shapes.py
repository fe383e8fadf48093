"""Drawn shapes: the same bytes everywhere, told apart by nothing but shape, colour and texture."""

import math

import numpy as np
import pytest

from purpleteam.core.errors import PurpleError
from purpleteam.data import DATASETS, Dataset, load_dataset
from purpleteam.data.sources import shapes
from purpleteam.data.sources.shapes import class_table, load_shapes

PINNED = {
    "drawn_shapes:images=100": "fd767caf3661a7c14404aa1b75549d97",
    "drawn_shapes:images=100,hard=true": "96ca114acf092c007323cd774a969f1c",
    "drawn_shapes:classes=1000,images=2000,size=16,seed=3": "5a8adf2ba3e92dabcd20aaab1b0d9a72",
    "drawn_shapes:classes=3,images=10,size=224": "147a0a1f3dbc1cfa6f7650a79383f582",
}


@pytest.mark.parametrize(("reference", "digest"), PINNED.items())
def test_the_same_parameters_give_the_same_bytes_on_every_machine(reference, digest):
    assert load_dataset(reference).digest.startswith(f"sha256:{digest}")


def test_images_are_the_same_however_many_are_drawn_and_at_a_time(monkeypatch):
    few, many = (load_shapes(images=count, hard=True, size=17) for count in (20, 100))
    monkeypatch.setattr(shapes, "BLOCK", 1)
    assert np.array_equal(few.split("all").images, many.split("all").images[:20])
    assert load_shapes(images=100, hard=True, size=17).digest == many.digest


def test_no_sine_is_so_near_a_half_that_machines_could_round_it_apart():
    angles = 2 * np.pi * np.arange(shapes.TURNS) / shapes.TURNS
    parts = np.stack([np.cos(angles), np.sin(angles)]) * shapes.SINE
    assert np.abs(parts % 1 - 0.5).min() > 1e-4
    assert np.array_equal(shapes._directions(), np.rint(parts))


@pytest.mark.parametrize("classes", [2, 3, 27])
def test_classes_are_named_by_what_they_are_and_every_split_holds_them_all(classes):
    found = load_shapes(classes=classes, images=10 * classes, size=16)
    assert len(found.classes) == len(set(found.classes)) == classes
    for split in ("train", "validation", "test"):
        counts = np.bincount(found.split(split).labels, minlength=classes)
        assert counts.min() >= 1 and counts.max() - counts.min() <= 1


def test_a_thousand_classes_are_ten_shapes_in_ten_colours_with_ten_textures():
    kinds, names = class_table(1000)
    assert kinds.max(0).tolist() == [9, 9, 9] and len(set(names)) == 1000
    assert names[0] == "red plain disc" and names[-1] == "pink quartered corner"


@pytest.mark.parametrize("classes", [8, 10, 27, 100, 1000])
def test_neither_shape_nor_colour_nor_texture_alone_tells_all_classes(classes):
    kinds, _ = class_table(classes)
    assert len(np.unique(kinds, axis=0)) == classes
    assert all(len(np.unique(column)) <= math.ceil(classes ** (1 / 3)) + 1 for column in kinds.T)


def test_pixels_that_no_shape_covers_tell_nothing_of_the_class():
    found = load_shapes(size=16)
    corners = [part.images[:, ::15, ::15].reshape(len(part), -1) / 255 for part in _parts(found)]
    known, asked = (np.hstack([x, x**2, np.ones((len(x), 1))]) for x in corners)
    weights = np.linalg.lstsq(known, np.eye(10)[found.train.labels], rcond=None)[0]
    right = (asked @ weights).argmax(1) == found.test.labels
    assert right.mean() < 0.1 + 4 * math.sqrt(0.09 / len(right))  # chance


def _parts(found: Dataset):
    return found.train, found.test


def test_images_are_noisier_and_of_closer_colours_where_it_is_hard():
    easy, hard = (load_shapes(images=200, hard=level).split("all").images for level in (0, 1))
    assert easy.shape == hard.shape == (200, 32, 32, 3)
    rough = [np.median(np.abs(np.diff(images.astype(float), axis=1))) for images in (easy, hard)]
    assert rough[0] < 5 < rough[1]
    assert easy.std() > 1.1 * hard.std()


def test_its_parameters_are_told_and_named():
    found = load_dataset("drawn_shapes:classes=4,hard=true,size=20,seed=7")
    told = {"classes": 4, "hard": True, "size": 20, "images": 3000, "seed": 7}
    assert found.name == "shapes-4-20px-hard" and found.shape == (20, 20, 3)
    assert found.origin["parameters"] == told


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("classes=1", "classes must be 2 to 1000, not 1"),
        ("size=225", "size must be 16 to 224, not 225"),
        ("classes=50,images=99", "images must be 100 to 1000000, not 99, for 50 classes"),
        ("seed=-1", "seed must be 0 to"),
        ("clases=3", r"unknown key 'clases' \(did you mean 'classes'\?\); known: classes, hard"),
        ("hard=3", "hard = 3: Input should be a valid boolean"),
        ("classes=many", "classes = 'many': Input should be a valid integer"),
        ("progress=1", "unknown key 'progress'"),
    ],
)
def test_a_wrong_parameter_is_refused_by_name_with_its_choices(fields, message):
    with pytest.raises(PurpleError, match=f"^dataset drawn_shapes: {message}"):
        load_dataset(f"drawn_shapes:{fields}")


def test_a_field_without_a_value_or_twice_is_refused():
    with pytest.raises(PurpleError, match="'hard' is not of the form drawn_shapes:field=value"):
        load_dataset("drawn_shapes:hard")
    with pytest.raises(PurpleError, match="'classes' stands twice"):
        load_dataset("drawn_shapes:classes=2,classes=3")


def test_a_data_set_of_a_plug_in_takes_parameters_in_the_same_way(monkeypatch):
    monkeypatch.setattr(DATASETS, "_items", dict(DATASETS._items))
    told = {}

    @DATASETS.register("toys")
    def toys(*, share: float = 0.5, kind: str = "cat") -> Dataset:
        told.update(share=share, kind=kind)
        return load_shapes(images=20)

    load_dataset("toys:share=1/4")
    assert told == {"share": 0.25, "kind": "cat"}
    with pytest.raises(
        PurpleError, match=r"dataset toys: unknown key 'shares'.*known: kind, share"
    ):
        load_dataset("toys:shares=1")
