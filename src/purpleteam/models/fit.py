"""Does a brought model fit these images? What a few answers show, before any number is taken.

It may answer with probabilities or at random, or want another range or order of classes. A net
behind the wrong normalisation is still right often enough to be believed, so its loss tells. A
scale alone makes any net more or less sure of the same answers, so a better input must also be
better at the temperature that suits it best (Guo et al. 2017, arXiv:1706.04599). A net that is near
chance in every way, as an untrained one is, is left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.special import log_softmax
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from purpleteam.core.arrays import Floats, Ints
from purpleteam.core.errors import PurpleError
from purpleteam.data.images import ImageSet
from purpleteam.data.streamed import chunks, each
from purpleteam.models.adapters import GREY, NORMALISATIONS, Normalisation, Normalised
from purpleteam.models.black_box import ObjectClassifier, ObjectNet, OnnxFile, distributions
from purpleteam.models.devices import device_of, frozen, to_batch
from purpleteam.models.guard import Guarded
from purpleteam.models.inference import DRAWS, Nets, is_random, logits

SAMPLE = 200  # images that a model is shown, spread evenly over the split
GOOD = 0.02  # loss below which nothing can be far better
# of the loss of images as they are: a candidate's must be below, or where only its scale is better
SHARE, HALF = 0.75, 0.5
UNSURE, OFF = 2.0, 2.5  # temperatures: below, a net is as sure as it is right; above, it is not
CLEAR = 4.0  # standard errors, or the like for counts, that make a difference clear
NEAR = 0.01  # difference of losses that is none
CHANCE_LOSS = 0.7  # of the loss of a uniform guess: what a net has learned brings it below this
EACH = 5  # images of each class that an order of classes needs
TEMPERATURES = np.geomspace(1 / 16, 64, 31)
COARSE, FINE, FINEST = 40, 200, 1000  # images on which ever fewer candidates are tried
FEWEST = 20  # images that say something
RARE = ("mean=0.5,std=1", "mean=0,std=0.5")  # named only where the usual ones are worse
ALIKE, WORSE = 2.0, 3.0  # standard errors: within, candidates are equal; beyond, one is out


def examine(
    module: nn.Module, images: ImageSet, classes: Sequence[str] | None = None
) -> tuple[str, ...]:
    """Return what is unusual about a model's answers; ModelError if no finite logits."""
    sample = _spread(images, SAMPLE)
    scores = logits(module, sample.images)
    parts: list[Any] = [module]
    while isinstance(outer := parts[-1], Normalised | Guarded):
        parts.append(outer.model if isinstance(outer, Guarded) else outer.module)
    notes = []
    if not isinstance(parts[-1], ObjectNet | ObjectClassifier | OnnxFile):
        wide = torch.from_numpy(scores).double()
        if distributions(wide).all():
            notes.append(
                "it returns probabilities, not logits, which flattens the gradients of white-box "
                "attacks: return what goes into its softmax"
            )
        elif (wide <= 0).all() and distributions(wide.exp()).all():
            notes.append("it returns log-probabilities; attacks take them as logits")
    notes += _habits(module, to_batch(sample.images[:100], device_of(module)))
    if not any(getattr(part, "normalisation", None) for part in parts):  # else the user has said it
        names = classes or [str(number) for number in range(scores.shape[1])]
        notes += hints(module, images, names)
    return tuple(notes)


def _habits(module: nn.Module, x: Tensor) -> list[str]:
    """Say how it answers: in what form and precision, at random, or for its neighbours' sake."""
    notes = []
    with frozen(module) as net, torch.no_grad():
        scores = net(x)
        if net.form:
            notes.append(f"it returns {net.form}")
        if net.precision != torch.float32:
            kind = str(net.precision).removeprefix("torch.")
            told = "it gets images in that, its logits in float32"
            notes.append(f"its weights are in {kind}: {told}")
        # layers that go on as in training: eval() does not reach them, or they keep no statistics
        kinds = {
            type(layer).__name__
            for layer in module.modules()
            if isinstance(layer, _BatchNorm | _DropoutNd)
            and (layer.training or getattr(layer, "running_mean", module) is None)
        }
        awake = ", ".join(sorted(kinds))
        cause = f": eval() does not stop its {awake}" if awake else ", in eval mode too"
        if is_random(net, x):
            notes.append(
                f"its answers change from call to call{cause}: the mean over {DRAWS} draws counts "
                "as its answer, and attacks average with samples, as in apgd_ce:samples=20"
            )
        elif not torch.allclose(scores[:2], net(x[:2]), rtol=1e-3, atol=1e-3, equal_nan=True):
            notes.append(
                f"its answer for an image depends on the images beside it{cause}: is it "
                "batch-normalised by the batch?"
            )
        if net.differentiable and not Nets.of(net, x[:8]).differentiable:
            notes.append(
                "no gradient reaches the images (inference_mode, no_grad, detach or quantised "
                "layers in its forward?): only attacks that need none can be made"
            )
    return notes


