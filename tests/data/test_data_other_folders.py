"""Other people's folders: what is taken, what is passed over, and what is said of it."""

from __future__ import annotations

import os

import numpy as np
import pytest

from purpleteam.core.errors import ConfigError, DataError, UsageError
from purpleteam.data.folders import load_dataset
from purpleteam.data.images import SPLITS, ImageSet
from purpleteam.data.pictures import read_picture

Image = pytest.importorskip("PIL.Image", reason="needs Pillow")


def draw(path, seed=0, *, shape=(6, 5), mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path)


def fill(folder, classes, count=8, *, start=0, **how):
    for number, name in enumerate(classes):
        for place in range(count):
            draw(folder / name / f"{place}.png", start + 100 * number + place, **how)


def sizes(dataset):
    return [len(dataset.split(name)) for name in SPLITS]


def notes(dataset):
    return "; ".join(dataset.origin["notes"])


def test_a_folder_without_splits_is_used_whole_and_dealt_for_training(tmp_path):
    fill(tmp_path, ("cat", "dog", "owl"), 20)
    found = load_dataset(tmp_path)
    assert found.tested == "all" and len(found.split("all")) == 60 == sum(sizes(found))
    name = tmp_path.name
    assert found.summary("all") == (
        f"{name}: 60 images of 3 classes (cat 20, dog 20, owl 20), no splits: all are used"
    )
    assert "dealt by content into train" in found.summary()
    first = found.split("all").first(12)
    assert set(first.labels.tolist()) == {0, 1, 2}  # no class comes first


def test_a_summary_of_a_thousand_classes_is_bounded(tmp_path):
    from dataclasses import replace

    fill(tmp_path, ("a", "b"), 8)
    found = replace(load_dataset(tmp_path), classes=tuple(f"class-{n}" for n in range(1000)))
    assert len(found.summary("all")) < 300 and "990 more with 0 each" in found.summary("all")


def test_very_few_images_leave_no_split_empty(tmp_path):
    for count in range(2, 12):
        fill(tmp_path / str(count), ("a", "b"), count, start=1000 * count)
        assert min(sizes(load_dataset(tmp_path / str(count)))) >= 1


@pytest.mark.parametrize(
    ("folders", "wanted", "told"),
    [
        ("test", (0, 16, 16), ""),
        ("Testing", (0, 16, 16), "Testing/ is taken as test"),
        ("val", (0, 16, 16), "val/ is taken as validation"),
        ("train val", (14, 2, 16), "val/ is taken as validation"),
        ("TRAIN valid test", (16, 16, 16), "TRAIN/ is taken as train"),
        ("training testing", (14, 2, 16), "testing/ is taken as test"),
        ("validation test", (0, 16, 16), ""),
        ("train test masks", (14, 2, 16), "beside the splits, masks were passed over"),
    ],
)
def test_splits_are_known_by_many_names(tmp_path, folders, wanted, told):
    for number, name in enumerate(folders.split()):
        fill(tmp_path / name, ("a", "b"), start=1000 * number)
    found = load_dataset(tmp_path)
    assert found.whole is None and found.tested == "test"
    if wanted[0] == 14:  # which images validate follows from their pixels
        assert sum(sizes(found)[:2]) == 16 and sizes(found)[2] == 16 and min(sizes(found)) > 0
    else:
        assert tuple(sizes(found)) == wanted
    assert told in notes(found)


def test_a_test_set_alone_trains_nothing(tmp_path):
    fill(tmp_path / "test", ("a", "b"))
    found = load_dataset(tmp_path)
    with pytest.raises(DataError, match="no training images, only a test split: put images into"):
        found.check_trainable()
    assert len(found.split("all")) == 16


def test_training_images_of_one_class_teach_nothing(tmp_path):
    fill(tmp_path / "train", ("a",))
    (tmp_path / "train" / "b").mkdir()
    fill(tmp_path / "test", ("a", "b"))
    with pytest.raises(DataError, match=r"training images of dataset '.*' are of class 'a'"):
        load_dataset(tmp_path).check_trainable()


def test_a_train_folder_alone_is_dealt_and_used_whole(tmp_path):
    fill(tmp_path / "train", ("a", "b"), 20)
    found = load_dataset(tmp_path)
    assert found.tested == "all" and sum(sizes(found)) == 40 and min(sizes(found)) > 0


def test_two_folders_of_one_split_are_refused(tmp_path):
    for name in ("train", "val", "validation"):
        fill(tmp_path / name, ("a", "b"), 2)
    with pytest.raises(DataError, match="val and validation are both validation"):
        load_dataset(tmp_path)


def test_a_class_may_be_called_train_and_a_folder_lie_in_a_folder(tmp_path):
    fill(tmp_path / "inner" / "pics", ("car", "train"))
    found = load_dataset(tmp_path)
    assert found.classes == ("car", "train")
    assert "its images lie in inner/pics" in notes(found)


