"""A reference to a dataset: a name that Purpleteam knows, a folder, a file or a factory.

Of four IDX files the last twelfth of the training file is the validation split (60,000 -> 5,000),
unless a manifest.json that Purpleteam wrote says where it begins.
"""

import inspect
import json
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from purpleteam.core.config import build, options_of, parse_part
from purpleteam.core.digest import canonical_json
from purpleteam.core.errors import DataError, UsageError, unknown
from purpleteam.core.factory import is_factory
from purpleteam.core.progress import SILENT, Progress
from purpleteam.data import arrays, idx
from purpleteam.data.class_folders import load_class_folder, text_of
from purpleteam.data.images import SPLITS, Dataset
from purpleteam.data.pictures import Reading
from purpleteam.data.sources import DATASETS

MANIFEST = "manifest.json"
FIELDS = re.compile(r":(\w+=.*)$", re.DOTALL)  # of `Reading`, behind the name of a dataset


def load_dataset(
    reference: str | Path,
    *,
    read_arrays: arrays.ArraysReader = arrays.plain_arrays,
    progress: Progress = SILENT,
) -> Dataset:
    """Return the dataset of a name in `DATASETS`, in a folder or file, or that a factory makes.

    Args:
        reference: a name, a folder, a file of arrays or `module:factory`, and behind a colon
            what the function of that name takes, `drawn_shapes:classes=100,hard=true`, or how image
            files are read: `my_images:resize=32,skip_unreadable=true`.
        read_arrays: reads a file of arrays; the default takes .npz and .npy alone, and
            `scan.formats.read_arrays` pickled ones too, of which nothing is unpickled.
        progress: where to report.

    Raises:
        UsageError: there is no such name and no such folder.
        DataError: the data are damaged, or not what they claim to be.
    """
    name, reading, values = str(reference), None, dict[str, Any]()
    given = FIELDS.search(name)
    if given is not None and not Path(name).exists():
        name, values = name[: given.start()], parse_part(f"dataset:{given[1]}")[1]
    if name in DATASETS:
        source, kind = DATASETS[name], options_of(DATASETS[name])
        if values and not fields(kind):
            reason = "takes no fields and is no folder of image files"
            raise UsageError(f"dataset {name!r} {reason}: {reference!r}")
        options: Any = build(kind, values, f"dataset {name}")
        asked: dict[str, Any] = {key: getattr(options, key) for key in values}
        if "progress" in inspect.signature(source).parameters:
            asked["progress"] = progress
        made = source(**asked)
        if not Path(name).is_dir():
            return made
        other = f"{name!r} is the data set of that name, not the folder here: that is './{name}'"
        notes = (*made.origin.get("notes", ()), other)
        return replace(made, origin={**made.origin, "notes": notes})
    if values:
        reading = build(Reading, values, f"dataset {str(reference)!r}")
    known, colon, rest = name.partition(":")
    if colon and known in DATASETS and not Path(f"{known}.py").exists():
        form = f"{known}:field=value"
        raise UsageError(f"dataset {str(reference)!r}: {rest!r} is not of the form {form}")
    folder = Path(name)
    is_file, has_idx = arrays.is_array_file(folder), idx.has_idx(folder)
    factory = is_factory(name) and not folder.is_dir()
    if reading is not None and (is_file or has_idx or factory):
        raise UsageError(f"dataset {name!r} is no folder of image files: {reference!r}")
    if factory:
        from purpleteam.data.objects import load_maite

        return load_maite(name, progress=progress)
    if not is_file and (not name or not folder.is_dir()):
        known = unknown("dataset", name, DATASETS)
        raise UsageError(f"{known}, or a folder, or module:factory (MAITE)")
    if has_idx:
        return load_idx_folder(folder)
    if is_file or (reading is None and arrays.array_files(folder)):
        return arrays.load_arrays(folder, read_arrays)
    return load_class_folder(folder, reading, progress=progress)


def load_idx_folder(folder: Path) -> Dataset:
    """Return the dataset in a folder of the four IDX files; its manifest must be true."""
    files, both, test = idx.read_four(folder)
    if both.images.shape[1:] != test.images.shape[1:]:
        forms = f"{both.images.shape[1:]}, test images {test.images.shape[1:]}"
        raise DataError(f"{folder}: training images are {forms}")
    place = folder / MANIFEST
    try:
        manifest = json.loads(text_of(place)) if place.is_file() else {}
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: no readable JSON: {error}") from None
    if not isinstance(manifest, dict):
        raise DataError(f"{place}: must be a JSON object, not {type(manifest).__name__}")
    start, digests = len(both) - max(1, len(both) // 12), {}
    if "splits" in manifest:
        try:
            said = [manifest["splits"][name] for name in SPLITS]
            digests = {name: str(split["digest"]) for name, split in zip(SPLITS, said, strict=True)}
            start, validation, _ = (int(split["n"]) for split in said)
        except (KeyError, TypeError, ValueError):
            wanted = f"n and digest of {', '.join(SPLITS)}"
            raise DataError(f"{place}: 'splits' must give {wanted}") from None
        if start + validation != len(both) or start < 0 or validation < 1:
            sizes = f"{start} train and {validation} validation images"
            raise DataError(f"{place}: {sizes}, but the training file holds {len(both)}")
    elif len(both) < 2:
        raise DataError(f"{folder}: {len(both)} training images cannot be split in two")
    count = 1 + max(int(part.labels.max(initial=0)) for part in (both, test))
    names = manifest.get("classes", [str(label) for label in range(count)])
    if not isinstance(names, list) or len(names) < count:
        raise DataError(f"{place}: 'classes' must list at least {count} names")
    dataset = Dataset(
        name=str(manifest.get("name", folder.resolve().name)),
        train=both.part(0, start),
        validation=both.part(start),
        test=test,
        classes=tuple(map(str, names)),
        origin={
            "folder": str(folder),
            "files": {name: file.digest for name, file in files.items()},
            "manifest": manifest,
        },
    )
    for name, digest in digests.items():
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
    kind = np.uint8 if len(dataset.classes) <= 256 else np.int32
    digests, names = {}, iter(idx.IDX_FILES)
    for parts in ((dataset.train, dataset.validation), (dataset.test,)):
        pixels = np.concatenate([part.images for part in parts])
        labels = np.concatenate([part.labels for part in parts]).astype(kind)
        for array in (pixels[..., 0] if pixels.shape[3] == 1 else pixels, labels):
            path = folder / f"{(name := next(names))}.gz"
            idx.write_idx(path, array)
            digests[name] = idx.open_idx(path).digest
    splits = {name: dataset.split(name) for name in SPLITS}
    own = {
        "format": "purpleteam-dataset-1",
        "name": dataset.name,
        "classes": list(dataset.classes),
        "splits": {name: {"n": len(part), "digest": part.digest} for name, part in splits.items()},
        "files": digests,
    }
    (folder / MANIFEST).write_text(canonical_json({**(manifest or {}), **own}) + "\n", "utf-8")
    return folder
