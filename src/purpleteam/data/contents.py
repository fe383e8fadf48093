"""What a data set consists of, and whether it is whole: told, with everything that is amiss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from purpleteam.core.digest import sha256_bytes
from purpleteam.core.errors import DataError, Refused
from purpleteam.data.arrays import ArraysReader, array_files, is_array_file
from purpleteam.data.class_folders import lay_open
from purpleteam.data.folders import MANIFEST, load_dataset
from purpleteam.data.idx import IDX_FILES, has_idx
from purpleteam.data.images import SPLITS
from purpleteam.data.pictures import Album, few

__all__ = ["Contents", "claims_mnist", "examine"]

Image = tuple[str, str, int]
"""The digest of an image's pixels, what it is called, and its label."""


@dataclass
class Contents:
    """What is in a data set. It is whole where nothing is amiss."""

    classes: tuple[str, ...] = ()
    splits: dict[str, dict[str, int]] = field(default_factory=dict)
    """Images of each class, by split; "" is none."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Images of each size, width x height."""
    modes: dict[str, int] = field(default_factory=dict)
    """Images of each form of pixels."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Files that are no images, with the reason."""
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """All images that can be read."""
        return sum(sum(counts.values()) for counts in self.splits.values())

    def to_json(self) -> dict[str, Any]:
        """Return the fields of `purple data verify --json`."""
        return {"verified": not self.problems, "images": self.count, **vars(self)}


def claims_mnist(folder: Path) -> bool:
    """Say whether a folder must be MNIST: it holds files of its names, or nothing yet."""
    if (folder / MANIFEST).exists():
        return False
    names = {one.name.removesuffix(".gz").replace(".idx", "-idx") for one in folder.iterdir()}
    return not names or bool(names & set(IDX_FILES))


def examine(path: Path, read_arrays: ArraysReader) -> Contents:
    """Return what is in a folder or file; what is wrong with it is in `problems`, never raised."""
    try:
        if is_array_file(path) or has_idx(path) or array_files(path):
            found, images = _of_arrays(path, read_arrays)
        else:
            found, images = _of_pictures(path)
    except (DataError, Refused) as error:
        return Contents(problems=[str(error)])
    for split, listed in images.items():
        counts = np.bincount([label for *_, label in listed], minlength=len(found.classes))
        found.splits[split] = dict(zip(found.classes, counts.tolist(), strict=True))
    if len(found.classes) < 2:
        found.problems.append(f"there are {len(found.classes)} classes; two or more are needed")
    totals = [sum(counts[name] for counts in found.splits.values()) for name in found.classes]
    if empty := [name for name, total in zip(found.classes, totals, strict=True) if not total]:
        found.problems.append(f"no image is of class {few(empty, 10)}")
    _find_duplicates(images, found)
    return found


def _of_pictures(folder: Path) -> tuple[Contents, dict[str, list[Image]]]:
    layout, album = lay_open(folder), Album(folder)
    images = {}
    for split, listed in layout.splits.items():
        read = album.read([path for path, _ in listed])
        images[split] = [
            (_digest(pixels), album.name(listed[place][0]), listed[place][1])
            for place, pixels in read
        ]
    unreadable = {album.name(path): reason for path, reason in album.unreadable.items()}
    found = Contents(
        classes=layout.classes,
        sizes={f"{width}x{height}": len(of) for (height, width), of in album.sizes.items()},
        modes=dict(album.modes),
        unreadable=unreadable,
        notes=[*layout.notes, *(note for note in album.notes() if "cannot be read" not in note)],
    )
    if unreadable:
        found.problems.append(
            f"{len(unreadable)} of {album.count} images cannot be read: {few(unreadable)}"
        )
    if len(found.sizes) > 1:
        found.problems.append(f"images are of {len(found.sizes)} sizes: {few(found.sizes)}")
    return found, images


def _of_arrays(path: Path, read: ArraysReader) -> tuple[Contents, dict[str, list[Image]]]:
    dataset = load_dataset(path, read_arrays=read)
    height, width, channels = dataset.shape
    parts = {"": dataset.whole} if dataset.whole else {n: dataset.split(n) for n in SPLITS}
    images = {
        name: [
            (_digest(image), f"{name or 'image'} {place}", int(label))
            for place, (image, label) in enumerate(zip(part.images, part.labels, strict=True))
        ]
        for name, part in parts.items()
        if name != "validation" or dataset.validation is not dataset.test
    }
    count = sum(map(len, images.values()))
    found = Contents(
        classes=dataset.classes,
        sizes={f"{width}x{height}": count},
        modes={"L" if channels == 1 else "RGB": count},
        notes=list(dataset.origin.get("notes", ())),
    )
    return found, images


def _find_duplicates(images: Mapping[str, list[Image]], found: Contents) -> None:
    """Add to the problems the images that are in two splits, or of two classes."""
    first: dict[str, tuple[str, str, int]] = {}
    leaked, torn, again = [], [], 0
    for split, listed in images.items():
        for digest, name, label in listed:
            where, other, of = first.setdefault(digest, (split, name, label))
            if other == name and where == split:
                continue
            again += 1
            if where != split:
                leaked.append(f"{name} is {other}")
            if of != label:
                torn.append(f"{name} is {other}")
    if leaked:
        found.problems.append(
            f"{len(leaked)} images are in two splits, so a test sees what was trained: "
            f"{few(leaked)}"
        )
    if torn:
        found.problems.append(f"{len(torn)} images are of two classes: {few(torn)}")
    if again:
        found.notes.append(f"{again} images are there more than once")


def _digest(pixels: Any) -> str:
    return sha256_bytes(str(pixels.shape).encode(), np.ascontiguousarray(pixels).tobytes())
