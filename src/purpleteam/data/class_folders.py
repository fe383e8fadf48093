"""Folders of images, one folder for each class, or a file that gives each image its label.

    train/<class>/*  and  test/<class>/*     the splits; `splits_from` says what becomes of others
    <class>/*                                no splits
    *  and  labels.csv                       file,label in each line, a third column for the split

Between the columns stand commas, semicolons, tabs or blanks, maybe under a line with their names;
labels are names, or whole numbers from 0 without a gap, and `classes.txt` beside it names them.

Class folders are sorted by name. Other files are passed over and counted; images in folders within
one are of that class. A link to an image is read, and so is a class folder that is a link; a link
to a folder within one is not followed, as it may never end: it is named.
"""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.errors import DataError, UsageError
from purpleteam.core.progress import SILENT, Progress
from purpleteam.data import images as sets
from purpleteam.data.images import SPLIT_NAMES, SPLITS, Dataset, ImageSet, few
from purpleteam.data.pictures import COLOUR, ENDS, GREY, Reading, read_picture
from purpleteam.data.streamed import Gathered

# What systems leave in folders, beside names that begin with a dot.
LEFT_BEHIND = {"__MACOSX", "Thumbs.db", "ehthumbs.db", "desktop.ini", "Icon\r", "@eaDir"}
NAMES = ("labels.csv", "labels.tsv", "labels.txt")
COLUMNS = (  # what those of files, labels and splits may be called
    ("file", "filename", "file_name", "image", "image_id", "path", "img", "id", "name"),
    ("label", "class", "category", "target", "labels", "y", "class_name"),
    ("split", "set", "subset", "partition"),
)
MAX_FILE = 256 << 20

Splits = dict[str, list[tuple[Path, int]]]  # files with their labels
Row = tuple[Path, int, NDArray[np.uint8]]  # label and pixels of a file