class InputFit:
    """How a net reads images behind an input, its scores (N, classes) in an order of classes."""

    def __init__(
        self, layer: Normalisation | None, scores: Floats, labels: Ints, order: Ints | None = None
    ) -> None:
        self.layer, self.scores, self.labels, self.order = layer, scores, labels, order
        self.name = "" if layer is None else layer.name
        self.right = np.asarray(scores.argmax(1) == labels)
        self.loss = self._loss(1.0)  # the cross-entropy of each image

    @cached_property
    def temperature(self) -> float:
        """Where the mean loss is least: 1 for a net that is as sure as it is right."""
        return float(min(TEMPERATURES, key=lambda value: float(self._loss(value).mean())))

    @cached_property
    def best_loss(self) -> Floats:
        return self._loss(self.temperature)

    def _loss(self, temperature: float) -> Floats:
        chances = log_softmax(self.scores / temperature, axis=1)
        return -np.asarray(chances[np.arange(len(self.labels)), self.labels])

    def has_learned(self) -> bool:
        """Say whether it is far from what chance gives: no untrained net is."""
        classes = self.scores.shape[1]
        sure = self.loss.mean() <= CHANCE_LOSS * np.log(max(classes, 2))
        return bool(sure and self.right.mean() >= (1 + 1 / classes) / 2)

    def beats(self, other: InputFit) -> bool:
        """Say whether it is clearly and far better than the other on the same images.

        Its answers are so whatever the scale, or as good and sure as right, the other's are not.
        """
        if not self.has_learned() or other.best_loss.mean() < GOOD:  # all is right as it is
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
        """Say whether there are images enough of each class to tell their order."""
        return bool(np.bincount(self.labels, minlength=self.scores.shape[1]).min() >= EACH)

    def in_any_order(self) -> InputFit:
        """Return it in the order of classes that makes most images right."""
        from scipy.optimize import linear_sum_assignment  # slow to import, and seldom needed

        classes = self.scores.shape[1]
        table = np.zeros((classes, classes))
        np.add.at(table, (self.labels, self.scores.argmax(1)), 1)
        _, order = linear_sum_assignment(-table)
        return InputFit(self.layer, self.scores[:, order], self.labels, order)

    def reordered(self) -> InputFit:
        """Return it in the order of classes that fits far better than its own, if one does."""
        if self.scores.shape[1] < 2 or not self.has_enough():
            return self
        other = self.in_any_order()
        won = int((other.right & ~self.right).sum())
        lost = int((self.right & ~other.right).sum())
        clear = won - lost > CLEAR * np.sqrt(max(won + lost, 1))
        return other if clear and other.has_learned() else self


def hints(module: nn.Module, images: ImageSet, classes: Sequence[str]) -> tuple[str, ...]:
    """Return a note where another input, another order of classes, or both fit far better."""
    if len(images) < FEWEST:
        return ()
    left: Sequence[Normalisation] = _candidates(images)
    better: list[InputFit] = []
    for count in (FINE, FINEST):
        sample = _spread(images, count)
        asked = _tried(module, sample, [None])
        if not asked:
            return ()
        plain = asked[0]
        now = plain.reordered()
        if now.loss.mean() < GOOD:
            break
        if count == FINE:
            tried = _tried(module, _spread(images, COARSE), left)
            left = _not_out([fit.in_any_order() for fit in tried])
        fits = [fit.reordered() for fit in _tried(module, sample, left)]
        better, left = _chosen(fits, now), _not_out(fits)
        lower = any(fit.loss.mean() < now.loss.mean() for fit in fits)
        unsure = lower or (not plain.has_enough() and plain.right.mean() < 1 - SHARE / 2)
        if not unsure or len(better) == len(left) == 1:
            break
    first, notes = better[0] if better else now, []
    if better:
        names = [fit.name for fit in better[1:3]]
        as_well = f" ({' and '.join(names)} would fit as well)" if names else ""
        told = _told(now, "in [0, 1]", first, f"--normalise {first.name}")
        notes.append(f"{told}: does it expect that?{as_well}")
    if first.order is not None:
        ordered = [classes[place] for place in np.argsort(first.order)]
        typed = ",".join(ordered)
        if any("," in name for name in ordered):
            typed = f"FILE, one name a line: {'; '.join(ordered)}"
        notes.append(
            f"in the order of the data's classes it gets {plain.right.mean():.0%} of "
            f"{len(plain.labels)} images right, and {first.right.mean():.0%} with --classes "
            f"{typed}: did it learn them in that order?"
        )
    return (*notes, *_flipped(module, sample, first, alone=not better))


def _tried(
    module: nn.Module, images: ImageSet, layers: Iterable[Normalisation | None]
) -> list[InputFit]:
    """Return how the net reads the images behind each input for which it gives numbers."""
    fits = []
    for layer in layers:
        try:
            net = module
            if layer is not None and isinstance(module, OnnxFile):
                net = module.behind(layer)
            elif layer is not None:
                net = layer.before(module)
            scores = logits(net, images.images).astype(np.float64)
        except PurpleError:  # infinite, so far out of its range; or it takes bytes
            continue
        if np.isfinite(scores).all() and images.labels.max() < scores.shape[1]:
            fits.append(InputFit(layer, scores, images.labels))
    return fits


