"""A file that gives each image its label, a line each: file,label and, if wanted, the split.

Between the columns stand commas, semicolons, tabs or blanks, maybe under a line with their names.
Labels are names, or whole numbers from 0 without a gap; `classes.txt` beside it names them.
"""

import csv
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from purpleteam.core.errors import DataError, UsageError
from purpleteam.data.images import SPLIT_NAMES
from purpleteam.data.pictures import ENDS, few

NAMES = ("labels.csv", "labels.tsv", "labels.txt")
COLUMNS = (  # what those of files, labels and splits may be called
    ("file", "filename", "file_name", "image", "image_id", "path", "img", "id", "name"),
    ("label", "class", "category", "target", "labels", "y", "class_name"),
    ("split", "set", "subset", "partition"),
)
MAX_FILE = 256 << 20
TWO_CLASSES = "a classifier is measured on images of two classes or more"

Splits = dict[str, list[tuple[Path, int]]]


def find_labels(folder: Path, asked: str | None) -> Path | None:
    """Return the file of labels: the asked one, or `labels.csv` in a folder that holds one."""
    places = [folder / name for name in NAMES] if asked is None else [Path(asked), folder / asked]
    found = next((path for path in places if path.is_file()), None)
    if found is None and asked is not None:
        raise UsageError(f"--labels {asked!r} does not exist, neither here nor in {folder}")
    return found


def read_labels(path: Path, folder: Path) -> tuple[tuple[str, ...], Splits, list[str]]:
    """Return the classes, the images of each split with their labels, and the notes."""
    rows = _rows(path)
    head = [cell.strip().lower() for cell in rows[0]]
    names, labels, split = (
        next((number for number, cell in enumerate(head) if cell in known), None)
        for known in COLUMNS
    )
    if names is None or labels is None:
        names, labels, split = 0, 1, 2 if len(head) > 2 else None
        if _find(folder, rows[0][0]) is None and _find(folder, rows[0][1]) is not None:
            names, labels = 1, 0
    else:
        rows = rows[1:]
    width = 1 + max(names, labels, split or 0)
    said: dict[Path, tuple[str, str]] = {}
    missing = []
    for number, row in enumerate(rows, start=1):
        if len(row) < width:
            raise DataError(f"{path}: row {number} has {len(row)} columns, not {width}")
        name, label = row[names].strip(), row[labels].strip()
        image = _find(folder, name)
        if image is None:
            missing.append(name)
            continue
        part = "" if split is None else row[split].strip().lower()
        if part not in SPLIT_NAMES and part:
            raise DataError(f"{path}: row {number}: {part!r} is no split: {few(SPLIT_NAMES, 9)}")
        if not label:
            raise DataError(f"{path}: row {number}: {name!r} has no label")
        entry = (label, SPLIT_NAMES.get(part, ""))
        if said.setdefault(image, entry) != entry:
            raise DataError(f"{path}: {row[names]!r} is {said[image][0]!r} and {label!r}")
    if missing:
        lost = f"{len(missing)} of {len(rows)} images are not in {folder}: {few(missing)}"
        raise DataError(f"{path}: {lost}")
    named, listed = [], path.with_name("classes.txt")
    if listed.is_file():
        named = [line.strip() for line in text_of(listed).splitlines() if line.strip()]
        if twice := next((name for name in named if named.count(name) > 1), None):
            raise DataError(f"{listed}: names {twice!r} more than once")
    classes, index = class_index([label for label, _ in said.values()], str(path), named)
    splits: Splits = {}
    for image, (label, part) in said.items():
        splits.setdefault(part, []).append((image, index[label]))
    return classes, splits, [f"labels are from {path.name}"]


def class_index(
    labels: Sequence[str], where: str, named: Sequence[str] = (), *, gaps: bool = False
) -> tuple[tuple[str, ...], dict[str, int]]:
    """Return the classes, and the number of the class of each label as it is written.

    Where the labels are numbers, each class has an image, but with `gaps` some may have none.
    """
    distinct = set(labels)
    if not distinct:
        raise DataError(f"{where}: holds no labels")
    if len(distinct) < 2 and not gaps:
        only = f"all {len(labels)} labels are of one class, {distinct.pop()!r}"
        raise DataError(f"{where}: {only}; {TWO_CLASSES}")
    if not all(label.isascii() and label.removeprefix("-").isdigit() for label in distinct):
        classes = tuple(named) or tuple(sorted(distinct))
        if strangers := distinct - set(classes):
            raise DataError(f"{where}: label {min(strangers)!r} is none of {few(classes, 10)}")
        return classes, {name: number for number, name in enumerate(classes)}
    used = {int(label) for label in distinct}
    low, high = min(used), max(used)
    count = len(named) or (max(high + 1, 2) if gaps else len(used))
    if low < 0:
        raise DataError(f"{where}: label {low} is below 0; labels run from 0")
    if gaps and high >= count:
        known = f"there are {count} classes, 0 to {count - 1}"
        remedy = "give all names or their number as `classes`"
        raise DataError(f"{where}: label {high}, but {known}: {remedy}")
    if used == set(range(1, count + 1)) and not gaps:
        remedy = f"subtract 1 from each, as a net with {count} outputs counts them from 0"
        raise DataError(f"{where}: labels run from 1 to {high}, not from 0: {remedy}")
    if high >= count:
        absent = (number for number in range(high + 1) if number not in used)
        missing = list(islice(absent, 3)) or [count]
        more = high + 1 - len(used) - len(missing)
        lack = ", ".join(map(str, missing)) + (f" and {more} more" if more > 0 else "")
        lack = f"labels run from {low} to {high}, but {lack} of 0 to {high} has no image"
        remedy = "number the classes from 0 without a gap, or list all their names in order in"
        raise DataError(f"{where}: {lack}: {remedy} classes.txt (an array `classes` of an .npz)")
    classes = tuple(named) or tuple(str(number) for number in range(count))
    return classes, {label: int(label) for label in distinct}


def _rows(path: Path) -> list[list[str]]:
    rows = (line for line in text_of(path).splitlines() if not line.startswith("#"))
    if not (lines := list(filter(str.strip, rows))):
        raise DataError(f"{path}: holds no line of the form file,label")
    between = next((mark for mark in (",", ";", "\t") if mark in lines[0]), None)
    try:
        table = [*(csv.reader(lines, delimiter=between) if between else map(str.split, lines))]
    except csv.Error as error:
        raise DataError(f"{path}: no readable table: {error}") from None
    if len(table[0]) < 2:
        raise DataError(f"{path}: {lines[0][:80]!r} is not of the form file,label")
    return table


def _find(folder: Path, name: str) -> Path | None:
    """Return the image that a line means; one outside of the folder is not looked for."""
    path = folder / name
    try:
        if not name or not path.resolve().is_relative_to(folder.resolve()):
            return None
        spellings = (path, *(path.with_name(path.name + end) for end in sorted(ENDS)))
        return next((spelling for spelling in spellings if spelling.is_file()), None)
    except (OSError, ValueError):  # a name that no file can have
        return None


def text_of(path: Path) -> str:
    """Return the text of a file of moderate size."""
    if path.stat().st_size > MAX_FILE:
        raise DataError(f"{path}: over {MAX_FILE} bytes")
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text in UTF-8: {error}") from None
