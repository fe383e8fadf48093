"""What a model answers: logits in float32, without touching it; how right they are; for attacks.

An attack asks a fast replica, whose weights lie in memory as the processor likes them; the model
itself has the last word wherever two classes are so close that rounding could matter.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from scipy.special import log_softmax
from torch import Tensor, nn

from purpleteam.core.arrays import Bools, Floats, Ints, Singles
from purpleteam.core.errors import ModelError, UsageError
from purpleteam.core.records import Measurement
from purpleteam.core.statistics import CONFIDENCE, Counts, Estimate, Rate, fraction_interval, mean
from purpleteam.data.images import ImageSet, check_is_set
from purpleteam.data.streamed import Images, Streamed
from purpleteam.models import devices
from purpleteam.models.adapters import scored
from purpleteam.models.guard import Classifier as Classifier
from purpleteam.models.guard import Guarded, guarded

CACHE_BATCH = 100  # images a call: a layer's activations stay in the processor's cache
DRAWS = 32  # calls whose mean is the answer of a model that draws random numbers
SHOWN = 16  # images that are shown again and again to see whether the answers change
REPEATED, UNMOVED = 128, 32  # of them in all, where torch's generator moved, and where it did not
SAME = 1e-5  # share of the scores' spread by which they may differ from call to call, on a GPU
CLEAR = 1e-3  # lead of the first score, as a share of the spread, that no rounding undoes
BINS = 15  # of confidence
NUMBERS = ("clean_accuracy", "loss", "calibration_error", "confusion_matrix")
FLAT = 1 / 64  # least part of the range at one end on which a net's answers do not depend
UNMOVED_BY = 1e-6  # share of the scores' spread that is rounding
LISTED = 100  # most classes whose scores are each a record
HALVINGS = 22  # of the range, to find where a flat end begins
INWARD = 1e-6  # how far inside the range a gradient is taken of a net that has none at its ends


T = TypeVar("T")


def logits(model: Classifier, images: Images, *, batch_size: int = CACHE_BATCH) -> Singles:
    """Return float32 logits (N, classes) for uint8 images (N, H, W, C).

    A model behind an app may refuse an image, which is then a row of NaN. Of a model that answers
    at random it is the mean over 32 draws, the same ones each time where they are torch's.

    Raises:
        UsageError: the images are none.
        ModelError: the model does not take such images, or does not return one row of finite
            numbers for each.
    """
    return np.concatenate(_answers(model, images, batch_size, lambda scores, _: scores))


def _answers(
    model: Classifier, images: Images, batch_size: int, then: Callable[[Singles, slice], T]
) -> list[T]:
    """Return what `then` makes of the logits of each batch; all of them might be too many."""
    numeric = isinstance(images, np.ndarray | Streamed) and images.dtype == np.uint8
    if not numeric or images.ndim != 4:
        # floats in [0, 1] would be divided by 255 and answered
        kind = getattr(images, "dtype", None)
        came = type(images).__name__ if kind is None else f"{kind} {tuple(images.shape)}"
        raise UsageError(f"images are {came}; wanted: a NumPy array of uint8 (N, H, W, C)")
    if batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, not {batch_size}")
    device = devices.device_of(model)
    made: list[T] = []
    with devices.frozen(model) as net, torch.no_grad(), devices.forked(device):
        draws, may_refuse = 1, not net.differentiable
        for start in range(0, len(images), batch_size):
            batch = devices.to_batch(images[start : start + batch_size], device)
            if start == 0 and not may_refuse and is_random(net, batch):
                draws = DRAWS
                torch.manual_seed(0)
            answer = net(batch)
            for _ in range(draws - 1):
                answer += net(batch)
            answer = answer / draws if draws > 1 else answer
            answered = answer[~answer.isnan().all(1)] if may_refuse else answer
            if not torch.isfinite(answered).all():
                raise ModelError("the model returned NaN or infinite logits")
            made.append(then(answer.cpu().numpy(), slice(start, start + batch_size)))
    if not made:
        raise ModelError("there is no image to ask the model about")
    return made


def is_random(net: Classifier, x: Tensor) -> bool:
    """Say whether the scores of images change from call to call, of a net as `frozen` yields it."""
    few = x[:SHOWN]
    with devices.forked(x.device), torch.no_grad():
        before = torch.get_rng_state()
        first = torch.nan_to_num(net(few))
        apart = SAME * (first.amax() - first.amin())
        moved = x.is_cuda or not torch.equal(before, torch.get_rng_state())
        repeats = math.ceil((REPEATED if moved else UNMOVED) / len(few))
        others = (torch.nan_to_num(net(few)) for _ in range(repeats))
        return any(bool((first - other).abs().amax() > apart) for other in others)


def correct(model: Classifier, images: ImageSet, *, batch_size: int = CACHE_BATCH) -> Bools:
    """Return for each image whether the model's label is the true one; a refusal is none."""

    def right(scores: Singles, place: slice) -> Bools:
        refused = np.isnan(scores).any(1)
        return np.asarray((scores.argmax(1) == images.labels[place]) & ~refused)

    return np.concatenate(_answers(model, images.images, batch_size, right))


