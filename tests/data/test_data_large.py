"""Sets that do not fit in memory: the same numbers, read in batches, and nothing left behind."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("PIL")

from PIL import Image
from torch import nn

from purpleteam.attacks import FGSM, PGD, curve, evaluate
from purpleteam.attacks.outcomes import RobustEvaluation
from purpleteam.attacks.soundness import soundness_of
from purpleteam.attacks.soundness.case import Case
from purpleteam.certify.cascade import certify_ball
from purpleteam.core.errors import DataError, UsageError
from purpleteam.data import Dataset, ImageSet, dataset_from, load_dataset, streamed
from purpleteam.data.streamed import Streamed
from purpleteam.models.fit import examine
from purpleteam.models.inference import evaluate as measure
from purpleteam.models.recipes import Recipe
from purpleteam.models.training import train
from purpleteam.models.weights import digest_of

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 7, 6, 3), dtype=np.uint8)
LABELS = np.arange(60) % 3
BATCH = 5


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, (pixels, label) in enumerate(zip(PIXELS, LABELS, strict=True)):
        place = tmp_path / "set" / "abc"[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{number:02}.png")
    return tmp_path / "set"


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    place = tmp_path / "arrays"
    place.mkdir()
    np.save(place / "x.npy", PIXELS)
    np.save(place / "y.npy", LABELS)
    return place


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let memory be far too small for the images, and hold a batch."""
    monkeypatch.setattr(streamed, "IN_MEMORY", 500)
    monkeypatch.setattr(streamed, "CHUNK", BATCH * PIXELS[0].size)


MANY = ImageSet(np.tile(PIXELS, (4, 1, 1, 1)), np.tile(LABELS, 4))
MOST = 100  # images that a net is asked about at a time


class Few:
    """The same as `MANY`; `most` is how many were ever read at a time."""

    def __init__(self) -> None:
        self.most = 0

    def read(self, rows: Any) -> Any:
        self.most = max(self.most, len(rows))
        return PIXELS[rows % len(PIXELS)]

    @property
    def images(self) -> ImageSet:
        return ImageSet(Streamed(self.read, MANY.images.shape, np.uint8), MANY.labels)


def net() -> nn.Module:
    import torch

    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(PIXELS[0].size, 3))


def parts(dataset: Dataset) -> Iterator[ImageSet]:
    yield from map(dataset.split, ("train", "validation", "test", "all"))


def assert_same(large: Dataset, held: Dataset) -> None:
    for part, other in zip(parts(large), parts(held), strict=True):
        assert isinstance(part.images, Streamed) and not isinstance(other.images, Streamed)
        assert part.digest == other.digest and part.images.shape == other.images.shape
        np.testing.assert_array_equal(part.images, other.images)
        np.testing.assert_array_equal(part.labels, other.labels)
        assert (part.files is None) == (other.files is None)
        assert other.files is None or (part.files == other.files).all()
    assert large.origin["notes"] == held.origin["notes"] and large.summary() == held.summary()


def test_a_class_folder_is_the_same_set_in_the_same_splits(
    folder: Path, request: pytest.FixtureRequest
) -> None:
    held = load_dataset(folder)
    request.getfixturevalue("small")
    assert_same(load_dataset(folder), held)


