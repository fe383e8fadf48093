"""What arrays of other people mean: axes, ranges of pixels, forms of labels; each guess is told."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.errors import DataError
from purpleteam.data.pictures import few

__all__ = ["Found", "images_of", "labels_of", "side_of"]

MAX_ENTRIES = 1 << 30
ROUNDING = 1e-3
"""How far above 1 a float may be and still be meant as white."""
OVER = 2
"""Floats up to here are no pixels from 0 to 255, all of which would be black."""


@dataclass
class Found:
    """What the arrays of a set turned out to be."""

    images: dict[str, list[NDArray[np.uint8]]] = field(default_factory=dict)
    labels: dict[str, list[NDArray[Any]]] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)


def side_of(size: int) -> tuple[int, int] | None:
    """Return channels and side of a square image that lies flat, or None."""
    for channels in (1, 3):
        side = math.isqrt(size // channels)
        if channels * side * side == size:
            return channels, side
    return None


def images_of(
    name: str, array: NDArray[Any], count: int, where: str, found: Found
) -> NDArray[np.uint8]:
    """Return images as uint8 (N, H, W, C); say what axes and values were taken for."""
    place = f"{where}: images {name!r}"
    if array.size > MAX_ENTRIES:
        raise DataError(f"{place} hold {array.size} numbers, at most {MAX_ENTRIES} are read")
    if array.ndim == 4 and array.shape[3] == count != array.shape[0]:
        array = np.moveaxis(array, 3, 0)
        found.notes.append(f"{name!r} is taken as (H, W, C, N)")
    if array.ndim == 2 and (form := side_of(array.shape[1])):
        channels, side = form
        array = array.reshape(len(array), channels, side, side)
        found.notes.append(f"{name!r} lies flat and is taken as {channels}x{side}x{side}")
    elif array.ndim == 3:
        array = array[:, None]
    axis = _channels(array.shape)
    if axis is None:
        raise DataError(
            f"{place} are {array.shape}, not (N, H, W), (N, H, W, C) or (N, C, H, W) with 1, 3 or "
            "4 channels"
        )
    if axis == 1:
        if array.shape[1] > 1:
            found.notes.append(f"{name!r} is taken as (N, C, H, W)")
        array = np.moveaxis(array, 1, 3)
    array = _bytes(array, name, place, found)
    if array.shape[3] == 4:
        found.notes.append(f"the fourth channel of {name!r} is transparency: laid on black")
        opaque = array[..., 3:].astype(np.uint16)
        array = ((array[..., :3] * opaque + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(array)


def _channels(shape: tuple[int, ...]) -> int | None:
    """Return the axis of 1, 3 or 4 channels: the last of (N, H, W, C) or the first of an image.

    Where both have 1 or 3, it is the one of grey images, else the last; 4 must be the shortest.
    """
    if len(shape) != 4 or 0 in shape[1:]:
        return None
    for channels in (1, 3):
        for axis in (3, 1):
            if shape[axis] == channels:
                return axis
    return next((one for one in (3, 1) if shape[one] == 4 and sorted(shape[1:])[1] > 4), None)


def _bytes(array: NDArray[Any], name: str, place: str, found: Found) -> NDArray[np.uint8]:
    """Return pixels as uint8, by the range that they are in."""
    if array.size == 0:
        return np.zeros(array.shape, np.uint8)
    if array.dtype.kind not in "biuf":
        raise DataError(f"{place} are {array.dtype}, not numbers")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        wrong = int((~np.isfinite(array)).reshape(len(array), -1).any(1).sum())
        raise DataError(f"{place}: {wrong} of {len(array)} hold NaN or infinite values")
    low, high = float(array.min()), float(array.max())
    if low < 0:
        raise DataError(
            f"{place} go from {low:g} to {high:g}: they look normalised; store pixels from 0 to "
            "255 or 0 to 1, and leave normalisation to the model (--normalise)"
        )
    whole = array.dtype.kind in "biu"
    if high > 255 and not (whole and high <= 65535):
        raise DataError(f"{place} go up to {high:g}, not 255, 1 or (whole numbers) 65535")
    if high > 255:
        found.notes.append(f"{name!r} has 16 bits and was scaled to 8")
        return ((array.astype(np.int64) + 128) // 257).astype(np.uint8)
    if not whole and 1 < high < OVER:
        if high > 1 + ROUNDING:
            raise DataError(
                f"{place} go up to {high:g}, a little over 1: store floats from 0 to 1, as "
                "x.clip(0, 1) are, or pixels from 0 to 255"
            )
        array, high = array.clip(0, 1), 1.0
    if high <= 1 and (array.dtype.kind in "bf" or high == 1):
        form = "0 and 1" if whole else "floats in [0, 1]"
        steps = array.astype(np.float64) * 255
        rounded = abs(steps - np.rint(steps)).reshape(len(array), -1).max(1) > 1e-3
        between = f", {int(rounded.sum())} of them rounded to 1/255" if rounded.any() else ""
        found.notes.append(f"{name!r} holds {form}: taken as pixels times 255{between}")
        return np.asarray(np.rint(steps), np.uint8)
    if array.dtype.kind == "f":
        found.notes.append(f"{name!r} holds floats up to {high:g}: taken as pixels from 0 to 255")
        array = np.rint(array)
    return array.astype(np.uint8)


def labels_of(name: str, array: NDArray[Any], where: str, found: Found) -> NDArray[Any]:
    """Return labels (N,) as whole numbers or text."""
    place = f"{where}: labels {name!r}"
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2 and array.dtype.kind in "biuf":
        if not (((array == 0) | (array == 1)).all() and (array.sum(1) == 1).all()):
            raise DataError(
                f"{place} are {array.dtype} {array.shape}, neither one number for each image nor "
                "one-hot rows"
            )
        found.notes.append(f"{name!r} is one-hot: its {array.shape[1]} columns are the classes")
        if not found.names:
            found.names = tuple(str(number) for number in range(array.shape[1]))
        return np.asarray(array.argmax(1))
    if array.ndim != 1 or array.dtype.kind not in "biufUS":
        raise DataError(f"{place} are {array.dtype} {array.shape}, not one for each image")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all() or (array != np.rint(array)).any():
            raise DataError(f"{place} are no whole numbers: {few(np.unique(array)[:4].tolist())}")
        array = array.astype(np.int64)
    if array.dtype.kind == "b":
        array = array.astype(np.int64)
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8", "replace")
    return array
