"""The ladder's attacks as other libraries make them, on the same images of the same model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from attack_peers import autoattack_100_steps
from numpy.typing import NDArray

from purpleteam.attacks.cross_check import Comparison, cross_check
from purpleteam.attacks.norms import distance
from purpleteam.cli.screen import progress
from purpleteam.core.records import Measurement
from purpleteam.core.statistics import Rate, paired_difference
from purpleteam.data.images import Dataset
from purpleteam.models.devices import frozen, to_batch
from purpleteam.models.loading import LoadedModel
from purpleteam.verbs._subject import Subject

__all__ = ["compared", "compared_whole"]

EPSILON = 0.3
IMAGES = {"fgsm": 1000, "pgd": 1000, "apgd_ce": 500, "square": 200, "deepfool": 200}
"""On how many images each attack is made by us and by others: as many as minutes allow."""
WHOLE = 250
"""Images that torchattacks' members of AutoAttack are run on at the published 100 steps."""
FAITHFUL = "torchattacks' members at the published 100 steps"
BATCH = 100


def compared(
    model: LoadedModel, dataset: Dataset, seed: int, known: Sequence[Mapping[str, Any]]
) -> Iterator[Measurement]:
    """Yield what both left of the same images, for each attack whose key is not `known` yet."""
    for attack, n in IMAGES.items():
        if _is_known(_key(model, attack, n), known):
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
            yield _record(model, dataset, row, seed)
        for what, why in found.absent.items():
            print(f"not compared with {what}: {why}", flush=True)


def compared_whole(
    model: LoadedModel,
    dataset: Dataset,
    standing: NDArray[np.bool_],
    seed: int,
    known: Sequence[Mapping[str, Any]],
) -> Iterator[Measurement]:
    """Yield the same of AutoAttack, which takes torchattacks seconds an image.

    `standing` says which of the first test images stand under ours.
    """
    if not _is_known(_key(model, "autoattack", WHOLE), known):
        theirs = _standing_under_theirs(model, dataset)
        yield _record(model, dataset, _comparison(standing[:WHOLE], theirs), seed)


def _key(model: LoadedModel, attack: str, n: int) -> dict[str, Any]:
    return {"model": model.digest, "case": "cross-check", "attack": attack, "images": n}


def _is_known(key: Mapping[str, Any], known: Sequence[Mapping[str, Any]]) -> bool:
    return any(key.items() <= one.items() for one in known)


def _record(model: LoadedModel, dataset: Dataset, row: Comparison, seed: int) -> Measurement:
    return Measurement(
        name="cross_check_difference",
        value=row.difference,
        subject=Subject(dataset, torch.device("cpu"), model, limit=row.ours.n).about(),
        how={
            "attack": row.attack,
            "peer": row.peer,
            "norm": "linf",
            "epsilon": EPSILON,
            "key": _key(model, row.attack, row.ours.n) | {"peer": row.peer},
        },
        detail=row.to_json(),
        seed=seed,
    )


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