FORMS = {
    "bytes": PIXELS,
    "channels first": np.moveaxis(PIXELS, 3, 1),
    "floats": (PIXELS / 255).astype(np.float32),
    "floats off the grid": PIXELS / 256,
    "floats to 255": PIXELS.astype(np.float32),
    "16 bits": PIXELS.astype(np.uint16) * 257,
    "grey": PIXELS[..., 0],
    "two values": PIXELS > 99,
    "transparent": np.concatenate([PIXELS, PIXELS[..., :1]], 3),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive_of_any_form_is_the_same_set(
    tmp_path: Path, request: pytest.FixtureRequest, form: str, save: Any
) -> None:
    path = tmp_path / "set.npz"
    save(path, x=np.ascontiguousarray(FORMS[form]), y=LABELS)
    held = load_dataset(path)
    request.getfixturevalue("small")
    large = load_dataset(path)
    if save is np.savez:
        assert_same(large, held)
    else:  # it cannot be read from the middle
        assert large.digest == held.digest


def test_what_is_compressed_and_too_big_is_refused_with_a_remedy(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "set.npz", x=PIXELS, y=LABELS)
    monkeypatch.setattr("purpleteam.data.arrays.MAX_ENTRIES", 1000)
    with pytest.raises(DataError, match=r"x\.npy of 7,\d+ bytes does not fit.*not compressed$"):
        load_dataset(tmp_path / "set.npz")


def test_files_of_arrays_and_maps_of_them_are_read_where_they_lie(
    arrays: Path, request: pytest.FixtureRequest
) -> None:
    held, mapped = load_dataset(arrays), np.load(arrays / "x.npy", mmap_mode="r")
    whole = dataset_from(PIXELS, LABELS)
    request.getfixturevalue("small")
    assert_same(load_dataset(arrays), held)
    assert_same(dataset_from(mapped, LABELS), whole)


class Items:
    """A MAITE data set."""

    metadata: ClassVar = {"id": "items"}

    def __len__(self) -> int:
        return len(PIXELS)

    def __getitem__(self, index: int) -> tuple[Any, Any, Any]:
        return np.moveaxis(PIXELS[index], 2, 0), np.eye(3)[LABELS[index]], {}


def test_a_maite_data_set_is_asked_again_for_what_is_not_held(
    request: pytest.FixtureRequest,
) -> None:
    held = dataset_from(Items())
    request.getfixturevalue("small")
    assert_same(dataset_from(Items()), held)


def test_a_file_that_changes_while_it_is_in_use_is_named(arrays: Path, small: None) -> None:
    of_arrays = load_dataset(arrays)
    with (arrays / "x.npy").open("ab") as file:
        file.write(b"0")
    with pytest.raises(DataError, match=r"x\.npy: was changed while it was in use"):
        of_arrays.train.images[0]


@pytest.mark.parametrize(
    ("why", "spoil"),
    [
        ("No such file or directory", lambda path: path.unlink()),
        ("truncated", lambda path: path.write_bytes(path.read_bytes()[:60])),
        ("no image of a known format", lambda path: path.write_bytes(b"")),
        ("something else", lambda path: Image.fromarray(255 - PIXELS[0]).save(path)),
    ],
)
def test_an_image_that_is_spoiled_while_it_is_in_use_is_named_with_the_remedy(
    folder: Path, small: None, why: str, spoil: Callable[[Path], Any]
) -> None:
    images, path = load_dataset(folder).split("all").images, folder / "a" / "00.png"
    spoil(path)
    with pytest.raises(DataError) as error:
        np.asarray(images)
    told = str(error.value)
    assert told.startswith(f"{path}: was changed while it was in use (") and why in told
    assert told.endswith("): put it back as it was, or start again with the images as they are")
    assert "Errno" not in told and "\n" not in told


def test_an_array_whose_file_is_gone_is_named_with_the_remedy(arrays: Path, small: None) -> None:
    images = load_dataset(arrays).train.images
    (arrays / "x.npy").unlink()
    with pytest.raises(DataError, match=r"x\.npy: was changed .* \(cannot .*\): put it back"):
        images[0]


def test_views_read_the_rows_that_are_meant() -> None:
    images = Streamed.of(PIXELS)
    twice = images.take(np.array([7, 3, 3, 50])).take(slice(1, None))
    np.testing.assert_array_equal(twice, PIXELS[[3, 3, 50]])
    np.testing.assert_array_equal(images[-1], PIXELS[-1])
    np.testing.assert_array_equal(images[LABELS == 2], PIXELS[LABELS == 2])
    np.testing.assert_array_equal(
        Streamed.joined([images, PIXELS])[[59, 60, 3]], PIXELS[[59, 0, 3]]
    )
    other = images.replaced(np.array([4, 1]), PIXELS[:2])
    np.testing.assert_array_equal(other[[1, 2, 4]], PIXELS[[1, 2, 0]])
    np.testing.assert_array_equal([one.sum() for one in images], PIXELS.sum((1, 2, 3)))


LADDER = (FGSM(epsilon=0.02), PGD(epsilon=0.02, steps=3))


def attacked(images: ImageSet, **how: Any) -> dict[float, RobustEvaluation]:
    return curve(net(), images, LADDER, [0.02, 0.05], batch_size=BATCH, **how)


@pytest.fixture
def never_whole(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing ask for all images as one array."""

    def whole(*_: Any, **how: Any) -> Any:
        raise AssertionError("all images were read into one array")

    monkeypatch.setattr(Streamed, "__array__", whole)


def test_an_attack_reads_a_batch_at_a_time_and_finds_the_same(never_whole: None) -> None:
    few = Few()
    held, found = attacked(MANY, kept=len(MANY)), attacked(few.images, kept=10)
    assert few.most <= MOST
    for radius, one in held.items():
        large = found[radius]
        assert np.array_equal(large.broken_by, one.broken_by) and len(large.kept) == 10
        assert np.array_equal(large.distance, one.distance, equal_nan=True)
        assert np.array_equal(large.queries, one.queries)
        np.testing.assert_array_equal(large.x_adv[large.kept], one.x_adv[large.kept])
        with pytest.raises(UsageError, match=r"example 1 is not kept, .*kept=240\) keeps all"):
            large.x_adv[:2]


def test_measuring_certifying_and_training_read_a_batch_at_a_time(never_whole: None) -> None:
    few, held = Few(), MANY
    model, recipe = net(), Recipe(epochs=1, batch_size=BATCH)
    numbers = measure(model, few.images, classes=3, batch_size=BATCH)
    assert few.most <= MOST
    proved = certify_ball(model, few.images, epsilon=0.01, method="crown")
    assert few.most <= MOST
    learned = train(net(), few.images, few.images.part(0, 5), recipe, seed=0)
    assert few.most <= MOST and len(few.images) > 2 * MOST
    assert examine(model, few.images) == examine(model, held)
    whole = measure(model, held, classes=3, batch_size=BATCH)
    assert numbers.loss == whole.loss and numbers.calibration_error == whole.calibration_error
    again = train(net(), held, held.part(0, 5), recipe, seed=0)
    assert digest_of(learned.module) == digest_of(again.module)
    assert set(proved.verdicts) <= {"verified", "falsified", "unknown"} and len(
        proved.margins
    ) == len(MANY)


def test_certificates_of_parts_are_those_of_the_whole(
    request: pytest.FixtureRequest,
) -> None:
    held = certify_ball(net(), MANY, epsilon=0.01, method="crown")
    request.getfixturevalue("small")
    parted = certify_ball(net(), Few().images, epsilon=0.01, method="crown")
    assert (parted.verdicts == held.verdicts).all()
    np.testing.assert_allclose(parted.margins, held.margins, rtol=1e-5)
    for stage, whole in zip(parted.stages, held.stages, strict=True):
        assert (stage.name, stage.verified) == (whole.name, whole.verified)
    assert all(parted.decided_by[row] != "clean" for row in parted.counterexamples)


def test_the_check_of_an_evaluation_looks_at_what_is_kept(never_whole: None) -> None:
    found = [*attacked(Few().images, kept=20).values()]
    case = Case(net(), Few().images, LADDER, found, 0, 15)
    assert {*case.looked_at, *case.probed} <= {*found[-1].kept}
    sound = soundness_of(net(), Few().images, LADDER, found, looked_at=15)
    assert sound.overstates is None or sound.overstates.n == 15
    assert sound.breaks is None or set(sound.breaks.rows) <= set(found[-1].kept)
    counted = found[-1].counting(sound.breaks)
    assert counted.x_adv[counted.kept].shape == (20, *PIXELS.shape[1:])


def test_all_examples_are_written_to_a_file_as_they_would_be_from_memory(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    held = evaluate(net(), MANY, *LADDER)
    held.save_images(tmp_path / "held.npz", MANY, held.as_bytes(net(), MANY))
    request.getfixturevalue("small")
    large = evaluate(net(), Few().images, *LADDER, kept=len(MANY))
    bytes_of = large.as_bytes(net(), Few().images)
    large.save_images(tmp_path / "large.npz", Few().images, bytes_of)
    assert (tmp_path / "large.npz").read_bytes() == (tmp_path / "held.npz").read_bytes()
    assert np.load(tmp_path / "held.npz")["x_adv"].dtype == np.float32


def test_a_full_disk_is_told_before_anything_is_written(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(streamed.shutil, "disk_usage", lambda _: usage(120_000))
    needed = r"120,960 bytes are needed, 120,000 are free: set TMPDIR"
    with pytest.raises(DataError, match=f"^{tmp_path}: no room for images: {needed}.*--limit$"):
        evaluate(net(), Few().images, *LADDER, kept=len(MANY))
    assert not [*tmp_path.iterdir()]


def usage(free: int) -> Any:
    return type("Usage", (), {"free": free})


def test_nothing_is_left_in_the_folder_for_temporary_files(
    tmp_path: Path, folder: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    found = evaluate(net(), load_dataset(folder).split("all"), *LADDER, kept=60)
    assert found.x_adv[:60].any() and not [*place.iterdir()]
