"""The embedded default: 1,797 real handwritten digits that scikit-learn brings along.

UCI's optical digits (Alpaydin and Kaynak, 1998), 8x8 with 17 grey levels, each drawn large and then
placed as any drawing is: a classifier trained on them reads the same kind of image as on MNIST.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from purpleteam.core.errors import MissingExtra
from purpleteam.data.drawing import place, redraw
from purpleteam.data.images import Dataset, ImageSet
from purpleteam.data.sources import DATASETS

FILE = "datasets/data/digits.csv.gz"
TRAIN, VALIDATION = 1297, 200
"""Sizes of the first two splits, in file order; the last 300 are the test split."""


@DATASETS.register("digits")
@cache
def load_digits() -> Dataset:
    """Return the embedded digits at 28x28; the same object at every call."""
    library = find_spec("sklearn")  # its file alone: to import it takes a second
    if library is None or library.origin is None:
        raise MissingExtra("scikit-learn, which holds the embedded digits,", "lab")
    rows = np.loadtxt(Path(library.origin).parent / FILE, delimiter=",")  # (1797, 65), label last
    grey = np.floor(rows[:, :-1] * (255 / 16) + 0.5).astype(np.uint8).reshape(-1, 8, 8)
    images = np.stack([place(redraw(digit, size=80, canvas=120)) for digit in grey])[..., None]
    every = ImageSet(images, rows[:, -1].astype(np.int64))
    return Dataset(
        name="digits",
        train=every.part(0, TRAIN),
        validation=every.part(TRAIN, TRAIN + VALIDATION),
        test=every.part(TRAIN + VALIDATION),
        classes=tuple("0123456789"),
        origin={
            "source": "UCI optical recognition of handwritten digits, from scikit-learn",
            "licence": "CC BY 4.0",
        },
    )
