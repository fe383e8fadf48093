"""Folders of images, one folder for each class.

    train/<class>/*  and  test/<class>/*     validation/<class>/* too, or 10 % of train
    <class>/*                                80 % train, 10 % validation, 10 % test

Which split an image goes to follows from its pixels alone, so the same image is never in two
of them, and adding images moves none. Classes are sorted by name. Images are opened with
Pillow, of a few formats only, and measured before they are decoded.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.errors import DataError, MissingExtra
from purpleteam.core.progress import SILENT, Progress
from purpleteam.data.dealing import OF_ALL, OF_TRAIN, split_of
from purpleteam.data.idx import MAX_BYTES
from purpleteam.data.images import Dataset, ImageSet

__all__ = ["FORMATS", "MAX_PIXELS", "load_class_folder", "read_image"]

FORMATS = ("PNG", "JPEG", "BMP", "PPM")
"""The image formats that are opened, PGM and PBM among PPM; each parser is attack surface."""
MAX_PIXELS = 16 << 20
"""Most pixels of one image."""
GREY_MODES = ("1", "L", "LA")
GIVEN = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class _Picture:
    path: Path
    label: int
    pixels: NDArray[np.uint8]
    """(H, W, C)."""


def load_class_folder(folder: Path, *, progress: Progress = SILENT) -> Dataset:
    """Return the dataset in a folder of class folders; see the module for the two layouts."""
    roots = {name: folder / name for name in GIVEN if (folder / name).is_dir()}
    if not {"train", "test"} <= set(roots):
        roots = {"": folder}
    first = next(iter(roots.values()))
    classes = tuple(one.name for one in _visible(first, folders=True))
    if len(classes) < 2:
        raise DataError(
            f"{folder}: holds neither the four IDX files nor two class folders, but {len(classes)}"
        )
    pictures = {name: _read_all(root, classes, progress) for name, root in roots.items()}
    channels = _channels([picture for group in pictures.values() for picture in group])
    if "" in pictures:
        groups = _dealt(pictures[""], OF_ALL)
    elif "validation" in pictures:
        groups = pictures
    else:
        groups = pictures | _dealt(pictures["train"], OF_TRAIN)
    parts = {name: _joined(folder, name, groups[name], channels) for name in GIVEN}
    return Dataset(
        name=folder.resolve().name, classes=classes, origin={"folder": str(folder)}, **parts
    )


def read_image(path: Path) -> NDArray[np.uint8]:
    """Return the pixels of an image file: (H, W, 1) where it is grey, else (H, W, 3).

    Transparent pixels are laid on black.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise MissingExtra("Pillow, which reads image files,", "lab") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise DataError(f"{path}: {width}x{height} is over {MAX_PIXELS} pixels")
                return _pixels(image, path)
    except UnidentifiedImageError:
        raise DataError(
            f"{path}: no image of a known format; known: {', '.join(FORMATS)}"
        ) from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Warning) as error:
        raise DataError(f"{path}: cannot be read as an image: {error}") from None


def _pixels(image: Any, path: Path) -> NDArray[np.uint8]:
    if image.mode.startswith(("I", "F")):
        raise DataError(f"{path}: more than 8 bits a channel (mode {image.mode})")
    grey = image.mode in GREY_MODES
    if image.has_transparency_data:
        from PIL import Image

        ground = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(ground, image.convert("RGBA"))
        image = image.convert("RGB")
    pixels: NDArray[np.uint8] = np.asarray(image.convert("L" if grey else "RGB"))
    return pixels[..., None] if grey else pixels


def _visible(folder: Path, *, folders: bool) -> list[Path]:
    """Return what a folder holds, sorted by name; names that begin with a dot are passed over."""
    found = sorted(one for one in folder.iterdir() if not one.name.startswith("."))
    return [one for one in found if one.is_dir() == folders]


def _read_all(root: Path, classes: tuple[str, ...], progress: Progress) -> list[_Picture]:
    strangers = {one.name for one in _visible(root, folders=True)} - set(classes)
    if strangers:
        raise DataError(f"{root}: class {min(strangers)!r} is not in train: {', '.join(classes)}")
    paths = [
        (label, path)
        for label, name in enumerate(classes)
        if (root / name).is_dir()
        for path in _visible(root / name, folders=False)
    ]
    pictures, size = [], 0
    with progress.task(f"reading {root.name}", len(paths)) as task:
        for label, path in paths:
            pictures.append(_Picture(path, label, read_image(path)))
            size += pictures[-1].pixels.size
            if size > MAX_BYTES:
                raise DataError(f"{root}: over {MAX_BYTES} bytes of pixels")
            task.advance()
    return pictures


def _channels(pictures: list[_Picture]) -> int:
    """Return 1 where all images are grey, else 3; refuse images of several sizes."""
    for picture in pictures:
        first = pictures[0]
        if picture.pixels.shape[:2] != first.pixels.shape[:2]:
            raise DataError(
                f"{picture.path}: {_size(picture)}, but {first.path}: {_size(first)}; "
                "all images must be of one size"
            )
    return max((picture.pixels.shape[2] for picture in pictures), default=1)


def _size(picture: _Picture) -> str:
    height, width = picture.pixels.shape[:2]
    return f"{width}x{height}"


def _dealt(pictures: list[_Picture], ends: dict[str, float]) -> dict[str, list[_Picture]]:
    groups: dict[str, list[_Picture]] = {name: [] for name in ends}
    for picture in pictures:
        groups[split_of(picture.pixels, ends)].append(picture)
    return groups


def _joined(folder: Path, name: str, pictures: list[_Picture], channels: int) -> ImageSet:
    if not pictures:
        raise DataError(f"{folder}: too few images: none is in the {name} split")
    shape = (*pictures[0].pixels.shape[:2], channels)
    images = np.stack([np.broadcast_to(picture.pixels, shape) for picture in pictures])
    return ImageSet(images, np.array([picture.label for picture in pictures], np.int64))