def test_images_without_class_folders_beside_train_are_named(tmp_path):
    fill(tmp_path / "train", ("a", "b"))
    draw(tmp_path / "test" / "1.png")
    found = load_dataset(tmp_path)
    assert found.tested == "all" and "test/ holds 1 images without class folders" in notes(found)


@pytest.mark.parametrize(
    "name",
    [
        *("a/Thumbs.db", "a/desktop.ini", "a/.DS_Store", "a/._0.png", "a/README.txt"),
        *("a/x/notes.md", "a/.cache/0.png", "a/__MACOSX/0.png"),
    ],
)
def test_what_systems_leave_behind_is_passed_over_and_counted(tmp_path, name):
    fill(tmp_path, ("a", "b"))
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"junk")
    found = load_dataset(tmp_path)
    assert len(found.split("all")) == 16 and "1 files are no images" in notes(found)


@pytest.mark.parametrize("name", ["__MACOSX", ".git", "@eaDir"])
def test_folders_that_systems_leave_behind_are_no_classes(tmp_path, name):
    fill(tmp_path, ("a", "b", name))
    assert load_dataset(tmp_path).classes == ("a", "b")


def test_an_empty_class_is_kept_and_named(tmp_path):
    fill(tmp_path, ("a", "c"))
    (tmp_path / "b").mkdir()
    found = load_dataset(tmp_path)
    assert found.classes == ("a", "b", "c") and set(found.split("all").labels) == {0, 2}
    assert "no image is of class b; it is kept as a class" in notes(found)


def test_images_deeper_down_are_of_the_class_on_top(tmp_path):
    fill(tmp_path / "a", ("left", "right"))
    fill(tmp_path, ("b",))
    assert np.bincount(load_dataset(tmp_path).split("all").labels).tolist() == [16, 8]


def test_classes_whose_numbers_sort_otherwise_are_named(tmp_path):
    fill(tmp_path, ("1", "2", "10"), 4)
    found = load_dataset(tmp_path)
    assert found.classes == ("1", "10", "2")
    assert "sorted by name (1, 10, 2), not by number (1, 2, 10)" in notes(found)


def test_classes_that_differ_in_case_only_are_named(tmp_path):
    fill(tmp_path, ("Cat", "cat"))
    assert "'Cat' and 'cat' differ in case only" in notes(load_dataset(tmp_path))


def test_links_out_of_the_folder_are_named_and_loops_end(tmp_path):
    fill(tmp_path / "set", ("a", "b"))
    draw(tmp_path / "away.png", 999)
    (tmp_path / "set" / "a" / "link.png").symlink_to(tmp_path / "away.png")
    (tmp_path / "set" / "a" / "loop").symlink_to(tmp_path / "set")
    found = load_dataset(tmp_path / "set")
    assert len(found.split("all")) == 17
    assert "1 images are links to files outside of the folder: a/link.png" in notes(found)


def test_links_to_folders_within_a_class_are_named_and_counted(tmp_path):
    fill(tmp_path / "set", ("a", "b"))
    fill(tmp_path, ("more",))
    (tmp_path / "set" / "a" / "more").symlink_to(tmp_path / "more")
    (tmp_path / "set" / "b" / "same").symlink_to("../a")
    (tmp_path / "set" / "c").symlink_to("nowhere")
    found = load_dataset(tmp_path / "set")
    assert len(found.split("all")) == 16 and found.classes == ("a", "b")
    told = notes(found)
    assert f"3 links to folders were not followed: c -> nowhere, a/more -> {tmp_path}/more" in told
    assert "b/same -> ../a; put their images into the class folders themselves" in told


def test_a_class_that_is_a_link_out_of_the_folder_is_read_and_said(tmp_path):
    fill(tmp_path / "set", ("a",))
    fill(tmp_path, ("elsewhere",))
    (tmp_path / "set" / "b").symlink_to(tmp_path / "elsewhere")
    found = load_dataset(tmp_path / "set")
    assert len(found.split("all")) == 16
    assert "8 images are in folders that are links out of the folder: b/0.png" in notes(found)


def test_what_is_called_an_image_and_is_a_pipe_is_passed_over(tmp_path):
    fill(tmp_path, ("a", "b"))
    os.mkfifo(tmp_path / "a" / "pipe.png")
    assert "1 files are no images" in notes(load_dataset(tmp_path))


@pytest.mark.parametrize("splits", [[""], ["train", "test"], ["train", "val", "test"]])
def test_every_image_knows_the_file_that_it_came_from(tmp_path, splits):
    for number, name in enumerate(splits):
        fill(tmp_path / name, ("a", "b"), 12, start=100 * number)
    found = load_dataset(tmp_path)
    for part in (*map(found.split, (*SPLITS, "all")), found.train.take([2, 0]).first(1)):
        for pixels, file in zip(part.images, part.files, strict=True):
            assert (read_picture(tmp_path / file).pixels == pixels).all()
    assert found.test.digest == ImageSet(found.test.images, found.test.labels).digest


