"""The datasets that Purpleteam knows by name, a file each: `--dataset NAME`, `load_dataset(NAME)`.

A new one is one file here, or a function of a plug-in:

    @DATASETS.register("silhouettes")
    def silhouettes() -> Dataset: ...

- `mnist`   the four files: found, verified against pinned digests, or fetched
- `digits`  scikit-learn's 1,797 digits, placed as MNIST would have them
"""

import sys
from collections.abc import Callable

from purpleteam.core.registry import Registry
from purpleteam.data.images import Dataset

__all__ = ["DATASETS"]

DATASETS: Registry[Callable[..., Dataset]] = Registry("dataset")
"""Functions that return the dataset of their name; one with a `progress` argument may report."""

DATASETS.load(sys.modules[__name__])
