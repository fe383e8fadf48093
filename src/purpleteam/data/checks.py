"""What is proved about the data files: that they are the pinned ones, and that they make sense."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.checks import CHECKS, Check, Outcome, Target
from purpleteam.core.errors import DataError, UsageError
from purpleteam.data.folders import load_dataset, load_idx_folder
from purpleteam.data.idx import IDX_FILES, find_idx, has_idx, open_idx, write_idx
from purpleteam.data.images import SPLITS, Dataset
from purpleteam.data.sources.mnist import MNIST_DIGESTS

__all__ = ["DataDigest", "DataSchema"]


@CHECKS.register("data.digest")
class DataDigest(Check):
    """The folder holds the images that were asked for, byte for byte.

    `data_digests` names files (digest of the content after decompression) or splits (digest of
    the image set); where it is empty, the folder must be MNIST. Whether somebody pinned those
    digests before, or the run took them from the folder itself, is for the caller to say.
    """

    id = "data.digest"
    proves = "The data in the folder have the digests that were asked for, to the byte."
    needs = ("data",)

    def examine(self, target: Target) -> Outcome:
        folder = _folder(target)
        wanted = dict(target.data_digests) or dict(MNIST_DIGESTS)
        splits = _read(folder) if set(wanted) & set(SPLITS) else None
        found = {
            name: splits.split(name).digest
            if splits and name in SPLITS
            else open_idx(find_idx(folder, name.removesuffix(".gz"))).digest
            for name in wanted
        }
        differ = sorted(name for name in wanted if found[name] != wanted[name])
        return Outcome(
            passed=not differ,
            measured=found,
            threshold=wanted,
            message=f"changed: {', '.join(differ)}" if differ else "",
            inputs=found,
        )

    def bad_example(self, folder: Path) -> Target:
        labels = np.arange(12) % 3
        _write(folder, labels, labels)
        name = IDX_FILES[0]
        digest = open_idx(folder / name).digest
        content = bytearray((folder / name).read_bytes())
        content[-1] ^= 1
        (folder / name).write_bytes(content)
        return Target(data=folder, data_digests={name: digest})


@CHECKS.register("data.schema")
class DataSchema(Check):
    """The files fit together and every class can be learnt."""

    id = "data.schema"
    proves = (
        "Each image has one label in range, all images are of one size, "
        "and no class is missing from the training images."
    )
    needs = ("data",)

    def examine(self, target: Target) -> Outcome:
        folder = _folder(target)
        names = IDX_FILES if has_idx(folder) else ()
        inputs = {name: open_idx(find_idx(folder, name)).digest for name in names}
        threshold: dict[str, list[str]] = {"missing_classes": []}
        try:
            dataset = _read(folder)
        except DataError as error:
            return Outcome(passed=False, threshold=threshold, message=str(error), inputs=inputs)
        inputs = inputs or {name: dataset.split(name).digest for name in SPLITS}
        missing = _missing(dataset)
        return Outcome(
            passed=not missing,
            measured={
                "counts": {name: len(dataset.split(name)) for name in SPLITS},
                "shape": list(dataset.shape),
                "classes": len(dataset.classes),
                "missing_classes": missing,
            },
            threshold=threshold,
            message=f"no training image of class {', '.join(missing)}" if missing else "",
            inputs=inputs,
        )

    def bad_example(self, folder: Path) -> Target:
        _write(folder, np.arange(24) % 2 * 2, np.arange(6) % 3)
        return Target(data=folder)


def _read(folder: Path) -> Dataset:
    return load_idx_folder(folder) if has_idx(folder) else load_dataset(folder)


def _missing(dataset: Dataset) -> list[str]:
    present = set(dataset.train.labels.tolist())
    return [name for label, name in enumerate(dataset.classes) if label not in present]


def _folder(target: Target) -> Path:
    if target.data is None:
        raise UsageError("a data check needs a folder of images")
    return target.data


def _write(folder: Path, train: NDArray[np.int64], test: NDArray[np.int64]) -> None:
    """Write a tiny set with these labels, its images blank."""
    for labels, (images, names) in ((train, IDX_FILES[:2]), (test, IDX_FILES[2:])):
        write_idx(folder / images, np.zeros((len(labels), 4, 4), np.uint8))
        write_idx(folder / names, labels.astype(np.uint8))
