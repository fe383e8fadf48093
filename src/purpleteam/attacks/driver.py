"""What an attack looks for and climbs, how much it may cost, and what it cost.

The losses are (n,) of logits (n, classes), labels (n,) and labels aimed at. The differences of
logits ratio (DLR) is unmoved by scaling and shifting the logits, so a net cannot hide behind
confident scores (Croce & Hein 2020, arXiv:2003.01690).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from purpleteam.attacks.norms import column, distance, project, quantise
from purpleteam.models.adapters import Normalised
from purpleteam.models.guard import guarded
from purpleteam.models.inference import INWARD, Classifier, Nets

FRESH, ROUNDS = 16, 16  # draws at a time until it is clear whether their mean errs
CERTAIN = 3.0  # standard errors by which the mean must err
CACHED_VALUES = 100_352  # pixels in a micro-batch on a processor: 128 images of 28 x 28
VALUES_ON_GPU = 6_422_528  # 8,192 images of 28 x 28
TINY = 1e-12  # keeps a ratio finite where all logits are equal

Loss = Callable[..., Tensor]  # (n,) of logits (n, classes), labels (n,) and more for each image


@dataclass
class Cost:
    """Model calls so far, counted per image; not the few that look at a net beforehand."""

    forward: int = 0
    backward: int = 0


@dataclass(frozen=True, kw_only=True)
class Search:
    """What is looked for, and how much it may cost."""

    epsilon: float
    norm: str
    nearest: bool = False  # look for the nearest adversarial example, whatever its distance
    stop_inside: bool = True  # leave an image alone once one inside the ball is found
    queries: int | None = None  # most model calls for one image
    samples: int = 1  # calls that are averaged, for a model whose answers are random
    in_box: bool = False  # step where the model's first layer has a slope: see `Box`

    @property
    def bounded(self) -> bool:  # an example must lie in the ball to be one
        return not self.nearest or self.epsilon < float("inf")


class Box:
    """Each image's ball in L-infinity, stretched over the part of it where a first layer slopes.

    A layer h that is monotone in each value maps a ball onto exactly a box, the product of the
    [h(x - epsilon), h(x + epsilon)]. Where h is flat at its ends, every point of the box is met by
    an image of the ball within the `sloped` part. What an attack takes for the ball is mapped onto
    these images value by value: linear, monotone, and never flat unless the box has no width there.
    """

    def __init__(self, x: Tensor, epsilon: float, sloped: Tensor) -> None:
        self.start, end = (x - epsilon).clamp(0, 1), (x + epsilon).clamp(0, 1)
        low, high = sloped  # the nearest values of the ball, where it does not reach them
        self.low = torch.maximum(self.start, torch.minimum(low, end))  # (N, C, H, W)
        self.high = torch.minimum(end, torch.maximum(high, self.start))
        self.stretch = (self.high - self.low) / (end - self.start).clamp_min(TINY)

    def image(self, candidates: Tensor, rows: Tensor) -> Tensor:
        """Return the images in the balls of `rows` (M,) that candidates (M, C, H, W) stand for."""
        low, high = _at(self.low, rows), _at(self.high, rows)
        moved = (candidates - _at(self.start, rows)).mul_(_at(self.stretch, rows)).add_(low)
        return torch.minimum(torch.maximum(moved, low), high)


def image_of(model: nn.Module, x: Tensor, epsilon: float) -> Callable[[Tensor], Tensor]:
    """Return what makes images of candidates around `x` in training: of a ramp's box, or as is."""
    net = guarded(model).model
    if not (isinstance(net, Normalised) and net.normalisation.clip):
        return lambda candidates: candidates
    box = Box(x, epsilon, torch.stack([net.mean + INWARD, net.mean + net.std - INWARD]))
    return partial(box.image, rows=torch.arange(len(x), device=x.device))