def _not_out(fits: Sequence[InputFit]) -> list[Normalisation]:
    """Return the inputs of those that may still be the best."""
    best = min(fits, key=lambda fit: float(fit.loss.mean()), default=None)
    return [
        fit.layer
        for fit in fits
        if best and fit.layer and not _is_worse(fit.loss, best.loss, WORSE)
    ]


def _chosen(fits: Sequence[InputFit], now: InputFit) -> list[InputFit]:
    """Return the input that fits far better than `now`, then those that fit as well."""
    good = [fit for fit in fits if fit.beats(now)]
    rare = _ranked([fit for fit in good if fit.name in RARE])
    usual = _ranked([fit for fit in good if fit.name not in RARE])
    if not usual or (
        rare
        and usual[0].best_loss.mean() > GOOD  # where all is right, the scale says nothing
        and _is_worse(usual[0].loss, rare[0].loss)
        and not _is_worse(rare[0].best_loss, usual[0].best_loss)
    ):
        return rare
    return usual


def _ranked(good: Sequence[InputFit]) -> list[InputFit]:
    if not good:
        return []
    # How sure a net is tells its own input among those that give the same answers.
    sharpest = min(good, key=lambda fit: float(fit.best_loss.mean()))
    good = [fit for fit in good if not _is_worse(fit.best_loss, sharpest.best_loss)]
    best = min(good, key=lambda fit: float(fit.loss.mean()))
    alike = [fit for fit in good if not _is_worse(fit.loss, best.loss)]
    return sorted(alike, key=lambda fit: _standing(fit, best))


def _standing(fit: InputFit, best: InputFit) -> tuple[bool, float, bool, float]:
    """Return what those that fit alike are sorted by: a name is worth one standard error."""
    gap, named = fit.loss - best.loss, fit.name in NORMALISATIONS
    away = max(float(gap.mean()) - NEAR, 0.0) / max(float(gap.std()) / len(gap) ** 0.5, 1e-12)
    own = fit.layer not in (*NORMALISATIONS.values(), *GREY)
    return own, max(away - named, 0.0), not named, float(fit.loss.mean())


def _is_worse(loss: Floats, best: Floats, errors: float = ALIKE) -> bool:
    gap = loss - best
    return bool(gap.mean() > max(NEAR, errors * gap.std() / np.sqrt(len(gap))))


def _candidates(images: ImageSet) -> list[Normalisation]:
    """Return what people put in front of nets, for images of as many channels."""
    channels = images.images.shape[3]
    layers = [layer for layer in NORMALISATIONS.values() if len(layer.mean) in (1, channels)]
    layers += GREY if channels == 1 else ()
    counts = np.zeros((channels, 256))
    for _, part in chunks(_spread(images, FINEST).images):
        counts += [np.bincount(one.ravel(), minlength=256) for one in np.moveaxis(part, 3, 0)]
    values, share = np.arange(256) / 255, counts / counts.sum(1, keepdims=True)
    mean = share @ values
    std = np.sqrt((share * (values - mean[:, None]) ** 2).sum(1))
    if (std > 0.001).all():
        texts = ("/".join(f"{value:.4f}" for value in values) for values in (mean, std))
        layers.append(Normalisation.parse("mean={},std={}".format(*texts)))
    return [*layers, *map(Normalisation.parse, RARE)]


def _flipped(module: nn.Module, images: ImageSet, now: InputFit, alone: bool) -> tuple[str, ...]:
    """Return a note where colours fit far better as blue, green, red; `alone` tries all inputs."""
    if images.images.shape[3] != 3:
        return ()
    flipped = ImageSet(each(images.images, lambda part: part[..., ::-1]), images.labels)
    layers = [now.layer, *(_candidates(images) if alone else ())]
    # for the channels in the other order: as if these were flipped behind it
    turned = [
        layer and replace(layer, mean=layer.mean[::-1], std=layer.std[::-1]) for layer in layers
    ]
    fits = [
        fit if now.order is None else fit.reordered() for fit in _tried(module, flipped, turned)
    ]
    good = _ranked([fit for fit in fits if fit.beats(now)])
    if not good:
        return ()
    behind = f"--normalise {good[0].name} and " if good[0].name else ""
    told = _told(now, "in red, green, blue", good[0], f"{behind}blue, green, red")
    return (f"{told}: OpenCV's order? wrap it, net(x.flip(1))",)


def _told(now: InputFit, form: str, fit: InputFit, remedy: str) -> str:
    return (
        f"of {len(now.labels)} images {form} it gets {now.right.mean():.0%} right (loss "
        f"{now.loss.mean():.2g}), and {fit.right.mean():.0%} with {remedy} (loss "
        f"{fit.loss.mean():.2g})"
    )


def _spread(images: ImageSet, count: int) -> ImageSet:
    """Return up to `count` images, spread evenly, as a set may be sorted by class."""
    places = np.linspace(0, len(images) - 1, min(count, len(images))).astype(int)
    return images.take(np.unique(places))
