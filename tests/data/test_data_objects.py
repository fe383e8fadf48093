"""Datasets of what a Python user holds: arrays, tensors, loaders and image sets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from purpleteam.core.errors import DataError
from purpleteam.data import Dataset, ImageSet, dataset_from

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 5, 4, 3)).astype(np.uint8)
LABELS = np.arange(12) % 3
PLANES = np.moveaxis(PIXELS, 3, 1)
FLOATS = (PLANES / 255).astype(np.float32)


def pairs(images: Any = PIXELS, labels: Any = LABELS) -> list[tuple[Any, Any]]:
    return list(zip(images, labels, strict=True))


def batches(images: Any = PIXELS, labels: Any = LABELS, size: int = 5) -> list[Any]:
    return [(images[at : at + size], labels[at : at + size]) for at in range(0, len(images), size)]


FORMS: dict[str, tuple[Any, ...]] = {
    "bytes": (PIXELS, LABELS),
    "planes": (PLANES, LABELS),
    "floats": (FLOATS, LABELS),
    "doubles": (PLANES / 255, LABELS),
    "floats, channels last": (PIXELS / np.float32(255), LABELS),
    "lists": (PIXELS.tolist(), LABELS.tolist()),
    "a list of arrays": (list(PIXELS), LABELS),
    "one-hot": (PIXELS, np.eye(3)[LABELS]),
    "an image set": (ImageSet(PIXELS.copy(), LABELS.copy()),),
    "a pair": ((PIXELS, LABELS),),
    "pairs": (pairs(),),
    "pairs of floats": (pairs(FLOATS),),
    "pairs, one-hot": (pairs(labels=np.eye(3, dtype=np.float32)[LABELS]),),
    "batches": (batches(),),
    "batches of floats": (batches(FLOATS),),
    "a generator": ((item for item in batches(FLOATS)),),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_dataset(form: str) -> None:
    dataset = dataset_from(*FORMS[form])
    assert dataset.whole is not None and dataset.tested == "all"
    np.testing.assert_array_equal(dataset.whole.images, PIXELS)
    np.testing.assert_array_equal(dataset.whole.labels, LABELS)
    assert dataset.classes == ("0", "1", "2") and dataset.shape == (5, 4, 3)
    assert all("one-hot" in note for note in dataset.origin["notes"])


def test_grey_images_need_no_axis_of_channels() -> None:
    dataset = dataset_from(PIXELS[..., 0], LABELS)
    assert dataset.shape == (5, 4, 1)
    assert dataset_from(batches(PIXELS[..., 0])).digest == dataset.digest
    assert dataset_from(pairs(PIXELS[..., 0])).digest == dataset.digest


def test_torch_tensors_and_loaders_are_read() -> None:
    torch = pytest.importorskip("torch")
    from torch.utils.data import DataLoader, TensorDataset

    x, y = torch.tensor(FLOATS), torch.tensor(LABELS)
    expected = dataset_from(PIXELS, LABELS).digest
    held = TensorDataset(x, y)
    for form in ((x, y), (x.requires_grad_(), y), (held,), (DataLoader(held, batch_size=5),)):
        dataset = dataset_from(*form)
        assert dataset.digest == expected and dataset.origin["notes"] == ()
    half = dataset_from(x.detach().bfloat16(), y)
    assert "rounded to 1/255" in half.origin["notes"][0]


def test_floats_between_steps_are_rounded_and_it_is_noted() -> None:
    dataset = dataset_from(FLOATS * 0.999, LABELS)
    assert "12 of them rounded to 1/255" in dataset.origin["notes"][0]
    assert dataset.origin["object"] == "ndarray"


def test_black_and_nearly_black_floats_stay_so() -> None:
    dataset = dataset_from(np.full((3, 4, 4), 1 / 255), [0, 1, 0])
    assert dataset.whole is not None and (dataset.whole.images == 1).all()
    faint = ImageSet(np.ones((3, 4, 4, 1), np.uint8), np.arange(3))
    assert dataset_from(faint).digest == dataset_from(faint).digest
    assert (dataset_from(faint).test.images == 1).all()


def test_classes_are_named_counted_or_shown_by_the_labels() -> None:
    assert dataset_from(PIXELS, LABELS, classes=("ant", "bee", "cat")).classes[1] == "bee"
    assert len(dataset_from(PIXELS, LABELS, classes=10).classes) == 10
    assert len(dataset_from(PIXELS, LABELS * 4).classes) == 9
    assert len(dataset_from(PIXELS, LABELS * 0).classes) == 2
    names = np.array(["cat", "ant", "bee"])[LABELS]
    dataset = dataset_from(PIXELS, names)
    assert dataset.classes == ("ant", "bee", "cat")
    assert dataset.whole is not None and dataset.whole.labels[:3].tolist() == [2, 0, 1]


def test_a_few_images_are_enough_to_measure_on() -> None:
    dataset = dataset_from(PIXELS[:1], LABELS[:1], name="one")
    assert (dataset.name, len(dataset.split("all")), len(dataset.train)) == ("one", 1, 0)
    with pytest.raises(DataError, match="no training images"):
        dataset.check_trainable()


def test_enough_images_have_splits_to_train_on() -> None:
    dataset = dataset_from(np.random.default_rng(1).random((60, 3, 4, 5)), np.arange(60) % 3)
    assert min(len(dataset.train), len(dataset.validation), len(dataset.test)) > 0
    dataset.check_trainable()


def test_a_dataset_is_returned_as_it_is() -> None:
    dataset = dataset_from(PIXELS, LABELS)
    assert isinstance(dataset, Dataset) and dataset_from(dataset) is dataset


def test_a_maite_data_set_is_read_as_one() -> None:
    class Pile:
        metadata = {"id": "pile", "index2label": {0: "ant", 1: "bee", 2: "cat"}}  # noqa: RUF012

        def __len__(self) -> int:
            return 12

        def __getitem__(self, index: int) -> tuple[Any, Any, Any]:
            return PLANES[index], np.eye(3)[LABELS[index]], {}

    assert dataset_from(Pile()).classes == ("ant", "bee", "cat")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((PIXELS,), "ndarray has images and no labels: give images and labels"),
        ((3,), "is a int: give images and labels"),
        (({"x": PIXELS},), "is a dict: give"),
        (([],), "holds no image: give"),
        ((PIXELS[:0], LABELS[:0]), "holds no image"),
        ((PIXELS, LABELS[:5]), "12 images but 5 labels"),
        ((PIXELS, LABELS - 1), "label -1 is below 0; labels run from 0"),
        ((PIXELS, LABELS, 2), "label 2, but there are 2 classes, 0 to 1: give all names"),
        ((PIXELS, LABELS / 2), "are no whole numbers: 0.0, 0.5, 1.0"),
        ((PIXELS, np.ones((12, 3))), "neither one number for each image nor one-hot rows"),
        ((PIXELS, np.zeros((12, 2, 2))), "labels 'labels' are float64 (12, 2, 2)"),
        ((FLOATS * np.nan, LABELS), "12 of 12 hold NaN or infinite values"),
        ((FLOATS * 2 - 1, LABELS), "look normalised; store pixels from 0 to 255 or 0 to 1"),
        ((FLOATS * 1.5, LABELS), "a little over 1"),
        ((PIXELS * 300.0, LABELS), "not 255, 1 or"),
        ((np.zeros((12, 5)), LABELS), "are (12, 5), not (N, H, W)"),
        ((np.zeros((12, 5, 6, 7)), LABELS), "are (12, 5, 6, 7), not (N, H, W)"),
        (([PIXELS[0], PIXELS[1, 1:]], LABELS[:2]), "no array of one size"),
        (([{"x": 1}],), "item 0 is a dict: give"),
        (([*pairs()[:2], (PIXELS[0, 1:], 0)],), "item 2 has images (4, 4, 3)"),
        (([("cat.png", 0)],), "images 'images'"),
        ((np.array([None] * 12), LABELS), "are Python objects, not numbers"),
        ((ImageSet(PIXELS.copy(), LABELS.copy()), LABELS), "an ImageSet has labels"),
    ],
    ids=range(23),
)
def test_what_is_wrong_is_told_in_one_line(given: tuple[Any, ...], message: str) -> None:
    images, labels, classes = (*given, None, None)[:3]
    with pytest.raises(DataError) as error:
        dataset_from(images, labels, classes=classes)
    assert message in str(error.value) and "\n" not in str(error.value)
