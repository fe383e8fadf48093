"""The norms: how far an adversary may move an image, and how; and the seeded draws of an attack.

A norm is one entry of `NORMS`, a class here or in a plug-in. Images are (N, C, H, W) in [0, 1];
epsilon is in pixel units, in L0 a number of values. `spatial` and `corruption` name sets that no
distance bounds: the attack keeps to its set by itself, and the distance is told in L2.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from purpleteam.core.registry import Registry

HALVINGS, SLOPE_HALVINGS = 40, 30  # of intervals, in L1
NEWTON_STEPS = 50  # at most; each fills at least one more value, and some six fill all
LEVELS = 255  # steps between black and white where an image is kept as bytes


class Noise:
    """Draws for the images of one batch, seeded per image by its index, restart, draw and attack.

    Neither batch size, order and shard matter, nor which of its neighbours were dropped.
    """

    def __init__(self, seed: int, index: Tensor, restart: int = 0, stream: str = "") -> None:
        """Take each image's place in its dataset, (N,); `stream` tells attacks of one ladder."""
        self.seed, self.index, self.restart, self.stream = seed, index, restart, stream
        self._draws = 0

    def uniform(self, like: Tensor) -> Tensor:
        """Return numbers in [0, 1) of the shape, type and device of `like`."""
        return self._draw(like, torch.rand)

    def normal(self, like: Tensor) -> Tensor:
        return self._draw(like, torch.randn)

    def seed_torch(self) -> None:
        """Seed torch's own generators, from which a model of random answers draws."""
        torch.manual_seed(seed_of(f"{self.seed}/{self.index.tolist()}/{self.restart}{self.stream}"))

    def _draw(self, like: Tensor, kind: Callable[..., Tensor]) -> Tensor:
        self._draws += 1
        rng, rows = torch.Generator(), []
        for index in self.index.tolist():
            key = f"{self.seed}/{index}/{self.restart}/{self._draws}{self.stream}"
            rng.manual_seed(seed_of(key))
            rows.append(kind(like.shape[1:], generator=rng))
        return torch.stack(rows).to(device=like.device, dtype=like.dtype)


def seed_of(key: str, content: bytes = b"") -> int:
    """Return the seed that stands for a key of any length."""
    return int.from_bytes(hashlib.sha256(key.encode() + content).digest()[:7], "big")


def column(per_image: Tensor) -> Tensor:
    """Return one number an image (N,) as (N, 1, 1, 1)."""
    return per_image.view(-1, 1, 1, 1)


