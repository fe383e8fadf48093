"""With which input and which order of classes a brought model would read these images far better.

A net behind the wrong normalisation is still right often enough to be believed, so what tells is
its loss. A scale alone is no evidence: it makes any net more or less sure of the same answers, so
a candidate must also be better at the temperature that suits it best (Guo et al. 2017,
arXiv:1706.04599). A net that is near chance in every way, as an untrained one is, is left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import nn

from purpleteam.core.errors import PurpleError
from purpleteam.data.images import ImageSet
from purpleteam.models.inference import logits
from purpleteam.models.normalisation import NORMALISATIONS, Normalisation
from purpleteam.models.onnx_file import OnnxFile

__all__ = ["hints"]

COARSE, FINE, FINEST = 40, 200, 1000
"""Images on which all candidates are tried, then those that may still be the best."""
FEWEST = 20
"""Images that say something."""
RARE = ("mean=0.5,std=1", "mean=0,std=0.5")
"""Inputs that are named only where the usual ones are worse."""
GOOD = 0.02
"""Loss below which nothing can be far better."""
SHARE = 0.75
"""Of the loss of images as they are: a candidate's must be below it, and so at its best scale."""
HALF = 0.5
"""The same where only the scale is better."""
UNSURE, OFF = 2.0, 2.5
"""Temperatures: below the first a net is as sure as it is right, above the second it is not."""
CLEAR = 4.0
"""Standard errors, or the like for counts, that make a difference clear."""
ALIKE, WORSE = 2.0, 3.0
"""Standard errors within which two candidates are not told apart, and beyond which one is out."""
NEAR = 0.01
"""Difference of losses that is none."""
CHANCE_LOSS = 0.7
"""Of the loss of a uniform guess: what a net has learned brings it below this."""
EACH = 5
"""Images of each class that an order of classes needs."""
TEMPERATURES = np.geomspace(1 / 16, 64, 31)


def hints(module: nn.Module, images: ImageSet, classes: Sequence[str]) -> tuple[str, ...]:
    """Return a note where another input, another order of classes, or both fit far better.

    Args:
        module: as it is asked, without a normalisation.
        images: of which up to 1,000 are shown to it.
        classes: names of the data's classes, in order.
    """
    if len(images) < FEWEST:
        return ()
    left, found = _candidates(images), list[_Fit]()
    for count in (FINE, FINEST):
        sample = _spread(images, count)
        asked = _Fit.of(module, sample)
        if asked is None or asked.labels.max() >= asked.scores.shape[1]:
            return ()
        plain = asked
        now = plain.reordered() or plain
        if now.loss.mean() < GOOD:
            break
        if count == FINE:
            tried = _tried(module, _spread(images, COARSE), left)
            left = _not_out([one.in_any_order() for one in tried])
        fits = [one.reordered() or one for one in _tried(module, sample, left)]
        found, left = _chosen(fits, now), _not_out(fits)
        better = any(one.loss.mean() < now.loss.mean() for one in fits)
        unsure = better or (not plain.has_enough() and plain.right.mean() < 1 - SHARE / 2)
        if not unsure or len(found) == len(left) == 1:
            break
    if not found:
        return () if now.order is None else (_order_note(plain, now, classes),)
    notes = [_input_note(now, found[0], found[1:])]
    if found[0].order is not None:
        notes.append(_order_note(plain, found[0], classes))
    return tuple(notes)


