"""A reference to a dataset: a name that Purpleteam knows, a folder or a factory of yours.

A folder of the four IDX files is read as MNIST is split: the last twelfth of the training file
is the validation split (60,000 -> 5,000), unless a manifest.json that Purpleteam wrote says
where it begins. A file of arrays, or a folder of such, is read by `arrays`; any other folder by
`class_folders`, as the fields of `Reading` behind its name say: `my_images:resize=32`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from purpleteam.core.config import build, parse_part
from purpleteam.core.digest import canonical_json
from purpleteam.core.errors import DataError, UsageError, unknown
from purpleteam.core.factory import is_factory
from purpleteam.core.progress import SILENT, Progress
from purpleteam.data.arrays import (
    ArraysReader,
    array_files,
    is_array_file,
    load_arrays,
    plain_arrays,
)
from purpleteam.data.class_folders import load_class_folder
from purpleteam.data.idx import IDX_FILES, find_idx, has_idx, image_set, open_idx, write_idx
from purpleteam.data.images import SPLITS, Dataset, ImageSet
from purpleteam.data.pictures import Reading

MANIFEST = "manifest.json"
MAX_MANIFEST = 64 << 20
NAMES = ("digits", "mnist")
FIELDS = re.compile(r":(\w+=.*)$", re.DOTALL)
"""How image files are read, behind the name of a dataset."""


def load_dataset(
    reference: str | Path,
    *,
    read_arrays: ArraysReader = plain_arrays,
    progress: Progress = SILENT,
) -> Dataset:
    """Return the dataset `mnist` or `digits`, one in a folder or file, or what a factory makes.

    Args:
        reference: a name, a folder, a file of arrays or `module:factory`, and behind a colon
            how image files are read: `my_images:resize=32,skip_unreadable=true`.
        read_arrays: reads a file of arrays; the default takes .npz and .npy alone, and
            `pipeline.importing.read_arrays` pickled ones too, of which nothing is unpickled.
        progress: where to report.

    Raises:
        UsageError: there is no such name and no such folder.
        DataError: what is there is damaged, or is not what it says it is.
    """
    name, reading = _asked(str(reference))
    folder = Path(name)
    known = name in NAMES or has_idx(folder) or is_array_file(folder)
    factory = is_factory(name) and not folder.is_dir()
    if reading is not None and (known or factory):
        raise UsageError(f"dataset {name!r} is no folder of image files: {reference!r}")
    if name == "mnist":
        from purpleteam.data.sources.mnist import load_mnist

        return load_mnist(progress=progress)
    if name == "digits":
        from purpleteam.data.sources.digits import load_digits

        return load_digits()
    if factory:
        from purpleteam.data.maite import load_maite

        return load_maite(name, progress=progress)
    if is_array_file(folder):
        return load_arrays(folder, read_arrays)
    if not name or not folder.is_dir():
        raise UsageError(
            f"{unknown('dataset', name, NAMES)}, or a folder, or module:factory (MAITE)"
        )
    if has_idx(folder):
        return load_idx_folder(folder)
    if reading is None and array_files(folder):
        return load_arrays(folder, read_arrays)
    return load_class_folder(folder, reading, progress=progress)


def _asked(reference: str) -> tuple[str, Reading | None]:
    """Return the name of a dataset, and how its image files are read where that is said."""
    found = FIELDS.search(reference)
    if found is None or Path(reference).exists():
        return reference, None
    _, values = parse_part(f"dataset:{found[1]}")
    return reference[: found.start()], build(Reading, values, f"dataset {reference!r}")


def load_idx_folder(folder: Path) -> Dataset:
    """Return the dataset in a folder of the four IDX files; its manifest must be true."""
    files = {name: open_idx(find_idx(folder, name)) for name in IDX_FILES}
    whole, test = (
        image_set(files[images], files[labels]) for images, labels in (IDX_FILES[:2], IDX_FILES[2:])
    )
    if whole.images.shape[1:] != test.images.shape[1:]:
        raise DataError(
            f"{folder}: training images are {whole.images.shape[1:]}, "
            f"test images {test.images.shape[1:]}"
        )
    manifest = read_manifest(folder)
    promised = _promises(folder, manifest)
    start = len(whole) - _held_out(folder, len(whole), promised)
    dataset = Dataset(
        name=str(manifest.get("name", folder.resolve().name)),
        train=whole.part(0, start),
        validation=whole.part(start),
        test=test,
        classes=_class_names(folder, manifest, 1 + max(_largest(whole), _largest(test))),
        origin={
            "folder": str(folder),
            "files": {name: file.digest for name, file in files.items()},
            "manifest": manifest,
        },
    )
    for name, (_, digest) in promised.items():
        if (found := dataset.split(name).digest) != digest:
            raise DataError(f"{folder}: {name} is {found}, but its manifest says {digest}")
    return dataset


def save_dataset(dataset: Dataset, folder: Path, manifest: Mapping[str, Any] | None = None) -> Path:
    """Write a dataset as four IDX files with a manifest, and return the folder.

    The training file holds the train split, then the validation split. The manifest names the
    classes, each split's size and digest and each file's content digest; the entries of
    `manifest` (a poisoned set's trigger, indices, target, seed, parent) are added to these.
    """
    folder.mkdir(parents=True, exist_ok=True)
    own = {
        "format": "purpleteam-dataset-1",
        "name": dataset.name,
        "classes": list(dataset.classes),
        "splits": {
            name: {"n": len(dataset.split(name)), "digest": dataset.split(name).digest}
            for name in SPLITS
        },
        "files": _write_four(dataset, folder),
    }
    (folder / MANIFEST).write_text(canonical_json({**(manifest or {}), **own}) + "\n", "utf-8")
    return folder


def _write_four(dataset: Dataset, folder: Path) -> dict[str, str]:
    """Write the four files and return the digest of each one's content."""
    if len(dataset.classes) > 256:
        raise DataError(f"{folder}: IDX holds at most 256 classes, not {len(dataset.classes)}")
    digests = {}
    files = (((dataset.train, dataset.validation), IDX_FILES[:2]), ((dataset.test,), IDX_FILES[2:]))
    for parts, (images, labels) in files:
        pixels = np.concatenate([part.images for part in parts])
        answers = np.concatenate([part.labels for part in parts])
        grey = pixels[..., 0] if pixels.shape[3] == 1 else pixels
        for name, array in ((images, grey), (labels, answers.astype(np.uint8))):
            write_idx(folder / f"{name}.gz", array)
            digests[name] = open_idx(folder / f"{name}.gz").digest
    return digests


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest.json of a folder, or nothing where there is none."""
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    if path.stat().st_size > MAX_MANIFEST:
        raise DataError(f"{path}: over {MAX_MANIFEST} bytes")
    try:
        manifest = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: no readable JSON: {error}") from None
    if not isinstance(manifest, dict):
        raise DataError(f"{path}: must be a JSON object, not {type(manifest).__name__}")
    return manifest


def _promises(folder: Path, manifest: Mapping[str, Any]) -> dict[str, tuple[int, str]]:
    """Return what a manifest says about each split: its size and its digest."""
    if "splits" not in manifest:
        return {}
    try:
        splits = {name: manifest["splits"][name] for name in SPLITS}
        return {name: (int(one["n"]), str(one["digest"])) for name, one in splits.items()}
    except (KeyError, TypeError, ValueError):
        raise DataError(
            f"{folder / MANIFEST}: 'splits' must give n and digest of {', '.join(SPLITS)}"
        ) from None


def _held_out(folder: Path, count: int, promised: Mapping[str, tuple[int, str]]) -> int:
    """Return how many of the training file's images are the validation split."""
    if not promised:
        if count < 2:
            raise DataError(f"{folder}: {count} training images cannot be split in two")
        return max(1, count // 12)
    sizes = [promised[name][0] for name in ("train", "validation")]
    if sum(sizes) != count or sizes[0] < 0 or sizes[1] < 1:
        raise DataError(
            f"{folder / MANIFEST}: {sizes[0]} train and {sizes[1]} validation images, "
            f"but the training file holds {count}"
        )
    return sizes[1]


def _class_names(folder: Path, manifest: Mapping[str, Any], labels: int) -> tuple[str, ...]:
    if "classes" not in manifest:
        return tuple(str(label) for label in range(labels))
    names = manifest["classes"]
    if not isinstance(names, list) or len(names) < labels:
        raise DataError(f"{folder / MANIFEST}: 'classes' must list at least {labels} names")
    return tuple(str(name) for name in names)


def _largest(part: ImageSet) -> int:
    return int(part.labels.max(initial=0))
