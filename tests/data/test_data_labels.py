"""A file that gives each image its label."""

from __future__ import annotations

import numpy as np
import pytest

from purpleteam.core.errors import DataError, UsageError
from purpleteam.data.folders import load_dataset

Image = pytest.importorskip("PIL.Image", reason="needs Pillow")


@pytest.fixture
def loose(tmp_path):
    """Twelve images 4x4 without class folders, 0.png to 11.png, number 5 in a folder within."""
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for number in range(12):
        name = "in/5.png" if number == 5 else f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (4, 4)).astype(np.uint8)).save(tmp_path / name)
    return tmp_path


def lines(label, between=",", name="{}.png"):
    names = ["in/5.png" if n == 5 else name.format(n) for n in range(12)]
    return [f"{one}{between}{label(n)}" for n, one in enumerate(names)]


def write(folder, rows, name="labels.csv"):
    (folder / name).write_text("\n".join(rows) + "\n", "utf-8")
    return folder


def named(number):
    return ("cat", "dog", "owl")[number % 3]


def counts(dataset):
    return np.bincount(dataset.split("all").labels).tolist()


@pytest.mark.parametrize("head", [[], ["file,label"], ["Image,Class"], ["# made by hand"]])
def test_a_file_beside_the_images_labels_them(loose, head):
    found = load_dataset(write(loose, [*head, *lines(named)]))
    assert found.classes == ("cat", "dog", "owl") and counts(found) == [4, 4, 4]
    assert "labels are from labels.csv" in found.origin["notes"]


@pytest.mark.parametrize(
    ("between", "name"), [(";", "labels.csv"), ("\t", "labels.tsv"), (" ", "labels.txt")]
)
def test_columns_may_be_divided_otherwise(loose, between, name):
    assert counts(load_dataset(write(loose, lines(named, between), name))) == [4, 4, 4]


def test_columns_may_be_swapped_and_endings_left_out(loose):
    rows = [",".join(reversed(row.split(","))) for row in lines(named)]
    assert counts(load_dataset(write(loose, rows))) == [4, 4, 4]
    assert counts(load_dataset(write(loose, lines(named, name="{}")))) == [4, 4, 4]


def test_a_file_elsewhere_is_named_by_the_option(loose, tmp_path_factory):
    away = tmp_path_factory.mktemp("away")
    write(away, lines(named), "mine.txt")
    assert counts(load_dataset(f"{loose}:labels={away / 'mine.txt'}")) == [4, 4, 4]
    with pytest.raises(UsageError, match=r"--labels 'gone\.csv' does not exist"):
        load_dataset(f"{loose}:labels=gone.csv")


def test_a_third_column_gives_the_split(loose):
    rows = [f"{row},{'val' if n > 8 else 'train'}" for n, row in enumerate(lines(named))]
    found = load_dataset(write(loose, ["file,label,split", *rows]))
    assert len(found.test) == 3 and len(found.train) + len(found.validation) == 9


def test_numbers_are_labels_as_they_stand(loose):
    found = load_dataset(write(loose, lines(lambda n: n % 4)))
    assert found.classes == ("0", "1", "2", "3") and counts(found) == [3, 3, 3, 3]


def test_names_of_classes_may_stand_beside(loose):
    write(loose, ["zero", "one", "two", "three", "four"], "classes.txt")
    found = load_dataset(write(loose, lines(lambda n: n % 4)))
    assert found.classes == ("zero", "one", "two", "three", "four")


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (lines(lambda n: 1 + n % 10), "labels run from 1 to 10, not from 0: subtract 1"),
        (lines(lambda n: (0, 1, 3)[n % 3]), "labels run from 0 to 3, but 2 of 0 to 3 has no image"),
        (lines(lambda n: n % 3 - 1), "label -1 is below 0"),
        (lines(lambda _: "cat"), "all 12 labels are of one class, 'cat'"),
        ([*lines(named), "gone.png,cat"], "1 of 13 images are not in .*: gone.png"),
        ([*lines(named), "../../x.png,cat"], "1 of 13 images are not in"),
        ([*lines(named), "1.png,cat"], "'1.png' is 'dog' and 'cat'"),
        ([*lines(named), "1.png,"], "row 13: '1.png' has no label"),
        (["file,label"], "holds no labels"),
        ([*lines(named), "1.png"], "row 13 has 1 columns, not 2"),
        ([f"{one},best" for one in lines(named)], "'best' is no split"),
        (["1.png"], "not of the form file,label"),
        ([], "holds no line"),
    ],
)
def test_what_is_wrong_with_a_file_of_labels_is_named(loose, rows, told):
    with pytest.raises(DataError, match=told):
        load_dataset(write(loose, rows))


def test_images_without_a_label_are_passed_over_and_counted(loose):
    found = load_dataset(write(loose, lines(named)[:9]))
    assert sum(counts(found)) == 9
    assert "3 images are not in labels.csv and were passed over" in found.origin["notes"][1]


def test_names_of_classes_may_come_from_windows_and_must_be_text_and_differ(loose):
    write(loose, lines(lambda n: ("é", "b")[n % 2]))
    for content, told in (
        ("é\r\nb\r\n".encode("utf-8-sig"), ""),
        ("é\nb\n".encode("latin-1"), "classes.txt: cannot be read as text in UTF-8"),
        ("é\nb\né\n".encode(), "classes.txt: names 'é' more than once"),
    ):
        (loose / "classes.txt").write_bytes(content)
        if told:
            with pytest.raises(DataError, match=told):
                load_dataset(str(loose))
        else:
            assert load_dataset(str(loose)).classes == ("é", "b")


def test_a_huge_number_for_a_label_is_refused_at_once(loose):
    rows = lines(lambda n: 0 if n else 99999999999999999999)
    with pytest.raises(DataError, match=r"1, 2, 3 and 99999999999999999995 more of 0 to"):
        load_dataset(write(loose, rows))
