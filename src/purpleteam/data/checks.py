"""What a data set consists of, whether it is sound, and whether it is the pinned one."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.checks import CHECKS, Check, Outcome, Target
from purpleteam.core.digest import sha256_bytes
from purpleteam.core.errors import Absent, DataError, Refused
from purpleteam.data.arrays import ArraysReader, array_files, is_array_file, plain_arrays
from purpleteam.data.class_folders import lay_open
from purpleteam.data.folders import MANIFEST, load_dataset, load_idx_folder
from purpleteam.data.idx import IDX_FILES, find_idx, has_idx, open_idx, write_idx
from purpleteam.data.images import SPLITS, Dataset, few
from purpleteam.data.sources.mnist import MNIST_DIGESTS

RARE = 0.05  # of the mean class: with fewer training images a class is hardly learnt
Image = tuple[str, str, int]  # the digest of an image's pixels, what it is called, and its label


@dataclass
class Contents:
    """What is in a data set; one without problems is whole."""

    classes: tuple[str, ...] = ()
    splits: dict[str, dict[str, int]] = field(default_factory=dict)  # of each class; "" is none
    sizes: dict[str, int] = field(default_factory=dict)  # width x height
    modes: dict[str, int] = field(default_factory=dict)  # forms of pixels
    unreadable: dict[str, str] = field(default_factory=dict)  # files, and why they are no images
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        return sum(sum(counts.values()) for counts in self.splits.values())

    def to_json(self) -> dict[str, Any]:
        return {"verified": not self.problems, "images": self.count, **vars(self)}


def claims_mnist(folder: Path) -> bool:
    """Say whether a folder must be MNIST: it holds files of its names, or nothing yet."""
    if (folder / MANIFEST).exists():
        return False
    names = {path.name.removesuffix(".gz").replace(".idx", "-idx") for path in folder.iterdir()}
    return not names or bool(names & set(IDX_FILES))


def examine(path: Path, read_arrays: ArraysReader) -> Contents:
    """Return what is in a folder or file; what is wrong with it is in `problems`, never raised."""
    contents = Contents()
    problems = contents.problems
    try:
        if is_array_file(path) or has_idx(path) or array_files(path):
            images = _of_arrays(path, read_arrays, contents)
        else:
            images = _of_pictures(path, contents)
    except (DataError, Refused) as error:
        return Contents(problems=[str(error)])
    classes, used = contents.classes, set[int]()
    first: dict[str, tuple[str, str, int]] = {}
    leaked, torn, again = [], [], 0
    for split, listed in images.items():
        labels = [label for *_, label in listed]
        counts = np.bincount(labels, minlength=len(classes)).tolist()
        contents.splits[split] = dict(zip(classes, counts, strict=True))
        used.update(labels)
        for digest, name, label in listed:
            where, other, of = first.setdefault(digest, (split, name, label))
            if (where, other) != (split, name):
                again += 1
                leaked += [f"{name} is {other}"] if where != split else []
                torn += [f"{name} is {other}"] if of != label else []
    if len(classes) < 2:
        problems.append(f"there are {len(classes)} classes; two or more are needed")
    if empty := [name for label, name in enumerate(classes) if label not in used]:
        problems.append(f"no image is of class {few(empty, 10)}")
    if leaked:
        lie = "are in two splits, so a test sees what was trained"
        problems.append(f"{len(leaked)} images {lie}: {few(leaked)}")
    if torn:
        problems.append(f"{len(torn)} images are of two classes: {few(torn)}")
    if again:
        contents.notes.append(f"{again} images are there more than once")
    return contents


def _of_pictures(folder: Path, contents: Contents) -> dict[str, list[Image]]:
    album = lay_open(folder)
    images = {
        split: [(_digest(one), album.name(path), label) for path, label, one in album.read(split)]
        for split in album.splits
    }
    contents.classes, contents.modes = album.classes, dict(album.modes)
    contents.sizes = {f"{width}x{height}": len(of) for (height, width), of in album.sizes.items()}
    contents.notes = [*album.notes, *album.changed()]
    lost = {album.name(path): reason for path, reason in album.unreadable.items()}
    contents.unreadable, problems = lost, contents.problems
    if lost:
        problems.append(f"{len(lost)} of {album.count} images cannot be read: {few(lost)}")
    if len(sizes := contents.sizes) > 1:
        problems.append(f"images are of {len(sizes)} sizes: {few(sizes)}")
    return images


def _of_arrays(path: Path, read: ArraysReader, contents: Contents) -> dict[str, list[Image]]:
    dataset = load_dataset(path, read_arrays=read)
    height, width, channels = dataset.shape
    names = [n for n in SPLITS if n != "validation" or dataset.validation is not dataset.test]
    parts = {"": dataset.whole} if dataset.whole else {n: dataset.split(n) for n in names}
    count = sum(map(len, parts.values()))
    contents.classes, contents.sizes = dataset.classes, {f"{width}x{height}": count}
    contents.modes = {"L" if channels == 1 else "RGB": count}
    contents.notes = list(dataset.origin.get("notes", ()))
    images: dict[str, list[Image]] = {}
    for name, part in parts.items():
        places = (f"{name or 'image'} {place}" for place in range(len(part)))
        images[name] = [*zip(map(_digest, part.images), places, part.labels.tolist(), strict=True)]
    return images


def _digest(pixels: NDArray[np.uint8]) -> str:
    return sha256_bytes(str(pixels.shape).encode(), np.ascontiguousarray(pixels).tobytes())


@CHECKS.register("data.digest")
class DataDigest(Check):
    """The data in the folder have the digests that were asked for, to the byte.

    `data_digests` names files (of the content after decompression) or splits (of the image set);
    where it is empty, the folder must be MNIST. Who pinned them is for the caller to say.
    """

    needs = ("data",)

    def examine(self, target: Target) -> Outcome:
        folder = target.data or Path()
        if not target.data_digests and not (folder.is_dir() and claims_mnist(folder)):
            raise Absent("nothing pins the digests of these data")
        wanted = dict(target.data_digests) or dict(MNIST_DIGESTS)
        files = [name for name in wanted if name not in SPLITS]
        paths = (find_idx(folder, name.removesuffix(".gz")) for name in files)
        actual = {name: open_idx(path).digest for name, path in zip(files, paths, strict=True)}
        if len(files) < len(wanted):
            dataset = _read(folder)
            actual |= {name: dataset.split(name).digest for name in SPLITS if name in wanted}
        differ = sorted(name for name in wanted if actual[name] != wanted[name])
        return Outcome(
            passed=not differ,
            measured=actual,
            threshold=wanted,
            message=f"changed: {', '.join(differ)}" if differ else "",
            inputs=actual,
        )

    def bad_example(self, folder: Path) -> Target:
        _write(folder, np.arange(12) % 3, np.arange(12) % 3)
        path = folder / IDX_FILES[0]
        digest = open_idx(path).digest
        path.write_bytes(path.read_bytes()[:-1] + b"\1")
        return Target(data=folder, data_digests={path.name: digest})


@CHECKS.register("data.schema")
class DataSchema(Check):
    """The files fit together and every class can be learnt."""

    proves = (
        "Each image has one label in range, all images are of one size, no class is missing from "
        "the training images or rare among them, and no image is in two splits or of two classes."
    )
    needs = ("data",)

    def examine(self, target: Target) -> Outcome:
        folder = target.data or Path()
        names = IDX_FILES if has_idx(folder) else ()
        inputs = {name: open_idx(find_idx(folder, name)).digest for name in names}
        threshold: dict[str, list[str]] = {"missing_classes": []}
        try:
            dataset = _read(folder)
        except DataError as error:
            return Outcome(passed=False, threshold=threshold, message=str(error), inputs=inputs)
        present = set(dataset.train.labels.tolist())
        missing = [name for label, name in enumerate(dataset.classes) if label not in present]
        counts = {name: len(dataset.split(name)) for name in SPLITS}
        classes = {"classes": len(dataset.classes), "missing_classes": missing}
        wrong = [f"no training image of class {', '.join(missing)}"] if missing else []
        wrong = wrong or examine(folder, plain_arrays).problems or list(_rare(dataset))
        return Outcome(
            passed=not wrong,
            measured={"counts": counts, "shape": list(dataset.shape), **classes},
            threshold=threshold,
            message="; ".join(wrong),
            inputs=inputs or {name: dataset.split(name).digest for name in SPLITS},
        )

    def bad_example(self, folder: Path) -> Target:
        _write(folder, np.arange(24) % 2 * 2, np.arange(6) % 3)
        return Target(data=folder)


def _rare(dataset: Dataset) -> Iterator[str]:
    """Yield each class that is hardly among the training images."""
    counts = np.bincount(dataset.train.labels, minlength=len(dataset.classes))
    for name, count in zip(dataset.classes, counts.tolist(), strict=True):
        if count < RARE * counts.mean():
            yield f"class {name} is rare: {count} of {len(dataset.train)} training images"


def _read(folder: Path) -> Dataset:
    return load_idx_folder(folder) if has_idx(folder) else load_dataset(folder)


def _write(folder: Path, train: NDArray[np.int64], test: NDArray[np.int64]) -> None:
    for labels, (images, names) in ((train, IDX_FILES[:2]), (test, IDX_FILES[2:])):
        write_idx(folder / images, np.zeros((len(labels), 4, 4), np.uint8))
        write_idx(folder / names, labels.astype(np.uint8))
