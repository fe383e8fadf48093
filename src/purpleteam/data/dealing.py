"""Which split an image goes to, where nobody says: it follows from the image's pixels alone.

So the same image is never in two splits, and adding images moves none, unless a split would lack
a class of three different images or more: then it gets the image of that class nearest to it.

    nothing named, or train alone   80 % train, 10 % validation, 10 % test; attack and evaluate
                                    use all images
    train and test                  validation is 10 % of train
    train and validation            validation is the test split, and 10 % of train validates
    test alone, or validation       nothing can be trained; the same images stand for validation
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.digest import sha256_bytes
from purpleteam.core.errors import DataError
from purpleteam.data.images import ImageSet

OF_ALL = {"train": 0.8, "validation": 0.9, "test": 1.0}
"""Where each split ends in [0, 1) when all three come from one pile of images."""

OF_TRAIN = {"train": 0.9, "validation": 1.0}
"""The same when only the validation split is missing."""

FEWEST = 3
"""Different images of a class that is in every split; a rarer one is where its places are."""

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "val", "valid", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval"), "test"),
}
"""What the splits are called in other people's folders and files, in any case."""


def splits_from(piles: Mapping[str, ImageSet], where: str) -> dict[str, Any]:
    """Return the fields of a Dataset that hold its images, from the splits that there are.

    Args:
        piles: images by split, "" for those of none; empty ones are as if they were not there.
        where: names the set in errors.

    Raises:
        DataError: there are too few images.
    """
    given = {name: pile for name, pile in piles.items() if len(pile)}
    if "" in given and len(given) > 1:  # such as data_batch_1 beside test_batch
        given["train"] = given.pop("")
    if not given:
        raise DataError(f"{where}: too few images: there is none")
    if set(given) in ({""}, {"train"}):
        whole = next(iter(given.values()))
        places = np.array([_place(image) for image in whole.images])
        parts = _dealt(whole, places, OF_ALL, where)
        return {**parts, "whole": whole.take(np.argsort(places, kind="stable"))}
    if "train" not in given:
        some = next(iter(given.values()))
        test = given.get("test", some)
        return {"train": some.part(0, 0), "validation": given.get("validation", test), "test": test}
    if set(given) == {"train", "test", "validation"}:
        return given
    test = given["test"] if "test" in given else given["validation"]
    places = np.array([_place(image) for image in given["train"].images])
    return {**_dealt(given["train"], places, OF_TRAIN, where), "test": test}


def _place(pixels: NDArray[Any]) -> float:
    mark = sha256_bytes(str(pixels.shape).encode(), pixels.tobytes())
    return int(mark[7:20], 16) / 16**13


def _dealt(
    pile: ImageSet, places: NDArray[np.float64], ends: Mapping[str, float], where: str
) -> dict[str, ImageSet]:
    names = list(ends)
    if (count := len(np.unique(places))) < len(names):
        raise DataError(
            f"{where}: too few images: none is in the {names[count]} split when "
            f"{count} different ones are dealt to {', '.join(names)}"
        )
    dealt = np.searchsorted(list(ends.values()), places, side="right")
    torn = _torn(places, pile.labels)
    for label in np.unique(pile.labels):
        own = (pile.labels == label) & ~torn
        if len(np.unique(places[own])) >= FEWEST:
            dealt[own] = _cut(places[own], ends)
    if len(np.unique(dealt)) < len(names):  # no class has enough of them
        dealt = _cut(places, ends)
    return {name: pile.take(np.flatnonzero(dealt == number)) for number, name in enumerate(names)}


def _cut(places: NDArray[np.float64], ends: Mapping[str, float]) -> NDArray[np.intp]:
    """Return the number of the split of each image: by its place, and none is left empty."""
    distinct = np.unique(places)
    cuts: list[int] = []
    for number, end in enumerate(list(ends.values())[:-1], start=1):
        natural = int(np.searchsorted(distinct, end))
        least = cuts[-1] + 1 if cuts else 1
        cuts.append(min(max(natural, least), len(distinct) - len(ends) + number))
    return np.searchsorted(cuts, np.searchsorted(distinct, places), side="right")


def _torn(places: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which images are there under another label too: no class moves them by itself."""
    pairs = np.unique(np.stack([places, labels.astype(np.float64)]), axis=1)
    found, counts = np.unique(pairs[0], return_counts=True)
    return np.isin(places, found[counts > 1])