@dataclass(frozen=True, eq=False)
class Nets:
    """A model and its fast replica, which is compared with it and not used where it differs."""

    model: Guarded  # as the user has it: the truth
    fast: Guarded  # the same function in float32, or the model itself
    classes: int
    differentiable: bool = True  # gradients of its scores reach the images
    random: bool = False  # its scores change from call to call
    inward: float = 0.0
    """How far inside [0, 1] gradients are taken: above 0 for a net that clips its input by a
    function without a slope at the ends of the range."""
    sloped: Tensor | None = None
    """The part of [0, 1], (2, 1, C, 1, 1), outside of which a value counts as its nearer end: above
    and below, a net behind an input ramp has no slope. None where every value counts."""

    @classmethod
    def of(cls, model: Classifier | Nets, x: Tensor) -> Nets:
        """Return what an attack asks of `model`, which is in eval mode, seen on some of `x`."""
        if isinstance(model, Nets):
            return model
        asked = guarded(model)
        if len(x) == 0 or not asked.differentiable:
            classes = int(getattr(asked.model, "classes", 0))
            return cls(asked, asked, classes, asked.differentiable)
        x = x[:SHOWN].detach()
        with devices.forked(x.device):
            slope = _slope(asked, x[:4])
            random = is_random(asked, x)
            blind = random or slope is None
            inward, sloped = (0.0, None) if blind else _ends(asked, x)
            with torch.no_grad():
                classes = asked(x).shape[1]
        fast = None
        if not random and isinstance(asked.model, nn.Module):
            fast = devices.channels_last_copy(asked, x)
        return cls(asked, fast or asked, classes, slope is not None, random, inward, sloped)

    def too_close_to_call(self, scores: Tensor) -> Tensor:
        """Say for which scores of `fast`, (N, classes), the model itself might say otherwise."""
        if self.fast is self.model or scores.shape[1] < 2:
            return torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
        first, second = scores.topk(2, dim=1).values.unbind(1)
        spread = scores.amax(1) - scores.amin(1)
        return ~(first - second > CLEAR * spread)  # NaN is no clear answer


def _slope(net: Classifier, x: Tensor) -> Tensor | None:
    """Return the slope of a mixture of the scores at `x`; None where the images get no gradient."""
    try:
        return devices.scores_and_slope(net, x)[1]
    except ModelError:  # as of x.numpy(), or of weights made in inference_mode
        with torch.no_grad():
            net(x)
    except (RuntimeError, UserWarning):  # an operation without a derivative
        pass
    return None


def _ends(net: Classifier, x: Tensor) -> tuple[float, Tensor | None]:
    """Return `Nets.inward` and `Nets.sloped`, by gradients at noise with many values at ends."""
    rng = torch.Generator().manual_seed(0)
    n = max(2, math.ceil(64 / max(x[0, 0].numel(), 1)))
    noise = (3 * torch.rand((n, *x.shape[1:]), generator=rng) - 1).clamp(0, 1).to(x.device)
    at = _slope(net, noise)
    if at is None or not at.any():
        return 0.0, None

    def flat(slope: Tensor) -> Tensor:  # (2, C): which channels have none at 0, and at 1
        ends = [((slope != 0) & (noise == end)).any(3).any(2).any(0) for end in (0, 1)]
        return ~torch.stack(ends) & (at != 0).any(3).any(2).any(0)

    if not flat(at).any() or (inside := _slope(net, noise.clamp(INWARD, 1 - INWARD))) is None:
        return 0.0, None
    still = flat(at) & flat(inside)
    inward = INWARD if (flat(at) & ~still).any() else 0.0
    within = FLAT * noise  # here only an end that is flat gives the same answers
    shown = torch.cat([x[:4], noise[:16], within[:16], 1 - within[:16]])
    return inward, _sloped(net, shown, still) if still.any() else None