class Driver:
    """The model as one attack sees it on one batch. Holds what was found so far."""

    def __init__(self, nets: Nets, x: Tensor, y: Tensor, search: Search, cost: Cost) -> None:
        self.nets, self.model, self.classes = nets, nets.model, nets.classes
        self.x, self.y = x, y  # (N, C, H, W) and (N,)
        self.search, self.cost = search, cost
        sloped = nets.sloped if search.in_box else None
        self.box = None if sloped is None else Box(x, search.epsilon, sloped)
        self.dropped = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.nearest = x.clone()
        self.nearest_distance = torch.full((len(x),), torch.inf, device=x.device).double()
        self.queries = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        self.steps = torch.zeros_like(self.queries)
        values = VALUES_ON_GPU if x.is_cuda else CACHED_VALUES
        self._micro_batch = max(8, values // max(x[0].numel(), 1)) if len(x) else 1

    @property
    def standing(self) -> Tensor:
        """(N,) bool: the images that are still attacked."""
        left = ~self.dropped
        return left if self.search.queries is None else left & (self.queries < self.search.queries)

    @property
    def broken(self) -> Tensor:
        """(N,) bool: an adversarial example inside the ball is known."""
        if not self.search.nearest:
            return self.dropped
        return (self.nearest_distance <= self.search.epsilon) & self.found

    @property
    def found(self) -> Tensor:
        """(N,) bool: an adversarial example is known, at whatever distance."""
        return torch.isfinite(self.nearest_distance)

    def gradient(self, x_adv: Tensor, loss: Loss | None = None, *per_image: Tensor) -> Tensor:
        """Return the gradient of the loss (default: cross-entropy) at `x_adv`, (N, C, H, W)."""
        return self.value_and_gradient(x_adv, loss, *per_image)[1]

    def value_and_gradient(
        self, x_adv: Tensor, loss: Loss | None = None, *per_image: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the loss (N,) and its gradient at `x_adv`; both are 0 for a dropped image."""
        values, slopes = x_adv.new_zeros(len(x_adv)), torch.zeros_like(x_adv)
        samples = self.search.samples
        for rows in self._standing_rows():
            part = self._image(_at(x_adv.detach(), rows), rows)
            extras = [_at(extra, rows) for extra in per_image]
            answers = [self._climbed(part, rows, loss, extras) for _ in range(samples)]
            value, slope, scores = map(_mean, zip(*answers, strict=True))
            values.index_copy_(0, rows, value.to(values.dtype))
            slopes.index_copy_(0, rows, slope.to(slopes.dtype))
            self.cost.backward += len(rows) * samples
            self._count(rows, samples, step=True)
            self._look(rows, part, scores)
        return values, slopes

    def _climbed(
        self, x: Tensor, rows: Tensor, loss: Loss | None, extras: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return each candidate's loss, its gradient (0 where there is none) and the scores."""
        inward = self.nets.inward
        asked = (x.clamp(inward, 1 - inward) if inward else x).detach().requires_grad_(True)
        slope = None
        with torch.enable_grad():
            logits = self.nets.fast(asked)
            value = (loss or cross_entropy)(logits, self.y[rows], *extras)
            if value.requires_grad:
                (slope,) = torch.autograd.grad(value.sum(), asked, allow_unused=True)
        slope = torch.zeros_like(x) if slope is None else torch.nan_to_num(slope)
        return value.detach(), slope, logits.detach()

    @torch.no_grad()
    def logits(self, x_adv: Tensor, images: Tensor | None = None) -> Tensor:
        """Return the scores (M, classes) of candidates (M, C, H, W); 0 where an image was dropped.

        `images` (M,) says whose candidates they are, each at most once; by default all, in order.
        """
        scores = x_adv.new_zeros(len(x_adv), self.classes)
        for places in self._standing_rows(images):
            rows = places if images is None else _at(images, places)
            part = self._sent(self._image(_at(x_adv.detach(), places), rows), rows)
            answer = self._asked(part, self.nets.fast)
            self._count(rows, self.search.samples, step=True)
            self._look(rows, part, answer, final=self.nets.fast is self.model)
            scores.index_copy_(0, places, torch.nan_to_num(answer).to(scores.dtype))
        return scores

    @torch.no_grad()
    def errs(self, candidates: Tensor, rows: Tensor) -> Tensor:
        """Say for each candidate (M, C, H, W) of the image `rows` (M,) whether the model errs.

        What the budget no longer allows is answered no. A random model may err by chance: an
        example is kept only where its mean does.
        """
        answers = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        affordable = ~self.dropped[rows]
        if self.search.queries is not None:  # in order of asking
            affordable &= _place_among_equals(rows) < self.search.queries - self.queries[rows]
        for part in self._micro_batches(affordable):
            images = rows[part]
            asked = self._sent(self._image(candidates[part].detach(), images), images)
            answers[part] = wrong = _wrong(self._asked(asked, self.model), self.y[images])
            self._count(images, self.search.samples)
            if wrong.any():
                images, asked = images[wrong], asked[wrong]
                sure = self._errs(asked, images) if self.nets.random else slice(None)
                self._keep(images[sure], asked[sure])
        return answers

    def settle(self, x_adv: Tensor, *, confirm: bool = True) -> Tensor:
        """Return the best for each image; unless `confirm`, a last candidate may be unasked."""
        x_adv = self._image(x_adv.detach(), torch.arange(len(x_adv), device=x_adv.device))
        needed = confirm or self.search.nearest or not self.nets.differentiable
        for rows in self._standing_rows() if needed else ():
            self._confirm(rows, self._sent(x_adv[rows], rows))
        last = self._inside(x_adv, slice(None))
        last = torch.where(torch.isfinite(last), last, self.x)
        known = self.broken if self.search.bounded else self.found
        return torch.where(column(known), self.nearest, last)

    def _standing_rows(self, images: Tensor | None = None) -> tuple[Tensor, ...]:
        return self._micro_batches(self.standing if images is None else self.standing[images])

    def _micro_batches(self, wanted: Tensor) -> tuple[Tensor, ...]:
        rows = wanted.nonzero().flatten()
        return torch.split(rows, self._micro_batch) if len(rows) else ()

    def _asked(self, x_adv: Tensor, net: Classifier) -> Tensor:
        return _mean([net(x_adv) for _ in range(self.search.samples)])

    def _count(self, rows: Tensor, calls: int | Tensor, *, step: bool = False) -> None:
        once = torch.ones_like(rows)
        self.cost.forward += int((once * calls).sum())
        self.queries.index_add_(0, rows, once * calls)
        if step:
            self.steps.index_add_(0, rows, once)

    def _inside(self, x_adv: Tensor, rows: Tensor | slice) -> Tensor:
        if not self.search.bounded:
            return x_adv.clamp(0, 1)
        return project(x_adv, self.x[rows], self.search.epsilon, self.search.norm)

    def _image(self, candidates: Tensor, rows: Tensor) -> Tensor:
        return candidates if self.box is None else self.box.image(candidates, rows)

    def _sent(self, x_adv: Tensor, rows: Tensor) -> Tensor:
        """Return what is sent: a model that gives answers alone is asked what may be kept."""
        if self.nets.differentiable:
            return x_adv
        allowed = self._inside(x_adv, rows) if not self.search.nearest else x_adv.clamp(0, 1)
        if not self.nets.model.quantised:
            return allowed
        return quantise(allowed, None if self.search.nearest else self.x[rows])

    def _look(self, rows: Tensor, x_adv: Tensor, logits: Tensor, *, final: bool = False) -> None:
        """Follow up the candidates that err by these logits; `final` needs no second opinion."""
        wrong = _wrong(logits, self.y[rows])
        if wrong.any():
            final = final and not self.nets.differentiable and not self.nets.random
            (self._keep if final else self._confirm)(rows[wrong], x_adv[wrong])

    @torch.no_grad()
    def _confirm(self, rows: Tensor, x_adv: Tensor) -> None:
        """Ask again about candidates that are allowed and worth it."""
        if self.search.nearest:
            candidate = x_adv.clamp(0, 1)
            nearer = distance(candidate, self.x[rows], self.search.norm)
            better = nearer < self.nearest_distance[rows]
            rows, candidate = rows[better], candidate[better]
        else:
            candidate = self._inside(x_adv, rows) if self.nets.differentiable else x_adv
        if len(rows):
            wrong = self._errs(candidate, rows)
            self._keep(rows[wrong], candidate[wrong])

    def _errs(self, x_adv: Tensor, rows: Tensor) -> Tensor:
        """Say where the model errs beyond doubt: by the mean of its answers, if they are random."""
        if self.nets.random:
            errs, calls = errs_on_average(self.model, x_adv, self.y[rows])
            self._count(rows, calls)
            return errs
        scores = self.nets.fast(x_adv)
        self._count(rows, 1)
        close = self.nets.too_close_to_call(scores)
        if close.any():
            scores[close] = self.model(x_adv[close])
            self._count(rows[close], 1)
        return _wrong(scores, self.y[rows])

    def _keep(self, rows: Tensor, x_adv: Tensor) -> None:
        """Remember adversarial examples, the nearest of each image, and drop what is done."""
        length = distance(x_adv, self.x[rows], self.search.norm)
        finite = torch.isfinite(x_adv).flatten(1).all(1)
        order = length.argsort(stable=True)
        order = order[finite[order] & (length[order] < self.nearest_distance[rows[order]])]
        order = order[_place_among_equals(rows[order]) == 0]  # the nearest of each image
        self.nearest[rows[order]] = x_adv[order]
        self.nearest_distance[rows[order]] = length[order]
        if not self.search.nearest:
            self.dropped[rows[finite]] = True
        elif self.search.stop_inside:
            self.dropped |= self.nearest_distance <= self.search.epsilon


def errs_on_average(model: Classifier, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Say where the mean answer errs beyond doubt, (N,), and how often each image was drawn."""
    errs = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    calls = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    unclear = torch.arange(len(x), device=x.device)
    scores: Tensor | None = None  # (draws, n, classes)
    for _ in range(ROUNDS):
        part, labels = x[unclear], y[unclear]
        drawn = torch.stack([model(part) for _ in range(FRESH)])
        scores = drawn if scores is None else torch.cat([scores, drawn])
        calls[unclear] += FRESH
        other = scores.mean(0).scatter(1, labels[:, None], -torch.inf).argmax(1)
        places = torch.arange(len(part), device=x.device)
        lead = scores[:, places, other] - scores[:, places, labels]  # (draws, n)
        mean, error = lead.mean(0), lead.std(0) / len(lead) ** 0.5
        errs[unclear[mean > CERTAIN * error]] = True
        still = (mean > 0) & (mean <= CERTAIN * error)  # a mean that is right errs no more
        unclear, scores = unclear[still], scores[:, still]
        if len(unclear) == 0:
            break
    return errs, calls


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return -log of the softmax at the label."""
    return F.cross_entropy(logits, y, reduction="none")


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return the best wrong logit minus that of the label: above 0 the model errs."""
    return logits.scatter(1, y.unsqueeze(1), -torch.inf).amax(1) - _logit(logits, y)


def targeted_margin(logits: Tensor, y: Tensor, target_label: Tensor) -> Tensor:
    """Return the logit of the target minus that of the label."""
    return _logit(logits, target_label) - _logit(logits, y)


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Return the margin over the gap between first and third logit; needs 3 classes."""
    first, _, third = logits.topk(3, dim=1).values.unbind(1)
    return margin(logits, y) / (first - third + TINY)


def targeted_dlr(logits: Tensor, y: Tensor, target_label: Tensor) -> Tensor:
    """Return the target's margin over the first logit's gap to the third and fourth; 4 classes."""
    first, _, third, fourth = logits.topk(4, dim=1).values.unbind(1)
    gap = first - (third + fourth) / 2
    return targeted_margin(logits, y, target_label) / (gap + TINY)


def _logit(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.gather(1, labels.unsqueeze(1)).squeeze(1)


def _at(tensor: Tensor, rows: Tensor) -> Tensor:
    """Return these rows, ordered and each there once."""
    return tensor if len(rows) == len(tensor) else tensor.index_select(0, rows)


def _mean(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.stack(list(parts)).mean(0)


def _place_among_equals(rows: Tensor) -> Tensor:
    """Return for each entry how many equal ones come before it."""
    order = rows.argsort(stable=True)
    place = torch.arange(len(rows), device=rows.device)
    first = torch.searchsorted(rows[order], rows[order])  # where its equals start
    return torch.empty_like(place).index_copy_(0, order, place - first)


def _wrong(logits: Tensor, y: Tensor) -> Tensor:
    """Say where the label is another; a row with NaN is no answer, and so no wrong one."""
    wrong: Tensor = logits.argmax(1) != y  # NaN counts as largest
    if wrong.any():
        wrong &= ~torch.isnan(logits).any(1)
    return wrong
