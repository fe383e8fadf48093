"""One folder of image files for each class, in both layouts."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from purpleteam.core.errors import DataError
from purpleteam.data.folders import load_dataset
from purpleteam.data.pictures import read_picture

Image = pytest.importorskip("PIL.Image", reason="needs Pillow")


def fill(folder, count, *, shape=(6, 5), seed=0, end="png"):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        pixels = rng.integers(0, 256, shape).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03}.{end}")


def test_class_folders_are_dealt_out_80_10_10_by_content(tmp_path):
    for seed, name in enumerate(("zebra", "ant")):
        fill(tmp_path / name, 150, seed=seed)
    found = load_dataset(tmp_path)
    assert found.classes == ("ant", "zebra")
    sizes = [len(found.train), len(found.validation), len(found.test)]
    assert sum(sizes) == 300
    assert 215 < sizes[0] < 265 and min(sizes[1:]) > 12


def test_the_same_image_is_never_in_two_splits(tmp_path):
    fill(tmp_path / "a", 60)
    fill(tmp_path / "b", 60, end="bmp")
    found = load_dataset(tmp_path)
    pixels = [{one.tobytes() for one in part.images} for part in (found.train, found.test)]
    assert not pixels[0] & pixels[1]
    assert len(found.test) % 2 == 0


def test_given_splits_are_kept_and_validation_comes_from_train(tmp_path):
    for seed, (split, count) in enumerate({"train": 100, "test": 7}.items()):
        fill(tmp_path / split / "a", count, seed=seed)
        fill(tmp_path / split / "b", count, seed=seed + 10)
    found = load_dataset(tmp_path)
    assert len(found.test) == 14
    assert len(found.train) + len(found.validation) == 200
    assert 5 < len(found.validation) < 40


def test_a_validation_folder_is_the_validation_split(tmp_path):
    for seed, (split, count) in enumerate({"train": 9, "validation": 4, "test": 3}.items()):
        fill(tmp_path / split / "a", count, seed=seed)
        fill(tmp_path / split / "b", count, seed=seed + 10)
    found = load_dataset(tmp_path)
    assert [len(found.train), len(found.validation), len(found.test)] == [18, 8, 6]


def test_one_colour_image_makes_the_set_a_colour_set(tmp_path):
    fill(tmp_path / "a", 60)
    fill(tmp_path / "b", 60, shape=(6, 5, 3), seed=1)
    found = load_dataset(tmp_path)
    assert found.shape == (6, 5, 3)
    grey = found.train.images[found.train.labels == 0][0]
    assert (grey[..., 0] == grey[..., 2]).all()


@pytest.mark.parametrize("end", ["png", "bmp", "pgm", "jpg"])
def test_the_named_formats_are_read(tmp_path, end):
    Image.fromarray(np.full((4, 3), 200, np.uint8)).save(tmp_path / f"a.{end}")
    assert (read_picture(tmp_path / f"a.{end}").pixels == 200).all()
    assert read_picture(tmp_path / f"a.{end}").pixels.shape == (4, 3, 1)


def test_transparent_pixels_are_laid_on_black(tmp_path):
    pixels = np.full((2, 2, 4), 255, np.uint8)
    pixels[0, 0, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png").pixels[:, :, 0].tolist() == [[0, 255], [255, 255]]


def test_other_formats_and_damaged_files_are_errors_that_name_the_file(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "gif.png", format="GIF")
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:50])
    (tmp_path / "note.txt").write_text("no image")
    for name in ("gif.png", "cut.png", "note.txt", "missing.png"):
        with pytest.raises(DataError, match=name):
            read_picture(tmp_path / name)


@pytest.mark.parametrize("side", [5_000, 10_000, 40_000])
def test_an_image_bomb_is_refused_before_it_is_decoded(tmp_path, side):
    def chunk(name, body):
        whole = name + body
        return struct.pack(">I", len(body)) + whole + struct.pack(">I", zlib.crc32(whole))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b""))
    with pytest.raises(DataError, match=r"bomb\.png: .*pixels"):
        read_picture(tmp_path / "bomb.png")


def test_deep_grey_is_scaled_rather_than_clipped(tmp_path):
    deep = np.array([[0, 257], [40_000, 65_535]], np.uint16)
    for end in ("png", "tiff"):
        Image.fromarray(deep).save(tmp_path / f"deep.{end}")
        assert read_picture(tmp_path / f"deep.{end}").pixels[..., 0].tolist() == [
            [0, 1],
            [156, 255],
        ]


def test_images_of_two_sizes_are_refused_by_name(tmp_path):
    fill(tmp_path / "a", 3)
    fill(tmp_path / "b", 3, shape=(9, 9))
    with pytest.raises(DataError, match=r"000\.png: 9x9, but .*000\.png: 5x6"):
        load_dataset(tmp_path)


def test_a_folder_without_classes_or_images_is_refused(tmp_path):
    with pytest.raises(DataError, match="nor two class folders"):
        load_dataset(tmp_path)
    fill(tmp_path / "a", 1)
    fill(tmp_path / "b", 0)
    with pytest.raises(DataError, match="too few images"):
        load_dataset(tmp_path)


def test_a_class_that_only_test_has_is_refused(tmp_path):
    for split, name in (("train", "a"), ("train", "b"), ("test", "a"), ("test", "new")):
        fill(tmp_path / split / name, 2)
    with pytest.raises(DataError, match="class 'new' is not in train: a, b"):
        load_dataset(tmp_path)