@dataclass(frozen=True, eq=False)
class _Fit:
    """How a net reads images behind an input, its scores in an order of classes."""

    layer: Normalisation | None
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    order: NDArray[np.int64] | None = None

    @classmethod
    def of(
        cls, module: nn.Module, images: ImageSet, layer: Normalisation | None = None
    ) -> _Fit | None:
        """Ask the net; None where it gives no numbers for such an input."""
        try:
            net = module
            if layer is not None and isinstance(module, OnnxFile):
                net = module.behind(layer)
            elif layer is not None:
                net = layer.before(module)
            scores = logits(net, images.images).astype(np.float64)
        except PurpleError:  # infinite, so far out of its range; or it takes bytes
            return None
        return cls(layer, scores, images.labels) if np.isfinite(scores).all() else None

    @property
    def name(self) -> str:
        """What `--normalise` would say."""
        return "" if self.layer is None else self.layer.name

    @cached_property
    def loss(self) -> NDArray[np.float64]:
        """The cross-entropy of each image."""
        return self._loss(1.0)

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """Whether each image is read as what it is."""
        return np.asarray(self.scores.argmax(1) == self.labels)

    @cached_property
    def temperature(self) -> float:
        """Where the mean loss is least: 1 for a net that is as sure as it is right."""
        return float(min(TEMPERATURES, key=lambda one: float(self._loss(one).mean())))

    @cached_property
    def best_loss(self) -> NDArray[np.float64]:
        """The loss of each image at that temperature."""
        return self._loss(self.temperature)

    def _loss(self, temperature: float) -> NDArray[np.float64]:
        scaled = self.scores / temperature
        shifted = scaled - scaled.max(1, keepdims=True)
        found: NDArray[np.float64] = (
            np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(self.labels)), self.labels]
        )
        return found

    def has_learned(self) -> bool:
        """Say whether it is far from what chance gives: no untrained net is."""
        classes = self.scores.shape[1]
        halfway = (1 + 1 / classes) / 2
        return bool(
            self.right.mean() >= halfway
            and self.loss.mean() <= CHANCE_LOSS * np.log(max(classes, 2))
        )

    def beats(self, other: _Fit) -> bool:
        """Say whether it is clearly and far better than the other on the same images.

        That is with answers that are better whatever the scale, or with answers as good and as
        sure as they are right, where the other's are not.
        """
        if other.best_loss.mean() < GOOD:  # all is right as it is, and the scale says nothing
            return False
        gain = other.loss - self.loss
        share = self.loss.mean() / other.loss.mean()
        at_best = self.best_loss.mean() / other.best_loss.mean()
        sure = 1 / UNSURE < self.temperature < UNSURE
        other_is = 1 / OFF < other.temperature < OFF
        return bool(
            gain.mean() > CLEAR * gain.std() / np.sqrt(len(gain))
            and self.right.sum() >= other.right.sum() - NEAR * len(gain)
            and (
                (share < SHARE and at_best < SHARE)
                or (share < HALF and at_best < 1 + NEAR and sure and not other_is)
            )
        )

    def has_enough(self) -> bool:
        """Say whether there are enough images of each class to tell their order."""
        classes = self.scores.shape[1]
        return bool(np.bincount(self.labels, minlength=classes).min() >= EACH)

    def in_any_order(self) -> _Fit:
        """Return it in the order of classes that makes most images right."""
        classes = self.scores.shape[1]
        table = np.zeros((classes, classes))
        np.add.at(table, (self.labels, self.scores.argmax(1)), 1)
        _, order = linear_sum_assignment(-table)
        return _Fit(self.layer, self.scores[:, order], self.labels, order)

    def reordered(self) -> _Fit | None:
        """Return it in the order of classes that fits far better than the one it has, if any."""
        if self.scores.shape[1] < 2 or not self.has_enough():
            return None
        found = self.in_any_order()
        won = int((found.right & ~self.right).sum())
        lost = int((self.right & ~found.right).sum())
        clear = won - lost > CLEAR * np.sqrt(max(won + lost, 1))
        return found if clear and found.has_learned() else None


def _tried(module: nn.Module, images: ImageSet, layers: Iterable[Normalisation]) -> list[_Fit]:
    fits = (_Fit.of(module, images, one) for one in layers)
    return [one for one in fits if one is not None]


