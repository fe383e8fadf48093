"""The datasets that Purpleteam knows by name, a file each: `--dataset NAME`, `load_dataset(NAME)`.

A new one is a file here, or a function of a plug-in:

    @DATASETS.register("silhouettes")
    def silhouettes(*, size: int = 32) -> Dataset: ...

What stands behind `*` can be given: `--dataset silhouettes:size=64`.
"""

import sys
from collections.abc import Callable

from purpleteam.core.registry import Registry
from purpleteam.data.images import Dataset

__all__ = ["DATASETS"]

DATASETS: Registry[Callable[..., Dataset]] = Registry("dataset")
"""Functions that return the dataset of their name. One with a `progress` argument may report; its
other keyword-only parameters, typed and with defaults, are fields of the reference."""

DATASETS.load(sys.modules[__name__])
