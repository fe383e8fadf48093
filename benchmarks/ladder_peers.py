"""The ladder's attacks as other libraries make them, on the same images of the same model."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import torch
from attack_peers import autoattack_100_steps
from numpy.typing import NDArray

from purpleteam.attacks.balls import distance
from purpleteam.attacks.cross_check import Comparison, cross_check
from purpleteam.cli.screen import progress
from purpleteam.core.records import Measurement
from purpleteam.core.statistics import Rate, paired_difference
from purpleteam.data.images import Dataset
from purpleteam.models.devices import frozen, to_batch
from purpleteam.models.loading import LoadedModel
from purpleteam.pipeline.work import subject_of

__all__ = ["compared"]

EPSILON = 0.3
IMAGES = {"fgsm": 1000, "pgd": 1000, "apgd_ce": 500, "square": 200, "deepfool": 200}
"""On how many images each attack is made by us and by others: as many as minutes allow."""
WHOLE = 500
"""Images that torchattacks' members of AutoAttack are run on at the published 100 steps."""
FAITHFUL = "torchattacks' members at the published 100 steps"
BATCH = 100


def compared(
    model: LoadedModel,
    dataset: Dataset,
    standing: NDArray[np.bool_],
    seed: int,
    known: Collection[str],
    *,
    whole: bool,
) -> Iterator[Measurement]:
    """Yield what both left of the same images, for each attack that is not `known` yet.

    Args:
        model: the attacked one.
        dataset: whose first test images are attacked.
        standing: which of them stand under our AutoAttack.
        seed: of all attacks.
        known: the keys of the records that exist, as JSON.
        whole: compare AutoAttack too, which takes torchattacks seconds an image.
    """

    def record(row: Comparison, key: dict[str, Any]) -> Measurement:
        return Measurement(
            name="cross_check_difference",
            value=row.difference,
            subject=subject_of(model, dataset, model.name, limit=row.ours.n),
            how={
                "attack": row.attack,
                "peer": row.peer,
                "norm": "linf",
                "epsilon": EPSILON,
                "key": key | {"peer": row.peer},
            },
            detail=row.to_json(),
            seed=seed,
        )

    for attack, n in IMAGES.items():
        key = {"model": model.digest, "case": "cross-check", "attack": attack, "images": n}
        if any(json.dumps(key, sort_keys=True)[:-1] in one for one in known):
            continue
        with progress(quiet=False) as bar:
            found = cross_check(
                model.module,
                dataset.test.first(n),
                epsilon=EPSILON,
                seed=seed,
                only=[attack],
                progress=bar,
            )
        for row in found.rows:
            yield record(row, key)
        for what, why in found.absent.items():
            print(f"not compared with {what}: {why}", flush=True)
    key = {"model": model.digest, "case": "cross-check", "attack": "autoattack", "images": WHOLE}
    if whole and not any(json.dumps(key, sort_keys=True)[:-1] in one for one in known):
        theirs = _standing_under_theirs(model, dataset)
        yield record(_comparison(standing[:WHOLE], theirs), key)


def _comparison(ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> Comparison:
    return Comparison(
        attack="autoattack",
        peer=FAITHFUL,
        ours=Rate.of(int(ours.sum()), len(ours)),
        theirs=Rate.of(int(theirs.sum()), len(theirs)),
        difference=paired_difference(ours.tolist(), theirs.tolist()),
    )


def _standing_under_theirs(model: LoadedModel, dataset: Dataset) -> NDArray[np.bool_]:
    """Return which images the model still gets right, judged by us: in the ball, in float32."""
    images = dataset.test.first(WHOLE)
    attack = autoattack_100_steps(model.module, EPSILON, len(dataset.classes))
    x, y = to_batch(images.images).contiguous(), torch.from_numpy(images.labels.copy())
    stands = []
    for one, label in zip(x.split(BATCH), y.split(BATCH), strict=True):
        x_adv = attack(one, label)
        inside = distance(x_adv, one, "linf") <= EPSILON + 1e-6
        with frozen(model.module), torch.no_grad():
            errs = (model.module(x_adv).argmax(1) != label) & inside
            errs |= model.module(one).argmax(1) != label
        stands.append(~errs)
        print(f"{FAITHFUL}: {sum(map(len, stands))} images", flush=True)
    return torch.cat(stands).numpy()
