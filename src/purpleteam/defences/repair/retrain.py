"""Remove what was flagged and train anew, as after Spectral Signatures (2018, arXiv:1811.00636)."""

import numpy as np
from torch import nn

from purpleteam.core.arrays import Ints
from purpleteam.core.errors import DataError, UsageError
from purpleteam.data.images import ImageSet
from purpleteam.defences.repair import REPAIRS, Repair, Repairing, part_of
from purpleteam.models.training import train


@part_of(REPAIRS, "retrain")
class Retrain(Repair):
    """Trains the same architecture by the same recipe on the images that were not flagged."""

    needs = ("net", "train", "flagged")

    def mend(self, net: nn.Module, work: Repairing) -> nn.Module:
        if work.net is None or work.train is None or work.flagged is None:
            raise ValueError("retrain needs net, train and flagged")
        validation = work.validation or work.trusted
        if validation is None:
            raise UsageError("repair 'retrain' needs validation or trusted images, to stop by")
        return train(
            work.net(),
            without_flagged(work.train, work.flagged),
            validation,
            work.recipe,
            seed=work.seed,
            device=work.device,
            description="repair retrain",
            progress=work.progress,
        ).module


def without_flagged(images: ImageSet, flagged: Ints) -> ImageSet:
    """Return the images that are not flagged; DataError where no image of a class would be left."""
    first, last, n = flagged.min(), flagged.max(), len(images)
    if first < 0 or last >= n:
        raise DataError(f"flagged places go from {first} to {last}, but the set has {n} images")
    kept = np.delete(np.arange(n), flagged)
    lost = np.setdiff1d(images.labels, images.labels[kept])
    if len(lost):
        raise DataError(f"all images of class {lost[0]} are flagged: nothing of it to train on")
    return images.take(kept)