@pytest.mark.parametrize("end", ["JPG", "jpeg", "JPEG", "webp", "bmp", "tiff", "TIF", "gif", "ppm"])
def test_endings_of_any_case_are_read(tmp_path, end):
    fill(tmp_path, ("a", "b"))
    draw(tmp_path / "a" / f"more.{end}", 5000, shape=(6, 5, 3) if end == "ppm" else (6, 5))
    assert len(load_dataset(tmp_path).split("all")) == 17


@pytest.mark.parametrize("mode", ["1", "LA", "RGBA", "P", "I;16"])
def test_grey_in_another_form_leaves_a_grey_set_grey(tmp_path, mode):
    fill(tmp_path, ("a", "b"))
    draw(tmp_path / "a" / "more.png", 5000, mode=mode)
    assert load_dataset(tmp_path).shape == (6, 5, 1)


@pytest.mark.parametrize("mode", ["RGBA", "P", "CMYK"])
def test_colour_in_another_form_makes_the_set_a_colour_set(tmp_path, mode):
    fill(tmp_path, ("a", "b"))
    end = "tiff" if mode == "CMYK" else "png"
    draw(tmp_path / "a" / f"more.{end}", 5000, shape=(6, 5, 3), mode=mode)
    assert load_dataset(tmp_path).shape == (6, 5, 3)


def test_what_was_changed_is_counted(tmp_path):
    fill(tmp_path, ("a", "b"), shape=(6, 5, 3))
    clear = np.full((6, 5, 4), 200, np.uint8)
    clear[0, 0, 3] = 0
    Image.fromarray(clear).save(tmp_path / "a" / "clear.png")
    turned = Image.fromarray(np.zeros((5, 6, 3), np.uint8))
    exif = turned.getexif()
    exif[274] = 6
    turned.save(tmp_path / "a" / "turned.jpg", exif=exif)
    frames = [Image.fromarray(np.full((6, 5), grey, np.uint8)) for grey in (10, 20)]
    frames[0].save(tmp_path / "b" / "moving.gif", save_all=True, append_images=frames[1:])
    told = notes(load_dataset(tmp_path))
    for what in ("are transparent in places", "turned upright", "of several frames the first"):
        assert f"1 of 19 images {what}" in told


def test_images_of_other_sizes_are_named_with_the_remedy(tmp_path):
    fill(tmp_path, ("a", "b"))
    fill(tmp_path / "b", ("big",), 5, shape=(9, 12))
    with pytest.raises(DataError) as caught:
        load_dataset(tmp_path)
    told = str(caught.value)
    assert "b/big/0.png: 12x9, but" in told and "--resize 6x5" in told
    assert (
        "5 of 21 images differ from 5x6 (b/big/0.png, b/big/1.png, b/big/2.png and 2 more)" in told
    )
    found = load_dataset(f"{tmp_path}:resize=7x8")
    assert found.shape == (7, 8, 1) and "21 of 21 images were resized to 8x7" in notes(found)
    assert load_dataset(f"{tmp_path}:resize=4").shape == (4, 4, 1)


@pytest.mark.parametrize("text", ["0", "axb", "3x4x5", "-3", "99999x99999"])
def test_a_size_that_is_none_is_refused(tmp_path, text):
    with pytest.raises(ConfigError, match="resize"):
        load_dataset(f"{tmp_path}:resize={text}")


def test_reading_is_refused_for_what_is_no_folder_of_images():
    with pytest.raises(UsageError, match="no folder of image files"):
        load_dataset("digits:resize=8")


def test_unreadable_images_are_named_and_refused_or_skipped(tmp_path):
    fill(tmp_path, ("a", "b"))
    whole = (tmp_path / "a" / "0.png").read_bytes()
    for name, content in {"cut": whole[:40], "none": b"", "text": b"no image"}.items():
        (tmp_path / "b" / f"{name}.png").write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_dataset(tmp_path)
    told = str(caught.value)
    assert "3 of 19 images cannot be read (b/cut.png, b/none.png, b/text.png)" in told
    assert "--skip-unreadable" in told
    found = load_dataset(f"{tmp_path}:skip_unreadable=true")
    assert len(found.split("all")) == 16
    assert "3 of 19 images cannot be read and were skipped: b/cut.png" in notes(found)


def test_images_of_one_class_are_no_data_set(tmp_path):
    fill(tmp_path, ("a",))
    with pytest.raises(DataError, match=r"nor two class folders, but 1 \('a'\)"):
        load_dataset(tmp_path)
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match="all are of class 'a', 1 classes have none"):
        load_dataset(tmp_path)


def test_loose_images_ask_for_labels(tmp_path):
    draw(tmp_path / "1.png")
    with pytest.raises(DataError, match=r"1 images lie in it without class folders.*--labels FILE"):
        load_dataset(tmp_path)
