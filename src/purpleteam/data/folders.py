"""A reference to a dataset: a name that Purpleteam knows, a folder or a factory of yours.

A folder of the four IDX files is read as MNIST is split: the last twelfth of the training file
is the validation split (60,000 -> 5,000), unless a manifest.json that Purpleteam wrote says
where it begins. A file of arrays, or a folder of such, is read by `arrays`; any other folder by
`class_folders`, as the fields of `Reading` behind its name say: `my_images:resize=32`.
"""

from __future__ import annotations

import inspect
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
from purpleteam.data.images import SPLITS, Dataset
from purpleteam.data.pictures import Reading
from purpleteam.data.sources import DATASETS

MANIFEST = "manifest.json"
MAX_MANIFEST = 64 << 20
FIELDS = re.compile(r":(\w+=.*)$", re.DOTALL)
"""How image files are read, behind the name of a dataset."""


def load_dataset(
    reference: str | Path, *, read_arrays: ArraysReader = plain_arrays, progress: Progress = SILENT
) -> Dataset:
    """Return the dataset of a name in `DATASETS`, in a folder or file, or that a factory makes.

    Args:
        reference: a name, a folder, a file of arrays or `module:factory`, and behind a colon
            how image files are read: `my_images:resize=32,skip_unreadable=true`.
        read_arrays: reads a file of arrays; the default takes .npz and .npy alone, and
            `scan.formats.read_arrays` pickled ones too, of which nothing is unpickled.
        progress: where to report.

    Raises:
        UsageError: there is no such name and no such folder.
        DataError: what is there is damaged, or is not what it says it is.
    """
    name, reading = str(reference), None
    fields = FIELDS.search(name)
    if fields is not None and not Path(name).exists():
        _, values = parse_part(f"dataset:{fields[1]}")
        reading = build(Reading, values, f"dataset {name!r}")
        name = name[: fields.start()]
    folder = Path(name)
    known = name in DATASETS or has_idx(folder) or is_array_file(folder)
    factory = is_factory(name) and not folder.is_dir()
    if reading is not None and (known or factory):
        raise UsageError(f"dataset {name!r} is no folder of image files: {reference!r}")
    if name in DATASETS:
        source = DATASETS[name]
        reports = "progress" in inspect.signature(source).parameters
        return source(progress=progress) if reports else source()
    if factory:
        from purpleteam.data.objects import load_maite

        return load_maite(name, progress=progress)
    if is_array_file(folder):
        return load_arrays(folder, read_arrays)
    if not name or not folder.is_dir():
        raise UsageError(
            f"{unknown('dataset', name, DATASETS)}, or a folder, or module:factory (MAITE)"
        )
    if has_idx(folder):
        return load_idx_folder(folder)
    if reading is None and array_files(folder):
        return load_arrays(folder, read_arrays)
    return load_class_folder(folder, reading, progress=progress)


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
    count = 1 + max(int(part.labels.max(initial=0)) for part in (whole, test))
    names = manifest.get("classes", [str(label) for label in range(count)])
    if not isinstance(names, list) or len(names) < count:
        raise DataError(f"{folder / MANIFEST}: 'classes' must list at least {count} names")
    dataset = Dataset(
        name=str(manifest.get("name", folder.resolve().name)),
        train=whole.part(0, start),
        validation=whole.part(start),
        test=test,
        classes=tuple(map(str, names)),
        origin={
            "folder": str(folder),
            "files": {name: file.digest for name, file in files.items()},
            "manifest": manifest,
        },
    )
    for name, (_, digest) in promised.items():
        if (actual := dataset.split(name).digest) != digest:
            raise DataError(f"{folder}: {name} is {actual}, but its manifest says {digest}")
    return dataset


def save_dataset(dataset: Dataset, folder: Path, manifest: Mapping[str, Any] | None = None) -> Path:
    """Write a dataset as four IDX files with a manifest, and return the folder.

    The training file holds the train split, then the validation split. The manifest names the
    classes, each split's size and digest and each file's content digest; the entries of
    `manifest` (a poisoned set's trigger, indices, target, seed, parent) are added to these.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if len(dataset.classes) > 256:
        raise DataError(f"{folder}: IDX holds at most 256 classes, not {len(dataset.classes)}")
    digests = {}
    files = (((dataset.train, dataset.validation), IDX_FILES[:2]), ((dataset.test,), IDX_FILES[2:]))
    for parts, (images, labels) in files:
        pixels = np.concatenate([part.images for part in parts])
        answers = np.concatenate([part.labels for part in parts]).astype(np.uint8)
        grey = pixels[..., 0] if pixels.shape[3] == 1 else pixels
        for name, array in ((images, grey), (labels, answers)):
            write_idx(folder / f"{name}.gz", array)
            digests[name] = open_idx(folder / f"{name}.gz").digest
    own = {
        "format": "purpleteam-dataset-1",
        "name": dataset.name,
        "classes": list(dataset.classes),
        "splits": {
            name: {"n": len(dataset.split(name)), "digest": dataset.split(name).digest}
            for name in SPLITS
        },
        "files": digests,
    }
    (folder / MANIFEST).write_text(canonical_json({**(manifest or {}), **own}) + "\n", "utf-8")
    return folder


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
        return {name: (int(split["n"]), str(split["digest"])) for name, split in splits.items()}
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
