"""Stage data: which images, from where, with which digests; and what they look like."""

from __future__ import annotations

import numpy as np

from purpleteam.core.records import Artefact, Note, Record
from purpleteam.core.schema import DATASET
from purpleteam.data.images import SPLITS
from purpleteam.pipeline.stages.pictures import gallery
from purpleteam.pipeline.work import Work

__all__ = ["describe_data"]


def describe_data(work: Work) -> None:
    """Record the dataset's splits, classes, origin and digests, and show each class."""
    dataset = work.dataset

    def describe() -> list[Record]:
        splits = {
            name: {
                "n": len(dataset.split(name)),
                "digest": dataset.split(name).digest,
                "per_class": np.bincount(
                    dataset.split(name).labels, minlength=len(dataset.classes)
                ).tolist(),
            }
            for name in SPLITS
        }
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
        note = Note(name=DATASET, facts=facts)
        return [note, *_look(work)]

    work.cell("data", "describe", {}, describe)


def _look(work: Work) -> list[Note | Artefact]:
    images = work.dataset.train
    first = [
        int(np.flatnonzero(images.labels == label)[0])
        for label in range(len(work.dataset.classes))
        if (images.labels == label).any()
    ]
    pictures = [
        (f"class-{number}", images.images[place], work.dataset.classes[int(images.labels[place])])
        for number, place in enumerate(first[:20])
    ]
    return gallery(work.run, "classes", "One training image of each class", pictures)
