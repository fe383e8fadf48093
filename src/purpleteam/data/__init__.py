"""Images and where they come from; no torch, and instant to import.

- `images`         ImageSet and Dataset: frozen, uint8, with a digest; the splits they get
- `folders`        `load_dataset(NAME | FOLDER | FILE | module:factory)`; and writing IDX files
- `objects`        `dataset_from(images, labels)`: arrays, tensors, loaders; MAITE data sets
- `sources`        DATASETS, the sets known by name;  `fetch`: a file over HTTPS
- `class_folders`  a folder of image files for each class, or a file of their labels
- `pictures`       image files;  `arrays`: .npz, .npy and pickled ones;  `idx`: the IDX format
- `drawing`        a drawing of any size -> 28x28, the one preprocessing; and its test
- `corruptions`    what happens to images without an adversary, at five severities
- `checks`         data.digest and data.schema; what a data set consists of
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from purpleteam.data.drawing import EmptyDrawing, place, strokes
    from purpleteam.data.folders import load_dataset, save_dataset
    from purpleteam.data.images import SPLITS, Dataset, ImageSet
    from purpleteam.data.objects import dataset_from
    from purpleteam.data.sources import DATASETS
    from purpleteam.data.sources.digits import load_digits as digits
    from purpleteam.data.sources.mnist import fetch_mnist, verify_folder
    from purpleteam.data.sources.mnist import load_mnist as mnist

__all__ = ["DATASETS", "SPLITS", "Dataset", "EmptyDrawing", "ImageSet", "dataset_from", "digits"]
__all__ += ["fetch_mnist", "load_dataset", "mnist", "place", "save_dataset", "strokes"]
__all__ += ["verify_folder"]


def __getattr__(name: str) -> object:
    # `sources` comes last: its modules `digits` and `mnist` are named as the functions here are
    homes = ("drawing", "images", "folders", "objects", "sources.digits", "sources.mnist")
    for home in (*homes, "sources") if name in __all__ else ():
        known = vars(import_module(f"{__name__}.{home}"))
        for spelling in (name, f"load_{name}"):
            if spelling in known:
                return known[spelling]
    raise AttributeError(f"module 'purpleteam.data' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
