"""Stage data: which images, from where, with which digests; and what they look like."""

import numpy as np

from purpleteam.core.records import Note, Record
from purpleteam.core.schema import DATASET
from purpleteam.data.images import SPLITS
from purpleteam.pipeline.state import Run
from purpleteam.verbs._pictures import gallery

SHOWN = 20  # most classes of which an image is shown


def describe_data(run: Run) -> None:
    """Record the dataset's splits, classes, origin and digests, and show each class."""
    dataset = run.dataset

    def describe() -> list[Record]:
        splits, classes = {}, len(dataset.classes)
        for name in SPLITS:
            images = dataset.split(name)
            counts = np.bincount(images.labels, minlength=classes).tolist()
            splits[name] = {"n": len(images), "digest": images.digest, "per_class": counts}
        height, width, channels = dataset.shape
        facts = {
            "name": dataset.name,
            "digest": dataset.digest,
            "height": height,
            "width": width,
            "channels": channels,
            "classes": list(dataset.classes),
            "splits": splits,
            "origin": {key: value for key, value in dataset.origin.items() if key != "folder"},
        }
        labels, rows = np.unique(dataset.train.labels, return_index=True)  # the first of each
        pictures = [
            (f"class-{number}", dataset.train.images[row], dataset.classes[label])
            for number, (label, row) in enumerate(zip(labels[:SHOWN], rows[:SHOWN], strict=True))
        ]
        title = "One training image of each class"
        shown = gallery(run.folder, "classes", title, pictures)
        return [Note(name=DATASET, facts=facts), *shown]

    run.cell("data", "describe", {}, describe)