@dataclass
class ImageFolder:
    """The images of a folder: where they lie and, once they are read, what is to be noted."""

    folder: Path
    reading: Reading
    classes: tuple[str, ...] = ()
    splits: Splits = field(default_factory=dict)  # "" is none
    ignored: list[Path] = field(default_factory=list)
    links: list[Path] = field(default_factory=list)  # to folders, and those that lead nowhere
    notes: list[str] = field(default_factory=list)
    changes: Counter[str] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    sizes: dict[tuple[int, int], list[Path]] = field(default_factory=dict)
    kinds: set[str] = field(default_factory=set)
    unreadable: dict[Path, str] = field(default_factory=dict)
    count: int = 0

    @property
    def paths(self) -> list[Path]:
        return [path for listed in self.splits.values() for path, _ in listed]

    @property
    def used(self) -> set[int]:
        return {label for listed in self.splits.values() for _, label in listed}

    def images_in(self, folder: Path) -> list[Path]:
        """Return the images in a folder and in those within; count what is passed over."""
        images, waiting = [], [folder]
        while waiting:
            for path in sorted(waiting.pop().iterdir()):
                if path.is_dir() and not _left_behind(path):
                    (self.links if path.is_symlink() else waiting).append(path)
                elif _is_image(path) and (path.is_file() or path.is_symlink()):  # a pipe never ends
                    images.append(path)
                else:
                    self.ignored.append(path)
        return sorted(images)

    def inside(self, paths: Iterable[Path]) -> str:
        return few(map(self.name, paths))

    def read(self, split: str, progress: Progress = SILENT) -> Iterator[Row]:
        """Yield the images of a split as they are read."""
        with progress.task(f"reading {self.folder.name}", len(self.splits[split])) as task:
            for path, label in self.splits[split]:
                self.count += 1
                task.advance()
                try:
                    picture = read_picture(path, self.reading.size)
                except DataError as error:
                    self.unreadable[path] = str(error).removeprefix(f"{path}: ")
                    continue
                self.changes.update(picture.changes)
                self.modes[picture.mode] += 1
                self.sizes.setdefault(picture.size, []).append(path)
                self.kinds.add(picture.kind)
                yield path, label, picture.pixels

    def changed(self) -> list[str]:
        changes = self.changes.items()
        return [f"{count} of {self.count} images {change}" for change, count in changes]

    def check(self) -> list[str]:
        """Return what was changed and skipped; what may not be is a DataError with the remedy."""
        notes = self.changed()
        if self.unreadable:
            path, reason = next(iter(self.unreadable.items()))
            lost = f"{len(self.unreadable)} of {self.count} images cannot be read"
            names = self.inside(self.unreadable)
            if not self.reading.skip_unreadable:
                remedy = "leave them out with --skip-unreadable"
                raise DataError(f"{path}: {reason}; {lost} ({names}): {remedy}")
            notes.append(f"{lost} and were skipped: {names}")
        if len(self.sizes) > 1 and self.reading.size is None:
            (height, width), alike = max(self.sizes.items(), key=lambda known: len(known[1]))
            other = next(f"{w}x{h}" for (h, w), paths in self.sizes.items() if paths is not alike)
            differ = [path for paths in self.sizes.values() if paths is not alike for path in paths]
            size = f"{width}x{height}"
            pair = f"{differ[0]}: {other}, but {alike[0]}: {size}"
            more = f"{len(differ)} of {self.count} images differ from {size}"
            remedy = f"give all one size with --resize {height}x{width}"
            raise DataError(f"{pair}; {more} ({self.inside(differ)}): {remedy}")
        return notes

    def stacked(self, pixels: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Return images (N, H, W, C): C is 1 where some are grey and none has colour, else 3."""
        channels = 1 if GREY in self.kinds and COLOUR not in self.kinds else 3
        if not pixels:
            return np.zeros((0, 1, 1, channels), np.uint8)
        shape = (*pixels[0].shape[:2], channels)
        return np.stack([np.broadcast_to(image[..., :channels], shape) for image in pixels])

    def name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


def load_class_folder(
    folder: Path, reading: Reading | None = None, *, progress: Progress = SILENT
) -> Dataset:
    """Return the dataset in a folder of images; see the module for its forms."""
    layout = lay_open(folder, reading)
    classes, used = layout.classes, layout.used
    if len(classes) < 2:
        hint = f" ({classes[0]!r})" if classes else ""
        if loose := len(_images(folder)):
            remedy = "give a file of file,label with --labels FILE"
            hint += f"; {loose} images lie in it without class folders: {remedy}"
        wanted = "neither the four IDX files nor two class folders"
        raise DataError(f"{folder}: holds {wanted}, but {len(classes)}{hint}")
    if not used:
        passed = f"; {few(path.name for path in layout.ignored)} are none" if layout.ignored else ""
        raise DataError(f"{folder}: too few images: none in {few(classes, 10)}{passed}")
    if len(used) == 1:
        only = f"all are of class {classes[used.pop()]!r}, {len(classes) - 1} classes have none"
        raise DataError(f"{folder}: too few images: {only}; {sets.TWO_CLASSES}")
    files, gathered, places = list[tuple[Path, int]](), Gathered(), dict[str, range]()
    for split in layout.splits:
        start = len(files)
        for path, label, pixels in layout.read(split, progress):
            files.append((path, label))
            gathered.add(pixels)
        places[split] = range(start, len(files))
    notes, piles = (*layout.notes, *layout.check()), {}

    def decoded(place: int) -> NDArray[np.uint8]:
        return read_picture(files[place][0], layout.reading.size).pixels

    for split, place in places.items():
        of = files[place.start : place.stop]
        pictures = gathered.images(place, decoded, lambda row: str(files[row][0]), layout.stacked)
        names = np.array([layout.name(path) for path, _ in of], np.str_)
        piles[split] = ImageSet(pictures, np.array([label for _, label in of], np.int64), names)
    return Dataset(
        name=folder.resolve().name,
        classes=classes,
        origin={"folder": str(folder), "notes": notes},
        **sets.splits_from(piles, str(folder)),
    )


def lay_open(folder: Path, reading: Reading | None = None) -> ImageFolder:
    """Return where the images of a folder lie, by split and class; none is opened."""
    layout = ImageFolder(folder, reading or Reading())
    notes, asked = layout.notes, layout.reading.labels
    tables = [folder / name for name in NAMES] if asked is None else [Path(asked), folder / asked]
    table = next(filter(Path.is_file, tables), None)
    if table is None and asked is not None:
        raise UsageError(f"--labels {asked!r} does not exist, neither here nor in {folder}")
    if table is not None:
        layout.classes, layout.splits = read_labels(table, folder)
        notes.append(f"labels are from {table.name}")
        if rest := sorted({*layout.images_in(folder)}.difference(layout.paths)):
            passed = f"are not in {table.name} and were passed over"
            notes.append(f"{len(rest)} images {passed}: {layout.inside(rest)}")
        return layout
    root = folder
    # An unpacked zip holds a single folder, which holds what is meant.
    while len(inner := _folders(root)) == 1 and not _images(root) and not _images(inner[0]):
        if inner[0].name.lower() in SPLIT_NAMES or not _folders(inner[0]):
            break
        root = inner[0]
    if root != folder:
        notes.append(f"its images lie in {root.relative_to(folder)}")
    roots = _split_folders(root, inner, notes) or {"": root}
    if "" in roots and (loose := _images(root)):
        passed = "lie outside of the class folders and were passed over"
        notes.append(f"{len(loose)} images {passed}: {few(path.name for path in loose)}")
    for place in {root, *roots.values()}:  # a link to nothing may have been meant for a folder
        dead = [path for path in place.iterdir() if path.is_symlink() and not path.exists()]
        layout.links += sorted(path for path in dead if not _is_image(path))
    first = roots.get("train") or next(iter(roots.values()))
    layout.classes = tuple(path.name for path in _folders(first))
    for name, place in roots.items():
        if strangers := sorted({path.name for path in _folders(place)} - set(layout.classes)):
            known = f"{first.name}: {few(layout.classes, 20)}"
            raise DataError(f"{place}: class {strangers[0]!r} is not in {known}")
        layout.splits[name] = [
            (path, label)
            for label, class_name in enumerate(layout.classes)
            if (place / class_name).is_dir()
            for path in layout.images_in(place / class_name)
        ]
    _note_surprises(layout)
    return layout


def _split_folders(root: Path, inner: Iterable[Path], notes: list[str]) -> dict[str, Path]:
    """Return the folders that are splits: named so, with class folders in them."""
    roots: dict[str, Path] = {}
    others = []
    for place in inner:
        split = SPLIT_NAMES.get(place.name.lower())
        if split is None:
            others.append(place.name)
        elif not _folders(place):
            if count := len(_images(place)):
                passed = "they were passed over; --labels FILE gives them labels"
                notes.append(f"{place.name}/ holds {count} images without class folders: {passed}")
        elif split in roots:
            raise DataError(f"{root}: {roots[split].name} and {place.name} are both {split}")
        else:
            roots[split] = place
            if place.name != split:
                notes.append(f"{place.name}/ is taken as {split}")
    if roots and others:
        notes.append(f"beside the splits, {few(others)} were passed over")
    return {name: roots[name] for name in SPLITS if name in roots}


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not _left_behind(path))


def _images(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_file() and _is_image(path)]


def _left_behind(path: Path) -> bool:
    return path.name.startswith(".") or path.name in LEFT_BEHIND


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in ENDS and not _left_behind(path)


def _note_surprises(layout: ImageFolder) -> None:
    folder, classes, notes, used = layout.folder, layout.classes, layout.notes, layout.used
    if empty := [name for label, name in enumerate(classes) if label not in used]:
        notes.append(f"no image is of class {few(empty, 10)}; it is kept as a class")
    if layout.ignored:
        passed = few(sorted({path.name for path in layout.ignored}))
        passed = f"are no images by their names and were passed over: {passed}"
        notes.append(f"{len(layout.ignored)} files {passed}")
    if layout.links:
        shown = few(f"{path.relative_to(folder)} -> {path.readlink()}" for path in layout.links)
        remedy = "put their images into the class folders themselves, or link to each image"
        notes.append(f"{len(layout.links)} links to folders were not followed: {shown}; {remedy}")
    numbered = all(name.isascii() and name.isdigit() for name in classes)
    if numbered and (by_number := sorted(classes, key=int)) != list(classes):
        orders = f"by name ({few(classes)}), not by number ({few(by_number)})"
        notes.append(f"classes are sorted {orders}")
    lower: dict[str, str] = {}
    for name in classes:
        if (other := lower.setdefault(name.lower(), name)) != name:
            notes.append(f"classes {other!r} and {name!r} differ in case only")
    inside, paths = folder.resolve(), layout.paths
    places = {*(path.parent for path in paths), *filter(Path.is_symlink, paths)}
    away = {path for path in places if not path.resolve().is_relative_to(inside)}
    for outside, lie in (
        ([path for path in paths if path in away], "links to files outside of"),
        ([path for path in paths if path.parent in away], "in folders that are links out of"),
    ):
        if outside:
            notes.append(f"{len(outside)} images are {lie} the folder: {layout.inside(outside)}")


def read_labels(path: Path, folder: Path) -> tuple[tuple[str, ...], Splits]:
    """Return the classes, and the images of each split with their labels."""
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
    classes, index = sets.class_index([label for label, _ in said.values()], str(path), named)
    splits: Splits = {}
    for image, (label, part) in said.items():
        splits.setdefault(part, []).append((image, index[label]))
    return classes, splits


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
