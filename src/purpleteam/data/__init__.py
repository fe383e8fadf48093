"""Images and where they come from; no torch, and instant to import.

- `images`         ImageSet and Dataset: frozen uint8 images with labels and a digest
- `folders`        `load_dataset("mnist" | "digits" | FOLDER)`, and writing one as IDX files
- `class_folders`  one folder of image files for each class;  `maite`: what a factory returns
- `pictures`       image files of every form;  `labels`: a file that gives each its label
- `arrays`         .npz, .npy and pickled files;  `array_forms`: axes, ranges, kinds of labels
- `dealing`        which split an image goes to, where nobody says: its pixels decide
- `idx`            the IDX format, read as input from strangers
- `sources`        the sets known by name: `mnist` (pinned digests, `fetch`) and `digits`
- `drawing`        a drawing of any size -> 28x28, the one preprocessing; `redraw` tests it
- `checks`         data.digest and data.schema
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from purpleteam.data.drawing import EmptyDrawing, place, strokes
    from purpleteam.data.folders import load_dataset, save_dataset
    from purpleteam.data.images import SPLITS, Dataset, ImageSet
    from purpleteam.data.sources.digits import load_digits as digits
    from purpleteam.data.sources.mnist import fetch_mnist, verify_folder
    from purpleteam.data.sources.mnist import load_mnist as mnist

__all__ = [
    "SPLITS",
    "Dataset",
    "EmptyDrawing",
    "ImageSet",
    "digits",
    "fetch_mnist",
    "load_dataset",
    "mnist",
    "place",
    "save_dataset",
    "strokes",
    "verify_folder",
]

_HOMES = {
    "SPLITS": "images",
    "Dataset": "images",
    "EmptyDrawing": "drawing",
    "ImageSet": "images",
    "digits": "sources.digits:load_digits",
    "fetch_mnist": "sources.mnist",
    "load_dataset": "folders",
    "mnist": "sources.mnist:load_mnist",
    "place": "drawing",
    "save_dataset": "folders",
    "strokes": "drawing",
    "verify_folder": "sources.mnist",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'purpleteam.data' has no attribute {name!r}")
    module, _, other = _HOMES[name].partition(":")
    return getattr(import_module(f"{__name__}.{module}"), other or name)


def __dir__() -> list[str]:
    return list(__all__)