def _not_out(fits: Sequence[_Fit]) -> list[Normalisation]:
    """Return the inputs of those that may still be the best."""
    best = min(fits, key=lambda one: float(one.loss.mean()), default=None)
    if best is None:
        return []
    left = [one.layer for one in fits if not _is_worse(one.loss, best.loss, WORSE)]
    return [one for one in left if one is not None]


def _chosen(fits: Sequence[_Fit], now: _Fit) -> list[_Fit]:
    """Return the input that fits far better than `now`, then those that fit as well."""
    good = [one for one in fits if one.has_learned() and one.beats(now)]
    usual, rare = (_ranked([one for one in good if (one.name in RARE) == is_]) for is_ in (0, 1))
    if not usual or (
        rare
        and usual[0].best_loss.mean() > GOOD  # where all is right, the scale says nothing
        and _is_worse(usual[0].loss, rare[0].loss)
        and not _is_worse(rare[0].best_loss, usual[0].best_loss)
    ):
        return rare
    return usual


def _ranked(good: Sequence[_Fit]) -> list[_Fit]:
    if not good:
        return []
    # How sure a net is tells its own input among those that give the same answers.
    sharpest = min(good, key=lambda one: float(one.best_loss.mean()))
    good = [one for one in good if not _is_worse(one.best_loss, sharpest.best_loss)]
    best = min(good, key=lambda one: float(one.loss.mean()))
    alike = [one for one in good if not _is_worse(one.loss, best.loss)]
    return sorted(alike, key=lambda one: (one.name not in NORMALISATIONS, one.loss.mean()))


def _is_worse(loss: NDArray[np.float64], best: NDArray[np.float64], errors: float = ALIKE) -> bool:
    gap = loss - best
    return bool(gap.mean() > max(NEAR, errors * gap.std() / np.sqrt(len(gap))))


def _candidates(images: ImageSet) -> list[Normalisation]:
    """Return what people put in front of nets, for images of so many channels."""
    channels = images.images.shape[3]
    found = []
    for one in NORMALISATIONS.values():
        if len(one.mean) in (1, channels):
            found.append(one)
        elif channels == 1:  # a colour set's numbers, as one: the mean over its channels
            text = f"mean={np.mean(one.mean):.3f},std={np.mean(one.std):.3f}"
            found.append(Normalisation.parse(text))
    pixels = _spread(images, FINEST).images.reshape(-1, channels) / 255
    mean, std = pixels.mean(0), pixels.std(0)
    if (std > 0.001).all():
        texts = ("/".join(f"{value:.4f}" for value in one) for one in (mean, std))
        found.append(Normalisation.parse("mean={},std={}".format(*texts)))
    return [*found, *map(Normalisation.parse, RARE)]


def _input_note(now: _Fit, first: _Fit, others: Sequence[_Fit]) -> str:
    names = [one.name for one in others[:2]]
    as_well = f" ({' and '.join(names)} would fit as well)" if names else ""
    return (
        f"of {len(now.labels)} images in [0, 1] it gets {now.right.mean():.0%} right (loss "
        f"{now.loss.mean():.2g}), and {first.right.mean():.0%} with --normalise "
        f"{first.name} (loss {first.loss.mean():.2g}): does it "
        f"expect that?{as_well}"
    )


def _order_note(now: _Fit, found: _Fit, classes: Sequence[str]) -> str:
    order = found.order if found.order is not None else np.arange(len(classes))
    names = [classes[place] for place in np.argsort(order)]
    typed = ",".join(names)
    if any("," in name for name in names):
        typed = f"FILE, one name a line: {'; '.join(names)}"
    return (
        f"in the order of the data's classes it gets {now.right.mean():.0%} of "
        f"{len(now.labels)} images right, and {found.right.mean():.0%} with --classes {typed}: "
        "did it learn them in that order?"
    )


def _spread(images: ImageSet, count: int) -> ImageSet:
    """Return so many of the images at most, spread evenly, as a set may be sorted by class."""
    return images.take(
        np.unique(np.linspace(0, len(images) - 1, min(count, len(images))).astype(int))
    )
