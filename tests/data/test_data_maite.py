"""Data sets that follow MAITE's protocol, and those that only nearly do."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from purpleteam.core.errors import DataError
from purpleteam.data.folders import load_dataset
from purpleteam.data.objects import _bytes


class Pile:
    """A data set as the protocol asks for it: 4x5 colour images of three classes."""

    def __init__(self, n: int = 60, seed: int = 0, **change: Any) -> None:
        self.images = np.random.default_rng(seed).integers(0, 256, (n, 3, 4, 5), np.uint8)
        self.metadata: Any = {"id": "pile", "index2label": {0: "ant", 1: "bee", 2: "cat"}}
        self.change = change

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, Any, Any]:
        image, target = self.images[index], np.eye(3, dtype=np.float32)[index % 3]
        if "image" in self.change:
            image = self.change["image"](image, index)
        if "target" in self.change:
            target = self.change["target"](target, index)
        return image, target, {"id": index}


@pytest.fixture
def given_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Load what a factory returns."""
    (tmp_path / "own_pile.py").write_text("made = None\ndef make():\n    return made\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "own_pile", raising=False)

    def load(made: object) -> Any:
        sys.path.insert(0, str(tmp_path))
        import own_pile  # type: ignore[import-not-found]

        own_pile.made = made
        return load_dataset("own_pile:make")

    yield load
    sys.modules.pop("own_pile", None)


def test_one_data_set_is_dealt_out_in_three(given_by: Any) -> None:
    pile = Pile()
    found = given_by(pile)
    assert (found.name, found.classes, found.shape) == ("pile", ("ant", "bee", "cat"), (4, 5, 3))
    parts = [found.train, found.validation, found.test]
    assert sum(map(len, parts)) == 60 and len(found.train) > 35
    rows = {
        image.tobytes(): index % 3 for index, image in enumerate(np.moveaxis(pile.images, 1, 3))
    }
    for part in parts:
        assert [rows[one.tobytes()] for one in part.images] == part.labels.tolist()


@pytest.mark.parametrize(
    "form",
    [
        lambda train, test: (train, test),
        lambda train, test: {"test": test, "train": train},
        lambda train, test: [train, Pile(5, seed=2), test],
    ],
    ids=["pair", "mapping", "triple"],
)
def test_given_splits_are_kept(given_by: Any, form: Any) -> None:
    found = given_by(form(Pile(), Pile(7, seed=1)))
    assert len(found.test) == 7
    assert len(found.train) + len(found.validation) in (60, 65)
    np.testing.assert_array_equal(
        found.test.images[3], np.moveaxis(Pile(7, seed=1).images[3], 0, 2)
    )


def test_floats_on_the_grid_are_the_bytes_that_they_were(given_by: Any) -> None:
    whole = given_by(Pile())
    floats = given_by(Pile(image=lambda image, _: image.astype(np.float32) / 255))
    assert floats.digest == whole.digest
    assert floats.origin["notes"] == ()


def test_floats_between_the_steps_are_rounded_and_it_is_said(given_by: Any) -> None:
    found = given_by(Pile(image=lambda image, i: (image / 255 + (0.001 if i < 9 else 0)) * 0.99))
    (note,) = found.origin["notes"]
    assert "were rounded" in note and "own_pile:make" in note


def test_torch_tensors_are_arrays_too(given_by: Any) -> None:
    torch = pytest.importorskip("torch")
    found = given_by(
        Pile(image=lambda image, _: torch.tensor(image), target=lambda t, _: torch.tensor(t))
    )
    assert found.digest == given_by(Pile()).digest


def test_classes_without_names_are_numbers(given_by: Any) -> None:
    pile = Pile()
    pile.metadata = {"id": "bare"}
    assert given_by(pile).classes == ("0", "1", "2")


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (7, "returned int, not a MAITE data set"),
        ([], "returned list, not a MAITE data set"),
        ({"train": 3, "test": 4}, "returned dict, not a MAITE data set"),
        ({"train": Pile()}, "returned splits train; needed: train and test"),
        ({"train": Pile(), "test": Pile(), "x": Pile()}, "splits test, train, x; needed"),
        (Pile(0), "holds no image"),
        (Pile(2), "too few images: none is in the"),
        (Pile(image=lambda image, _: image[0]), "an image is (C, H, W), not (4, 5)"),
        (Pile(image=lambda *_: np.zeros((8, 8, 3))), "looks like (H, W, C)"),
        (Pile(image=lambda image, i: image[:, i // 9 :]), "item 9: 5x3x3, but item 0: 5x4x3"),
        (Pile(image=lambda image, _: image / 1.0), "not whole numbers from 0 to 255 or floats"),
        (Pile(image=lambda image, _: image / 99 - 1), "leave normalisation to the model"),
        (Pile(image=lambda image, _: image * np.nan), "float64 from nan to nan"),
        (Pile(image=lambda image, _: image.astype(int) * 2), "int64 from 8 to 496"),
        (Pile(image=lambda *_: "picture"), "an image is (C, H, W), not ()"),
        (Pile(image=lambda image, i: image[i, 99]), "no image, target and metadata: index"),
        (Pile(target=lambda _, i: i % 3), "a target is (classes,), two or more, not ()"),
        (Pile(target=lambda _, i: np.eye(3 + i // 50)[0]), "item 50: a target is (3,)"),
        (Pile(target=lambda target, _: target * 0.9), "item 0: the target is not one-hot"),
        (Pile(target=lambda target, _: target * np.nan), "the target is not one-hot"),
        (Pile(target=lambda _, i: np.eye(4)[i % 3]), "index2label names 3 labels"),
    ],
    ids=range(21),
)
def test_what_is_wrong_with_it_is_said_in_a_line(given_by: Any, made: Any, message: str) -> None:
    with pytest.raises(DataError) as error:
        given_by(made)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_splits_of_two_sizes_are_refused(given_by: Any) -> None:
    with pytest.raises(DataError, match="its splits differ"):
        given_by((Pile(), Pile(image=lambda image, _: image[:, :3])))


@given(st.lists(st.integers(0, 255), min_size=1, max_size=30))
def test_bytes_survive_the_way_through_floats(values: list[int]) -> None:
    image = np.array(values, np.uint8).reshape(1, 1, -1)
    for kind in (np.float16, np.float32, np.float64):
        floats = (image / 255).astype(kind)
        found, rounded = _bytes(floats, "here")
        assert not rounded
        np.testing.assert_array_equal(found[..., 0], image[0])