@torch.no_grad()
def _sloped(net: Classifier, x: Tensor, flat: Tensor) -> Tensor | None:
    """Return the part outside of which these images' values, moved to its ends, change nothing."""
    scores, whole = net(x), x.new_tensor([0, 1]).view(2, 1, 1, 1, 1).repeat(1, 1, x.shape[1], 1, 1)
    rounding, sloped = UNMOVED_BY * (scores.amax() - scores.amin()), whole.clone()
    for end, channel in flat.nonzero().tolist():
        known, moved, tried = FLAT, 1.0, FLAT  # shares of the range, from that end
        for _ in range(HALVINGS):
            bounds = whole.clone()
            bounds[end, 0, channel] = abs(end - tried)
            unmoved = bool((net(x.clamp(*bounds)) - scores).abs().amax() <= rounding)
            known, moved = (tried, moved) if unmoved else (known, tried)
            tried = (known + moved) / 2
        if moved > FLAT:
            sloped[end, 0, channel] = abs(end - moved)
    # a step has no part between: there the two ends are one
    return None if torch.equal(sloped, whole) else sloped.sort(0).values


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

    def measurements(
        self, subject: Mapping[str, Any], classes: Sequence[str] = ()
    ) -> list[Measurement]:
        """Return the same numbers as records about `subject`, with the names of the classes.

        Scores of each class are records of their own up to `LISTED` classes: beyond, the confusion
        matrix has them.
        """
        cost = {"clean_accuracy": {"seconds_per_image": self.seconds_per_image}}
        numbered = all(name == str(number) for number, name in enumerate(classes))
        names = {} if numbered else {"confusion_matrix": {"classes": list(classes)}}
        told = [{} if numbered else {"class_name": name} for name in classes] or [{}] * LISTED
        listed = self.per_class if len(self.per_class) <= LISTED else ()
        return [
            Measurement(
                name=name,
                value=getattr(self, name),
                subject=subject,
                cost=cost.get(name, {}),
                detail=names.get(name, {}),
            )
            for name in NUMBERS
        ] + [
            Measurement(
                name=name,
                value=value,
                subject=subject,
                how={"class": number},
                detail=told[number],
            )
            for number, scores in enumerate(listed)
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

    def judged(scores: Singles, place: slice) -> tuple[Bools, Ints, Floats, Floats]:
        """Return for each image: is there an answer, which, its loss, how sure it is."""
        if (known := scores.shape[1]) != classes:
            raise ModelError(f"the model scores {known} classes, the images have {classes}")
        if not 0 <= (low := images.labels.min()) <= (high := images.labels.max()) < classes:
            wanted = f"0 to {classes - 1}, one for each of the {classes} scores of the model"
            raise ModelError(f"labels reach from {low} to {high}; wanted: {wanted}")
        labels = images.labels[place]
        chances = log_softmax(scores.astype(np.float64), axis=1)
        losses = -chances[np.arange(len(labels)), labels]
        told = np.asarray(~np.isnan(scores).any(1))
        return told, scores.argmax(1), losses, np.exp(chances.max(1))

    parts = zip(*_answers(model, images.images, batch_size, judged), strict=True)
    answered, read, losses, confidence = map(np.concatenate, parts)
    if not answered.any():
        raise ModelError(f"the model gave no label to any of {len(images)} images")
    batch, seconds = devices.to_batch(images.images[:batch_size], devices.device_of(model)), []
    with devices.frozen(model) as net, torch.no_grad(), devices.forked(batch.device):
        net(batch)  # warm-up
        for _ in range(5):
            started = time.perf_counter()
            net(batch)
            seconds.append((time.perf_counter() - started) / len(batch))
    right = (read == images.labels) & answered
    labels, losses, confidence = images.labels[answered], losses[answered], confidence[answered]
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (labels, read[answered]), 1)
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
