"""How right a classifier is: accuracy, loss, per-class scores, calibration, time per image."""

import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import log_softmax

from purpleteam.core.arrays import Bools, Floats
from purpleteam.core.errors import ModelError
from purpleteam.core.records import Measurement
from purpleteam.core.statistics import CONFIDENCE, Counts, Estimate, Rate, fraction_interval, mean
from purpleteam.data.images import ImageSet, check_is_set
from purpleteam.models.adapters import scored
from purpleteam.models.devices import device_of, forked, frozen, to_batch
from purpleteam.models.inference import CACHE_BATCH, Classifier, logits

BINS = 15
NUMBERS = ("clean_accuracy", "loss", "calibration_error", "confusion_matrix")


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class. A rate over no case (a label never predicted) is None."""

    precision: Rate | None
    recall: Rate | None
    f1: Estimate


@dataclass(frozen=True)
class Evaluation:
    """What a model's answers to a split show."""

    clean_accuracy: Rate
    loss: Estimate
    calibration_error: Estimate
    """Expected calibration error in 15 bins (Guo et al. 2017, arXiv:1706.04599)."""
    confusion_matrix: Counts
    """Rows are true classes, columns predicted ones."""
    per_class: tuple[ClassScores, ...]
    seconds_per_image: float
    """Median over batches after a warm-up, forward pass only."""
    correct: Bools
    """One verdict per image, in order."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields of `purple evaluate --json`."""
        numbers = {name: getattr(self, name).to_json() for name in NUMBERS}
        classes = [
            {"class": number}
            | {name: value and value.to_json() for name, value in vars(scores).items()}
            for number, scores in enumerate(self.per_class)
        ]
        more = {"per_class": classes, "seconds_per_image": self.seconds_per_image}
        return numbers | {"confusion_matrix": numbers["confusion_matrix"]["value"]} | more

    def measurements(self, subject: Mapping[str, Any]) -> list[Measurement]:
        """Return the same numbers as records about `subject`."""
        cost = {"clean_accuracy": {"seconds_per_image": self.seconds_per_image}}
        return [
            Measurement(
                name=name, value=getattr(self, name), subject=subject, cost=cost.get(name, {})
            )
            for name in NUMBERS
        ] + [
            Measurement(name=name, value=value, subject=subject, how={"class": number})
            for number, scores in enumerate(self.per_class)
            for name, value in vars(scores).items()
            if value is not None
        ]


def evaluate(
    model: Classifier,
    images: ImageSet,
    *,
    classes: int,
    batch_size: int = CACHE_BATCH,
    seed: int = 0,
) -> Evaluation:
    """Evaluate a classifier on images it has not been chosen by.

    An image that an app refuses is not right; loss, calibration and the classes' scores are over
    those that have an answer.

    Args:
        model: images (N, C, H, W) in [0, 1] to logits.
        images: the split, or the part of it that is looked at.
        classes: number of classes; the model must score each.
        batch_size: images a call; the verdicts do not depend on it.
        seed: for the bootstrap interval of the calibration error.

    Raises:
        ModelError: the model cannot be called, or scores another number of classes.
    """
    check_is_set(images)
    model, _ = scored(model, images.images, classes)
    scores = logits(model, images.images, batch_size=batch_size)
    if scores.shape[1] != classes:
        raise ModelError(f"the model scores {scores.shape[1]} classes, the images have {classes}")
    if not 0 <= images.labels.min() <= images.labels.max() < classes:
        raise ModelError(
            f"labels reach from {images.labels.min()} to {images.labels.max()}; "
            f"wanted: 0 to {classes - 1}, one for each of the {classes} scores of the model"
        )
    batch, seconds = to_batch(images.images[:batch_size], device_of(model)), []
    with frozen(model) as net, torch.no_grad(), forked(batch.device):
        net(batch)  # warm-up
        for _ in range(5):
            started = time.perf_counter()
            net(batch)
            seconds.append((time.perf_counter() - started) / len(batch))
    answered = ~np.isnan(scores).any(1)
    if not answered.any():
        raise ModelError(f"the model gave no label to any of {len(images)} images")
    right = (scores.argmax(1) == images.labels) & answered
    scores, labels = scores[answered].astype(np.float64), images.labels[answered]
    log_probabilities = log_softmax(scores, axis=1)
    losses = -log_probabilities[np.arange(len(labels)), labels]
    confidence = np.exp(log_probabilities.max(1))
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (labels, scores.argmax(1)), 1)
    counts = np.stack([np.diagonal(table), table.sum(0), table.sum(1)], 1).tolist()
    return Evaluation(
        clean_accuracy=Rate.of(int(right.sum()), len(images)),
        loss=mean(losses.tolist(), bounds=(0, math.inf)),
        calibration_error=_calibration_error(confidence, right[answered], seed),
        confusion_matrix=Counts(value=tuple(map(tuple, table.tolist())), n=len(labels)),
        per_class=tuple(
            ClassScores(
                precision=Rate.of(hits, read) if read else None,
                recall=Rate.of(hits, true) if true else None,
                f1=_f1(hits, read + true - hits),
            )
            for hits, read, true in counts
        ),
        seconds_per_image=statistics.median(seconds),
        correct=right,
    )


def _f1(hits: int, cases: int) -> Estimate:
    """Return F1 of a class from its hits and the cases that are of it or read as it.

    Their share j is a rate, and F1 is 2 j / (1 + j), so the ends of its interval are those of the
    rate (Lam et al. 2023, arXiv:2309.14621). Without a case F1 is 0, in [0, 1].
    """
    shares = (hits / cases, *fraction_interval(hits, cases)) if cases else (0.0, 0.0, 1.0)
    value, low, high = (2 * share / (1 + share) for share in shares)
    return Estimate(value=value, n=cases, low=low, high=high, method="clopper-pearson-of-f1")


def _calibration_error(
    confidence: Floats, right: Bools, seed: int, resamples: int = 200
) -> Estimate:
    """Return the expected calibration error with an interval that covers the truth.

    As a sum of absolute gaps it is biased upwards, and so are its bootstrap draws, whose
    percentiles need not hold the truth. The sum of the absolute errors of the gaps is never less
    than the error of the sum: its 95 % bootstrap quantile is the half width. That is no less than
    the share of cases that n draws may all have missed, 1 - 0.05^(1/n), which could be off by 1
    each (Hanley and Lippman-Hand 1983, doi:10.1001/jama.1983.03330370053031).
    """
    n, gaps = len(confidence), confidence - right
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    rng = np.random.default_rng(seed)
    sums = np.bincount(bins, gaps, BINS) / n  # (BINS,)
    errors = []
    for _ in range(resamples):
        drawn = rng.integers(0, n, n)
        again = np.bincount(bins[drawn], gaps[drawn], BINS) / n
        errors.append(float(np.abs(again - sums).sum()))
    value, unseen = float(np.abs(sums).sum()), 1 - (1 - CONFIDENCE) ** (1 / n)
    half = max(float(np.quantile(errors, CONFIDENCE)), unseen)
    low, high = max(0.0, value - half), max(value, min(1.0, value + half))
    return Estimate(value=value, n=n, low=low, high=high, method="bootstrap-of-gaps")
