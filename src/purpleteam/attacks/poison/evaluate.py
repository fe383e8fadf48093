"""What a poisoned model does: success of the backdoor beside base rate and clean accuracy.

The attack success rate is over triggered images of the classes that the trigger is meant for, never
the target's own: all others, or the sources of a source-specific attack. It means little without
the base rate (how often a clean model gives that label on these images) and the clean accuracy.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from purpleteam.attacks.poison import PoisonAttack
from purpleteam.attacks.poison.triggers import Corner, Trigger
from purpleteam.core.errors import DataError, UsageError
from purpleteam.core.records import Measurement, plain
from purpleteam.core.statistics import Estimate, Rate, paired_difference
from purpleteam.data.images import ImageSet
from purpleteam.data.streamed import each
from purpleteam.models.inference import Classifier, logits

COMMON_TRIGGERS = tuple(
    Trigger(corner=corner, size=size, pattern=pattern)
    for corner in get_args(Corner)
    for size in (3, 4)
    for pattern in ("square", "checkerboard")
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Backdoor:
    """What the trigger does to one model, and to a clean one; "meant" are the trigger's classes."""

    clean_accuracy: Rate
    attack_success_rate: Rate  # over triggered images of meant classes
    base_rate: Rate | None  # the clean model's rate of the target label on the same images
    success_rate_all_classes: Rate  # attack success rate over all non-target classes
    above_base_rate: Estimate | None  # attack success rate minus base rate, on the same images
    worst_source: tuple[int, Rate]  # the meant class on which it succeeds most, and its rate
    per_source: Mapping[int, Rate]  # attack success rate for each true class, meant or not
    recovered_accuracy: Rate  # share of the meant images that still get their true label
    triggered_accuracy: Rate  # on all triggered images, the target's own included
    clean_correct: NDArray[np.bool_]

    def to_json(self) -> dict[str, Any]:
        label, worst = self.worst_source
        values = {**plain(vars(self)), "worst_source": {"label": label} | worst.to_json()}
        del values["clean_correct"]
        return values

    def measurements(
        self, subject: Mapping[str, Any], how: Mapping[str, Any], seed: int
    ) -> list[Measurement]:
        sources = {"per_source": plain(self.per_source)}
        details = {"attack_success_rate": sources, "base_rate": {}, "recovered_accuracy": {}}
        return [
            Measurement(name=name, value=value, subject=subject, how=how, seed=seed, detail=detail)
            for name, detail in (details | {"triggered_accuracy": {}}).items()
            if (value := getattr(self, name)) is not None
        ]


def evaluate_backdoor(
    model: Classifier,
    test: ImageSet,
    poison: PoisonAttack,
    *,
    clean_model: Classifier | None = None,
) -> Backdoor:
    """Measure a backdoor on images that took no part in training, all of them stamped.

    `clean_model`, trained without poison, gives the base rate.
    """
    meant, others = poison.shown_on(test), test.labels != poison.target_label
    stamped = ImageSet(each(test.images, poison.triggered), test.labels)
    labels = logits(model, stamped.images).argmax(1)
    hits, right = np.asarray(labels == poison.target_label), labels == test.labels
    clean_correct = np.asarray(logits(model, test.images).argmax(1) == test.labels)
    base_rate = above = None
    if clean_model is not None:
        base = logits(clean_model, stamped.take(meant).images).argmax(1) == poison.target_label
        base_rate = _share(base)
        above = paired_difference(base.tolist(), hits[meant].tolist())
    per_source = {int(k): _share(hits[test.labels == k]) for k in np.unique(test.labels[others])}
    worst = max(np.unique(test.labels[meant]).tolist(), key=lambda k: per_source[k].value)
    return Backdoor(
        clean_accuracy=_share(clean_correct),
        attack_success_rate=_share(hits[meant]),
        base_rate=base_rate,
        success_rate_all_classes=_share(hits[others]),
        above_base_rate=above,
        worst_source=(worst, per_source[worst]),
        per_source=per_source,
        recovered_accuracy=_share(right[meant]),
        triggered_accuracy=_share(right),
        clean_correct=clean_correct,
    )


@dataclass(frozen=True, kw_only=True)
class Victim:
    """One image and how a model reads it."""

    index: int
    """Its place in its split."""
    label: int
    """Its true label."""
    read_as: int
    """The model's label for it."""
    target_label: int
    """The label that the adversary wants."""
    target_confidence: float
    """The model's probability of that label, in [0, 1]."""

    @property
    def hit(self) -> bool:
        return self.read_as == self.target_label

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"hit": self.hit}


def evaluate_victim(model: Classifier, images: ImageSet, manifest: Mapping[str, Any]) -> Victim:
    """Look up the victim that a poisoned set's manifest names in its split, and ask the model."""
    if "victim" not in manifest:
        raise UsageError(f"poison {manifest.get('poison')!r} aims at no single image")
    named, target = manifest["victim"], int(manifest["target_label"])
    index = int(named["index"])
    if index >= len(images) or images.take([index]).digest != named["digest"]:
        raise DataError(f"image {index} of these is not the victim {named['digest']}")
    scores = logits(model, images.images[index : index + 1])[0].astype(np.float64)
    chances = np.exp(scores - np.logaddexp.reduce(scores))
    return Victim(
        index=index,
        label=int(named["label"]),
        read_as=int(scores.argmax()),
        target_label=target,
        target_confidence=float(chances[target]),
    )


def sweep(model: Classifier, test: ImageSet, subject: Mapping[str, Any]) -> Measurement:
    """Return the worst rate at which a common trigger moves right answers to one label.

    Only images count that are right without the trigger and of another class. The absence of these
    triggers is no absence of backdoors.
    """
    right = test.take(np.flatnonzero(logits(model, test.images).argmax(1) == test.labels))
    if len(right) == 0:
        raise UsageError("no test image is right without a trigger: there is nothing to take over")
    worst, how = Rate.of(0, len(right)), dict[str, Any]()
    for trigger in COMMON_TRIGGERS:
        labels = logits(model, each(right.images, trigger.stamp)).argmax(1)
        for target in np.unique(test.labels):
            others = right.labels != target
            if not others.any():
                continue
            rate = _share(labels[others] == target)
            if not how or rate.value > worst.value:
                facts = trigger.describe(test.images.shape[3])
                worst, how = rate, {"trigger": facts, "target_label": int(target)}
    how["triggers_tried"] = len(COMMON_TRIGGERS)
    return Measurement(name="trigger_sweep_rate", value=worst, subject=subject, how=how)


def _share(hits: NDArray[np.bool_]) -> Rate:
    return Rate.of(int(hits.sum()), len(hits))