class Norm:
    """One norm, by what the attacks ask of it; the defaults are those of L2."""

    name: str = ""
    order: float = 2
    bounded: bool = True  # epsilon is the radius of a ball around the image
    convex: bool = True  # so is the ball: attacks by projected gradient steps are defined in it
    sparse: bool = False  # the steepest step moves one value; the ball holds sparse changes
    usual_epsilon: float | None = None  # asked about where none is named: MNIST's usual one
    largest_epsilon: float = math.inf  # that makes sense whatever the image

    def project(self, x_adv: Tensor, x: Tensor, epsilon: float) -> Tensor:
        """Return the candidate scaled into the ball around `x`, then clamped to [0, 1]."""
        perturbation = x_adv - x
        share = (epsilon / self.length(perturbation).clamp_min(1e-12)).clamp_max(1)
        return (x + perturbation * column(share)).clamp(0, 1)  # towards x: stays in the ball

    def shrink(self, perturbation: Tensor, radius: Tensor) -> Tensor:
        """Return each perturbation moved into the ball of its own radius (N,) around 0."""
        share = (radius / self.length(perturbation).clamp_min(1e-12)).clamp_max(1)
        return perturbation * column(share)

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return the step of length 1 that climbs fastest; 0 where the gradient is 0."""
        scale = column(gradient.flatten(1).abs().amax(1))  # keeps tiny gradients from vanishing
        gradient = gradient / scale.clamp_min(1e-38)  # when they are squared
        length = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
        return gradient / column(length).clamp_min(1e-12)

    def step(self, gradient: Tensor, x_adv: Tensor, length: float, sparsity: float) -> Tensor:
        """Return a step of that length; in a sparse norm that share of the values stays."""
        return length * self.steepest(gradient)

    def start(self, x: Tensor, epsilon: float, noise: Noise) -> Tensor:
        """Return a uniform point of the ball around each image, not yet within [0, 1]."""
        direction = self.steepest(noise.normal(x))
        share = noise.uniform(x[:, :1, :1, :1]) ** (1 / x[0].numel())  # uniform in volume
        return x + epsilon * share * direction

    def rim(self, x: Tensor, epsilon: float, noise: Noise) -> Tensor:
        """Return a random point on the border of the ball, within [0, 1]."""
        return (x + epsilon * self.steepest(noise.normal(x))).clamp(0, 1)

    def length(self, perturbation: Tensor) -> Tensor:
        """Return the length of each perturbation, (N,), in its own precision."""
        return self.distance(perturbation.flatten(1))

    def dual_length(self, normal: Tensor) -> Tensor:
        """Return the length (N,) of gradients where steps are measured in this norm."""
        return self.length(normal)

    def distance(self, perturbation: Tensor) -> Tensor:
        """Return the length of flat perturbations (N, values), (N,)."""
        length: Tensor = torch.linalg.vector_norm(perturbation, ord=self.order, dim=1)
        return length

    def whole_cube(self, values: int) -> float:
        """Return the epsilon at which the ball holds every image of `values` values: no bound."""
        return math.pow(values, 1 / self.order) if self.order else float(values)

    def onto_plane(self, size: Tensor, room: Tensor, reach: Tensor) -> Tensor:
        """Return by how much each value moves on the shortest way to a hyperplane, (..., N, D).

        Here in proportion to its slope, `size` (N, D), of which the largest of each image is 1, or
        by all the `room` (..., N, D) it has; moves times slopes add up to `reach` (..., N, 1).
        """
        until_full = room / size.clamp_min(1e-30)
        return torch.minimum(_stretch(size * size, size * room, until_full, reach) * size, room)


class _L2(Norm):
    usual_epsilon = 2.0


class _Linf(Norm):
    order = math.inf
    usual_epsilon = 0.3
    largest_epsilon = 1.0

    def project(self, x_adv: Tensor, x: Tensor, epsilon: float) -> Tensor:
        inside = torch.maximum(x_adv, x - epsilon)
        return torch.minimum(inside, x + epsilon, out=inside).clamp_(0, 1)

    def shrink(self, perturbation: Tensor, radius: Tensor) -> Tensor:
        bound = column(radius)
        return torch.maximum(torch.minimum(perturbation, bound), -bound)

    def steepest(self, gradient: Tensor) -> Tensor:
        return torch.sign(gradient)

    def start(self, x: Tensor, epsilon: float, noise: Noise) -> Tensor:
        return x + epsilon * (2 * noise.uniform(x) - 1)

    def rim(self, x: Tensor, epsilon: float, noise: Noise) -> Tensor:
        direction = 2 * noise.uniform(x) - 1
        return (x + epsilon * direction / column(self.length(direction))).clamp(0, 1)

    def dual_length(self, normal: Tensor) -> Tensor:
        return normal.flatten(1).abs().sum(1)

    def distance(self, perturbation: Tensor) -> Tensor:
        return perturbation.abs().amax(1)  # many times faster than the norm of infinite order

    def onto_plane(self, size: Tensor, room: Tensor, reach: Tensor) -> Tensor:
        # however small a slope: its value moves as far, which costs nothing, and from there the
        # slope may be another
        return torch.minimum(_stretch(size, size * room, room, reach), room)


class _L1(Norm):
    order = 1
    sparse = True
    usual_epsilon = 10.0

    def project(self, x_adv: Tensor, x: Tensor, epsilon: float) -> Tensor:
        """Return the nearest point of the ball around `x` within [0, 1] (arXiv:2103.01208).

        Every value shrinks by one threshold and stops at the range's edge; the smallest that fits
        is found by halving an interval, and its feasible end is taken.
        """
        perturbation = (x_adv - x).flatten(1)
        size = perturbation.abs()
        room = torch.where(perturbation > 0, 1 - x.flatten(1), x.flatten(1))
        low, high = torch.zeros_like(size[:, :1]), size.amax(1, keepdim=True)
        fits = torch.minimum(size, room).sum(1, keepdim=True) <= epsilon
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            moved = torch.minimum((size - middle).clamp_min(0), room).sum(1, keepdim=True)
            outside = moved > epsilon
            low, high = torch.where(outside, middle, low), torch.where(outside, high, middle)
        threshold = torch.where(fits, 0.0, high)
        kept = torch.minimum((size - threshold).clamp_min(0), room) * perturbation.sign()
        return (x + kept.view_as(x)).clamp(0, 1)

    def shrink(self, perturbation: Tensor, radius: Tensor) -> Tensor:
        """Every value shrinks by one threshold, found by sorting (Duchi et al. 2008)."""
        size = perturbation.flatten(1).abs()
        ordered = size.sort(1, descending=True).values
        count = torch.arange(1, ordered.shape[1] + 1, device=size.device)
        excess = (ordered.cumsum(1) - radius.unsqueeze(1)) / count
        threshold = excess.amax(1, keepdim=True).clamp_min(0)  # the largest is the one that fits
        return (size - threshold).clamp_min_(0).view_as(perturbation) * perturbation.sign()

    def steepest(self, gradient: Tensor) -> Tensor:
        flat = gradient.flatten(1)
        largest = flat.abs().argmax(1, keepdim=True)
        step = torch.zeros_like(flat).scatter_(1, largest, flat.gather(1, largest).sign())
        return step.view_as(gradient)

    def step(self, gradient: Tensor, x_adv: Tensor, length: float, sparsity: float) -> Tensor:
        """Share the step out evenly to the steepest values (SLIDE, arXiv:1904.13000).

        Each gets its share or what room it has within [0, 1]; what is left goes to the next ones.
        """
        slope = gradient.flatten(1)  # (N, values)
        room = torch.where(slope > 0, 1 - x_adv.flatten(1), x_adv.flatten(1)).clamp_min(0)
        share = length / max(1, round((1 - sparsity) * slope.shape[1]))
        steepest_first = slope.abs().argsort(dim=1, descending=True)
        most = (room.clamp_max(share) * slope.sign().abs()).gather(1, steepest_first)
        left = length - (most.cumsum(1) - most)
        taken = torch.minimum(most, left.clamp_min(0))
        step = torch.zeros_like(slope).scatter_(1, steepest_first, taken) * slope.sign()
        return step.view_as(gradient)

    def start(self, x: Tensor, epsilon: float, noise: Noise) -> Tensor:
        # exponential sizes, divided by their sum and one more, are uniform in the ball
        sizes = -torch.log1p(-noise.uniform(x))
        more = -torch.log1p(-noise.uniform(x[:, :1, :1, :1]))
        total = column(sizes.flatten(1).sum(1)) + more
        signs = torch.where(noise.uniform(x) < 0.5, -1.0, 1.0)
        return x + epsilon * signs * sizes / total

    def rim(self, x: Tensor, epsilon: float, noise: Noise) -> Tensor:
        return self.project(x + noise.normal(x), x, epsilon)

    def length(self, perturbation: Tensor) -> Tensor:
        return perturbation.flatten(1).abs().sum(1)  # rounds otherwise than `distance`

    def dual_length(self, normal: Tensor) -> Tensor:
        return normal.flatten(1).abs().amax(1)

    def onto_plane(self, size: Tensor, room: Tensor, reach: Tensor) -> Tensor:
        """Values move by all the room they have, the steepest first; the last share the rest."""
        gain = size * room
        low, high = torch.zeros_like(reach), torch.ones_like(reach)  # of the slopes that are used
        used = torch.empty_like(room)
        for _ in range(SLOPE_HALVINGS):
            middle = (low + high) / 2
            torch.gt(size, middle, out=used)
            enough = (used.mul_(gain)).sum(-1, keepdim=True) >= reach
            low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
        first = torch.gt(size, high, out=used).clone()
        last = torch.gt(size, low, out=used) - first
        rest = reach - (gain * first).sum(-1, keepdim=True)
        share = rest / (gain * last).sum(-1, keepdim=True).clamp_min(1e-30)
        return room * (first + last * share.clamp(0, 1))


class _L0(_L1):
    order = 0
    convex = False
    usual_epsilon = 20.0
    length = Norm.length

    def project(self, x_adv: Tensor, x: Tensor, epsilon: float) -> Tensor:
        """Return the candidate with only its `epsilon` largest changes, within [0, 1]."""
        x_adv = x_adv.clamp(0, 1)
        size = (x_adv - x).flatten(1).abs()
        largest = size.topk(min(int(epsilon), size.shape[1]), dim=1).indices
        keep = torch.zeros_like(size, dtype=torch.bool).scatter_(1, largest, True)
        return torch.where(keep.view_as(x), x_adv, x)

    def shrink(self, perturbation: Tensor, radius: Tensor) -> Tensor:
        order = perturbation.flatten(1).abs().argsort(dim=1, descending=True, stable=True)
        place = torch.arange(order.shape[1], device=order.device).expand_as(order)
        kept = torch.zeros_like(order, dtype=torch.bool)
        kept.scatter_(1, order, place < radius.unsqueeze(1))
        return perturbation * kept.view_as(perturbation)

    def step(self, gradient: Tensor, x_adv: Tensor, length: float, sparsity: float) -> Tensor:
        return length * self.steepest(gradient)

    def start(self, x: Tensor, epsilon: float, noise: Noise) -> Tensor:
        order = noise.uniform(x).flatten(1).argsort(1).argsort(1).view_as(x)
        return torch.where(order < epsilon, noise.uniform(x), x)

    def onto_plane(self, size: Tensor, room: Tensor, reach: Tensor) -> Tensor:
        """As few values as can move by all the room they have, those that gain most."""
        gain, order = (size * room).sort(dim=-1, descending=True, stable=True)
        before = gain.cumsum(-1) - gain
        return room * torch.zeros_like(room).scatter(-1, order, (before < reach).to(room.dtype))


class _Unbounded(Norm):
    bounded = convex = False

    def project(self, x_adv: Tensor, x: Tensor, epsilon: float) -> Tensor:
        return x_adv.clamp(0, 1)


NORMS: Registry[Norm] = Registry("norm")
for _name, _kind in (("linf", _Linf), ("l2", _L2), ("l1", _L1), ("l0", _L0)):
    NORMS.register(_name)(_kind())
for _name in ("spatial", "corruption"):
    NORMS.register(_name)(_Unbounded())


class Convex(Sequence[str]):
    """The names of the convex norms that are registered by now."""

    def __init__(self, *, sparse: bool) -> None:
        self.sparse = sparse

    def __getitem__(self, place: Any) -> Any:
        convex = [name for name, norm in NORMS.items() if norm.convex]
        names = [name for name in convex if self.sparse or not NORMS[name].sparse]
        return sorted(names, key=lambda name: -NORMS[name].order)[place]

    def __len__(self) -> int:
        return len(self[:])


CONVEX = Convex(sparse=True)  # for attacks by projected gradient steps
DENSE = Convex(sparse=False)  # for those of them whose step is the steepest one


def project(x_adv: Tensor, x: Tensor, epsilon: float, norm: str) -> Tensor:
    """Return the candidate moved into the ball around `x` and into [0, 1]."""
    return NORMS[norm].project(x_adv, x, epsilon)


def steepest(gradient: Tensor, norm: str) -> Tensor:
    """Return the step of length 1 in `norm` that climbs fastest; 0 where the gradient is 0."""
    return NORMS[norm].steepest(gradient)


def uniform_start(x: Tensor, epsilon: float, norm: str, noise: Noise) -> Tensor:
    """Return a uniform point of the ball around each image, clamped to [0, 1]."""
    return NORMS[norm].start(x, epsilon, noise).clamp(0, 1)


def distance(x_adv: Tensor, x: Tensor, norm: str) -> Tensor:
    """Return the distance of each candidate from its image, in float64, shape (N,)."""
    return NORMS[norm].distance((x_adv.double() - x.double()).flatten(1))


def quantise(x_adv: Tensor, x: Tensor | None = None) -> Tensor:
    """Return the candidate in steps of 1/255, as bytes keep it; rounded towards `x`, if given.

    What lay in a ball around `x`, itself in such steps, still does, in every norm.
    """
    if x is None:
        return (x_adv * LEVELS).round() / LEVELS
    start = (x * LEVELS).round()
    change = (x_adv * LEVELS - start).double()
    towards = (change.abs() + 1e-3).floor() * change.sign()  # 1e-3: float32 falls short of a step
    return ((start + towards) / LEVELS).to(x_adv.dtype)


def _stretch(slope: Tensor, fill: Tensor, until_full: Tensor, reach: Tensor) -> Tensor:
    """Return how far all must stretch, (..., N, 1), so that their gains add up to `reach`.

    Each gains in proportion to `slope` until it is full, and then stays at `fill`. The sum is
    concave and piecewise linear, so Newton's method reaches the answer exactly, from below.
    """
    stretch = torch.zeros_like(reach)
    free, part = torch.empty_like(fill), torch.empty_like(fill)  # used again and again
    filled = fill.sum(-1, keepdim=True)
    for _ in range(NEWTON_STEPS):
        torch.gt(until_full, stretch, out=free)
        gained = filled - torch.mul(fill, free, out=part).sum(-1, keepdim=True)
        slopes = torch.mul(slope, free, out=part).sum(-1, keepdim=True)
        further = ((reach - gained) / slopes).clamp_(0, 1e30)
        further = torch.where(slopes > 0, further, stretch)  # all full: the corner
        if torch.equal(further, stretch):
            break
        stretch = further
    return stretch
