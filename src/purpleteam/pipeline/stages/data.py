"""Stage data: which images, from where, with which digests; and what they look like."""

from __future__ import annotations

import numpy as np

from purpleteam.core.records import Note, Record
from purpleteam.core.schema import DATASET
from purpleteam.data.images import SPLITS, Dataset
from purpleteam.pipeline.state import Run
from purpleteam.verbs._pictures import gallery

SHOWN = 20
"""Most classes of which an image is shown."""


def describe_data(run: Run) -> None:
    """Record the dataset's splits, classes, origin and digests, and show each class."""
    dataset = run.dataset

    def describe() -> list[Record]:
        labels = dataset.train.labels
        first = [np.flatnonzero(labels == label) for label in range(len(dataset.classes))]
        rows = [int(places[0]) for places in first if len(places)][:SHOWN]
        pictures = [
            (f"class-{number}", dataset.train.images[row], dataset.classes[int(labels[row])])
            for number, row in enumerate(rows)
        ]
        title = "One training image of each class"
        return [
            Note(name=DATASET, facts=facts_of(dataset)),
            *gallery(run.folder, "classes", title, pictures),
        ]

    run.cell("data", "describe", {}, describe)


def facts_of(dataset: Dataset) -> dict[str, object]:
    """Return what a record says of a dataset."""
    splits = {}
    for name in SPLITS:
        images = dataset.split(name)
        counts = np.bincount(images.labels, minlength=len(dataset.classes)).tolist()
        splits[name] = {"n": len(images), "digest": images.digest, "per_class": counts}
    height, width, channels = dataset.shape
    return {
        "name": dataset.name,
        "digest": dataset.digest,
        "height": height,
        "width": width,
        "channels": channels,
        "classes": list(dataset.classes),
        "splits": splits,
        "origin": {key: value for key, value in dataset.origin.items() if key != "folder"},
    }
