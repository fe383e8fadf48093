"""Folders of images, one folder for each class, or a file that gives each image its label.

    train/<class>/*  and  test/<class>/*     the splits; `splits_from` says what becomes of others
    <class>/*                                no splits
    *  and  labels.csv                       file,label in each line, a third column for the split

Classes are sorted by name. What is no image by its name, hidden files and what systems leave
behind are passed over and counted; images in folders within a class folder are of that class. A
link to an image is read, and so is a class folder that is a link; a link to a folder within one is
not followed, as it may never end or show the same images twice: it is named.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from purpleteam.core.errors import DataError
from purpleteam.core.progress import SILENT, Progress
from purpleteam.data.images import SPLIT_NAMES, SPLITS, Dataset, ImageSet, splits_from
from purpleteam.data.labels import find_labels, read_labels
from purpleteam.data.pictures import ENDS, Album, Reading, few

LEFT_BEHIND = {"__MACOSX", "Thumbs.db", "ehthumbs.db", "desktop.ini", "Icon\r", "@eaDir"}
"""What systems leave in folders, beside names that begin with a dot."""


@dataclass
class Layout:
    """Where the images of a folder lie, and of which class they are, before one is opened."""

    folder: Path
    classes: tuple[str, ...] = ()
    splits: dict[str, list[tuple[Path, int]]] = field(default_factory=dict)
    """Files with their labels, by split; "" is none."""
    ignored: list[Path] = field(default_factory=list)
    links: list[Path] = field(default_factory=list)
    """To folders, not followed, and those that lead nowhere."""
    notes: list[str] = field(default_factory=list)

    @property
    def paths(self) -> list[Path]:
        """All files, in the order in which they are read."""
        return [path for listed in self.splits.values() for path, _ in listed]


def load_class_folder(
    folder: Path, reading: Reading | None = None, *, progress: Progress = SILENT
) -> Dataset:
    """Return the dataset in a folder of images; see the module for its forms.

    Raises:
        DataError: it holds none, not two classes, images of several sizes, or some that cannot
            be read.
    """
    layout = lay_open(folder, reading)
    _check_classes(layout)
    album = Album(folder, reading or Reading())
    read = {
        name: album.read([path for path, _ in listed], progress)
        for name, listed in layout.splits.items()
    }
    album.check()
    piles = {
        name: ImageSet(
            album.stacked([pixels for _, pixels in images]),
            np.array([layout.splits[name][place][1] for place, _ in images], np.int64),
            np.array([album.name(layout.splits[name][place][0]) for place, _ in images], np.str_),
        )
        for name, images in read.items()
    }
    return Dataset(
        name=folder.resolve().name,
        classes=layout.classes,
        origin={"folder": str(folder), "notes": (*layout.notes, *album.notes())},
        **splits_from(piles, str(folder)),
    )


def lay_open(folder: Path, reading: Reading | None = None) -> Layout:
    """Return where the images of a folder lie, by split and class; none is opened.

    Raises:
        DataError: two folders are the same split, a class is in test alone, or the file of
            labels is damaged.
    """
    layout = Layout(folder)
    table = find_labels(folder, None if reading is None else reading.labels)
    if table is not None:
        layout.classes, layout.splits, notes = read_labels(table, folder)
        layout.notes += notes
        named = set(layout.paths)
        rest = [path for path in _files(folder, layout) if path not in named]
        if rest:
            layout.notes.append(
                f"{len(rest)} images are not in {table.name} and were passed over: "
                f"{few(path.relative_to(folder) for path in rest)}"
            )
        return layout
    root, inner = folder, _folders(folder)
    # An unpacked zip holds one folder, which holds what is meant.
    while len(inner) == 1 and not _images(root) and not _images(inner[0]):
        if inner[0].name.lower() in SPLIT_NAMES or not _folders(inner[0]):
            break
        root, inner = inner[0], _folders(inner[0])
    if root != folder:
        layout.notes.append(f"its images lie in {root.relative_to(folder)}")
    roots = _split_folders(root, inner, layout)
    if not roots:
        roots = {"": root}
        if loose := _images(root):
            layout.notes.append(
                f"{len(loose)} images lie outside of the class folders and were passed over: "
                f"{few(path.name for path in loose)}"
            )
    for place in {root, *roots.values()}:  # a link to nothing may have been meant for a folder
        layout.links += [
            path
            for path in sorted(place.iterdir())
            if path.is_symlink() and not path.exists() and not _is_image(path)
        ]
    first = roots.get("train") or next(iter(roots.values()))
    layout.classes = tuple(path.name for path in _folders(first))
    for name, place in roots.items():
        if strangers := sorted({path.name for path in _folders(place)} - set(layout.classes)):
            raise DataError(
                f"{place}: class {strangers[0]!r} is not in {first.name}: {few(layout.classes, 20)}"
            )
        layout.splits[name] = [
            (path, label)
            for label, class_name in enumerate(layout.classes)
            if (place / class_name).is_dir()
            for path in _files(place / class_name, layout)
        ]
    _note_surprises(layout)
    return layout


def _split_folders(root: Path, inner: Iterable[Path], layout: Layout) -> dict[str, Path]:
    """Return the folders that are splits: named so, with class folders in them."""
    roots: dict[str, Path] = {}
    others = []
    for place in inner:
        split = SPLIT_NAMES.get(place.name.lower())
        if split is None:
            others.append(place.name)
        elif not _folders(place):
            if files := _images(place):
                layout.notes.append(
                    f"{place.name}/ holds {len(files)} images without class folders: they were "
                    "passed over; --labels FILE gives them labels"
                )
        elif split in roots:
            raise DataError(f"{root}: {roots[split].name} and {place.name} are both {split}")
        else:
            roots[split] = place
            if place.name != split:
                layout.notes.append(f"{place.name}/ is taken as {split}")
    if roots and others:
        layout.notes.append(f"beside the splits, {few(others)} were passed over")
    return {name: roots[name] for name in SPLITS if name in roots}


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not _left_behind(path))


def _images(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_file() and _is_image(path)]


def _files(folder: Path, layout: Layout) -> list[Path]:
    """Return the images in a folder and in those within, in order; count what is passed over."""
    images: list[Path] = []
    waiting = [folder]
    while waiting:
        for path in sorted(waiting.pop().iterdir()):
            if _left_behind(path):
                layout.ignored.append(path)
            elif path.is_dir():
                (layout.links if path.is_symlink() else waiting).append(path)
            elif _is_image(path) and (path.is_file() or path.is_symlink()):  # a pipe never ends
                images.append(path)
            else:
                layout.ignored.append(path)
    return sorted(images)


def _left_behind(path: Path) -> bool:
    return path.name.startswith(".") or path.name in LEFT_BEHIND


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in ENDS and not _left_behind(path)


def _note_surprises(layout: Layout) -> None:
    """Note what is surprising about the classes and files, before an image is opened."""
    folder, classes, notes = layout.folder, layout.classes, layout.notes
    used = {label for listed in layout.splits.values() for _, label in listed}
    if empty := [name for label, name in enumerate(classes) if label not in used]:
        notes.append(f"no image is of class {few(empty, 10)}; it is kept as a class")
    if layout.ignored:
        names = sorted({path.name for path in layout.ignored})
        notes.append(
            f"{len(layout.ignored)} files are no images by their names and were passed over: "
            f"{few(names)}"
        )
    if layout.links:
        shown = few(f"{path.relative_to(folder)} -> {path.readlink()}" for path in layout.links)
        notes.append(
            f"{len(layout.links)} links to folders were not followed: {shown}; put their images "
            "into the class folders themselves, or link to each image"
        )
    if all(name.isascii() and name.isdigit() for name in classes):
        by_number = sorted(classes, key=int)
        if by_number != list(classes):
            notes.append(
                f"classes are sorted by name ({few(classes)}), not by number ({few(by_number)})"
            )
    lower: dict[str, str] = {}
    for name in classes:
        if name.lower() in lower:
            notes.append(f"classes {lower[name.lower()]!r} and {name!r} differ in case only")
        lower[name.lower()] = name
    inside, paths = folder.resolve(), layout.paths
    away = {place for place in {path.parent for path in paths} if _is_outside(place, inside)}
    outward = [path for path in paths if path.is_symlink() and _is_outside(path, inside)]
    elsewhere = [path for path in paths if path.parent in away]
    for outside, what in ((outward, "links to files outside of the folder"),
                          (elsewhere, "in folders that are links out of the folder")):  # fmt: skip
        if outside:
            shown = few(path.relative_to(folder) for path in outside)
            notes.append(f"{len(outside)} images are {what}: {shown}")


def _is_outside(path: Path, folder: Path) -> bool:
    return not path.resolve().is_relative_to(folder)


def _check_classes(layout: Layout) -> None:
    folder, classes = layout.folder, layout.classes
    if len(classes) < 2:
        loose = _images(folder)
        hint = (
            f"; {len(loose)} images lie in it without class folders: give a file of file,label "
            "with --labels FILE"
            if loose
            else ""
        )
        only = f" ({classes[0]!r})" if classes else ""
        raise DataError(
            f"{folder}: holds neither the four IDX files nor two class folders, but "
            f"{len(classes)}{only}{hint}"
        )
    used = {label for listed in layout.splits.values() for _, label in listed}
    if not used:
        passed = f"; {few(path.name for path in layout.ignored)} are none" if layout.ignored else ""
        raise DataError(f"{folder}: too few images: none in {few(classes, 10)}{passed}")
    if len(used) == 1:
        only, empty = classes[used.pop()], len(classes) - 1
        raise DataError(
            f"{folder}: too few images: all are of class {only!r}, {empty} classes have none; "
            "a classifier is measured on images of two classes or more"
        )
