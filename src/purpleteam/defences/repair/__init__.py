"""Repairs: take a backdoor out of a model; one file each. `defences.evaluate` measures them.

- `retrain` without the flagged images; `unlearn` the recovered trigger; `unlearn_set` the flagged
- `fine_tune`, `fine_prune`, `ft_sam`, `i_bau` need neither; compared, and their failures shown

Most fine-tune, in one loop. Batch normalisation stays in eval mode: a few images are no estimate of
a set's mean. The weights are kept that do best on trusted images that are held out.
"""

import copy
import math
import sys
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, Protocol, TypedDict, Unpack, final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from purpleteam.core.arrays import Ints
from purpleteam.core.errors import ModelError, UsageError
from purpleteam.core.progress import SILENT, Progress
from purpleteam.core.registry import Registry, check_ranges, part_of
from purpleteam.data.images import ImageSet
from purpleteam.models.devices import device_of, fast_autocast, frozen, lay_out, to_batch
from purpleteam.models.guard import guarded, switched
from purpleteam.models.recipes import AUGMENTATIONS, Plain, Recipe, generator, one_cycle

__all__ = ["REPAIRS", "Repair", "Repairing", "Stamp", "part_of"]

WORDS = {
    "net": "an architecture to build anew",
    "train": "the training set",
    "flagged": "flagged training images",
    "trusted": "trusted clean images",
    "trigger": "a recovered trigger",
}

Loss = Callable[[nn.Module, Tensor, Tensor, torch.Generator], Tensor]  # (net, x, y, rng)
Step = Callable[[nn.Module, Callable[[], Tensor]], None]  # fills in each `grad` by net and loss
Score = Callable[[nn.Module], float]  # of a net on held-out images; the lowest is kept


class Steps(TypedDict, total=False):
    """What a repair may do otherwise in the loop."""

    loss: Loss
    score: Score
    step: Step
    after_step: Callable[[nn.Module], None]


class Stamp(Protocol):
    """Anything that puts a trigger on images, such as a recovered trigger."""

    def apply(self, x: Tensor) -> Tensor:
        """Return images (N, C, H, W) in [0, 1] with the trigger on them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Repairing:
    """What a repair works with; each repair names what it cannot do without."""

    model: nn.Module
    """The model to repair, which stays as it is."""
    net: Callable[[], nn.Module] | None = None
    """Makes the same architecture with starting weights, to train anew."""
    train: ImageSet | None = None
    """What the model was trained on, poisons included."""
    flagged: Ints | None = None
    """Places in `train` that a detector takes for poisons; empty counts as missing."""
    trusted: ImageSet | None = None
    """Clean images with true labels; 100 do."""
    trigger: Stamp | None = None
    """What a model scan recovered."""
    target_label: int | None = None
    """The label that the trigger opens."""
    recipe: Recipe = field(default_factory=Plain)
    """How the model was trained."""
    validation: ImageSet | None = None
    """What a new training's best epoch is chosen by; without it, the trusted images."""
    seed: int = 0
    device: torch.device | None = None
    progress: Progress = SILENT

    def missing(self, needs: tuple[str, ...]) -> list[str]:
        """Return in words those of `needs` that are not here."""
        parts = {name: getattr(self, name) for name in needs}
        return [
            WORDS[name]
            for name, part in parts.items()
            if part is None or (isinstance(part, np.ndarray | ImageSet) and not len(part))
        ]


@dataclass(frozen=True, kw_only=True)
class Repair:
    """Makes a new net without the backdoor from one that may hold it."""

    name: ClassVar[str] = ""
    needs: ClassVar[tuple[str, ...]] = ("trusted",)  # names of what it cannot do without

    @final
    def repair(self, work: Repairing) -> nn.Module:
        """Return the repaired net in eval mode; UsageError where something it needs is missing."""
        if missing := work.missing(self.needs):
            others = [name for name, part in REPAIRS.items() if not work.missing(part.needs)]
            raise UsageError(
                f"repair {self.name!r} needs {' and '.join(missing)}; "
                f"with what is given: {', '.join(others) or 'none'}"
            )
        wanted_gradients = [weight.requires_grad for weight in work.model.parameters()]
        net = free_copy(work.model, work.device, work.trusted or work.train)
        mended = switched(self.mend(net, work))
        for weight, wanted in zip(mended.parameters(), wanted_gradients, strict=True):
            weight.requires_grad_(wanted)
            weight.grad = None
        return mended

    @abstractmethod
    def mend(self, net: nn.Module, work: Repairing) -> nn.Module:
        """Return the repaired net; `net` is a copy of the model, free to be changed."""


REPAIRS: Registry[type[Repair]] = Registry("repair")


def free_copy(model: nn.Module, device: torch.device | None, images: ImageSet | None) -> nn.Module:
    """Return a copy in eval mode that may be changed, laid out for speed on such `images`."""
    net = switched(copy.deepcopy(model)).requires_grad_(True)
    if next(net.parameters(), None) is None:
        raise ModelError("the model holds no weights to change: give a stored model or a factory")
    net.to(device or torch.device("cpu"))
    if images is not None:
        lay_out(net, to_batch(images.images[:2]))
    return net


def answers(net: nn.Module, x: Tensor) -> Tensor:
    """Return logits (N, classes) in float32, computed in the fastest precision."""
    with fast_autocast(x.device):
        out: Tensor = guarded(net)(x)
    return out.float()


def divergence(given: Tensor, wanted: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the mean Kullback-Leibler divergence of softmax(given) from softmax(wanted).

    Times the square of the temperature, so that gradients keep their size (arXiv:1503.02531).
    """
    given, wanted = ((logits / temperature).log_softmax(1) for logits in (given, wanted))
    return temperature**2 * F.kl_div(given, wanted, reduction="batchmean", log_target=True)


def label_loss(net: nn.Module, x: Tensor, y: Tensor, rng: torch.Generator | None = None) -> Tensor:
    """Return the mean cross-entropy."""
    return F.cross_entropy(answers(net, x), y)


def mean_score(
    images: ImageSet, loss: Callable[[nn.Module, Tensor, Tensor], Tensor] = label_loss
) -> Score:
    """Return a score: the mean of `loss` over all of `images`, without gradients."""

    def score(net: nn.Module) -> float:
        device, total = device_of(net), 0.0
        with frozen(net), torch.no_grad():
            for start in range(0, len(images), 100):
                part = images.part(start, start + 100)
                y = torch.from_numpy(part.labels.copy()).to(device)
                total += float(loss(net, to_batch(part.images[:], device), y)) * len(part)
        return total / len(images)

    return score


def put_together(x: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """Return images (N, C, H, W), a share of them continued by another from a cut on.

    After CutMix (Yun et al. 2019, arXiv:1905.04899), for distillation (Beyer et al. 2022,
    arXiv:2106.05237): only a model can say what such an image is.
    """
    n, _, height, width = x.shape
    count = round(share * n)
    partner = torch.randperm(n, generator=rng)[:count].to(x.device)
    place = torch.rand(count, 1, 1, 1, generator=rng).to(x.device)
    across = (torch.rand(count, 1, 1, 1, generator=rng) < 0.5).to(x.device)
    rows = (torch.arange(height, device=x.device) / height)[:, None]  # (H, 1)
    columns = (torch.arange(width, device=x.device) / width)[None, :]  # (1, W)
    first = torch.where(across, rows < place, columns < place)  # (count, 1, H, W)
    return torch.cat([torch.where(first, x[:count], x[partner]), x[count:]])


@dataclass(frozen=True, kw_only=True)
class Loop:
    """How long and how fast a net is tuned."""

    ranges: ClassVar[str] = (
        "steps at least 1; batch_size at least 1; learning_rate above 0 and finite; "
        "checks at least 1"
    )

    steps: int = 300
    """Optimizer steps."""
    batch_size: int = 64
    """Images a step."""
    learning_rate: float = 1e-3
    """Largest step size of Adam; it rises for a quarter of the steps, then falls to 0."""
    augmentation: str = "shift"
    """What is done to the images: none, shift, freehand."""
    checks: int = 10
    """How often the net is scored; the best check is kept."""

    def __post_init__(self) -> None:
        check_ranges(self)

    def tune(
        self,
        net: nn.Module,
        images: ImageSet,
        seed: int,
        *,
        loss: Loss = label_loss,
        score: Score | None = None,
        step: Step | None = None,
        after_step: Callable[[nn.Module], None] | None = None,
        description: str = "tune",
        progress: Progress = SILENT,
    ) -> nn.Module:
        """Change `net`, in eval mode, in place and return it with the weights of its best check.

        That is the lowest `score`, the latest of equals, or the last without one. `step` fills in
        gradients that are not the loss's; `after_step` restores what a step must not change.
        """
        device = device_of(net)
        labels = torch.from_numpy(images.labels.copy())
        optimizer = torch.optim.AdamW(
            net.parameters(), lr=self.learning_rate, weight_decay=0.0, fused=True
        )
        every = max(1, self.steps // self.checks)
        best: dict[str, Tensor] = {}
        lowest = math.inf
        with progress.task(description, self.steps) as task:
            for number in range(self.steps):
                rng = generator("repair", seed, number)
                chosen = torch.randint(len(images), (self.batch_size,), generator=rng)
                x = to_batch(images.images[chosen.numpy()], device)
                x, y = AUGMENTATIONS[self.augmentation](x, rng), labels[chosen].to(device)
                for group in optimizer.param_groups:
                    group["lr"] = self.learning_rate * one_cycle(number / self.steps)
                optimizer.zero_grad(set_to_none=True)
                loss_of_batch = partial(loss, net, x, y, rng)
                if step is None:
                    loss_of_batch().backward()  # type: ignore[no-untyped-call]
                else:
                    step(net, loss_of_batch)
                optimizer.step()
                if after_step is not None:
                    after_step(net)
                if (number + 1) % every == 0 or number + 1 == self.steps:
                    value = score(net) if score else 0.0
                    if value <= lowest or not best:
                        lowest = value
                        best = {name: weight.clone() for name, weight in net.state_dict().items()}
                task.advance(1)
        net.load_state_dict(best)
        return net


@dataclass(frozen=True, kw_only=True)
class Tuning(Loop, Repair):
    """A repair that fine-tunes; by default on true labels, by the cross-entropy."""

    ranges = "held_out at least 0 and below 1"

    held_out: float = 0.2
    """Share of the trusted images by which the best check is chosen."""

    def mend(self, net: nn.Module, work: Repairing) -> nn.Module:
        """Return the net of the lowest held-out cross-entropy."""
        return self.fine_tune(net, work)

    def fine_tune(self, net: nn.Module, work: Repairing, **how: Unpack[Steps]) -> nn.Module:
        """Return the net, tuned in place on the trusted images that are not held out."""
        images, others = held_out(work, self.held_out)
        how.setdefault("score", mean_score(others))
        title = f"repair {self.name}"
        return self.tune(net, images, work.seed, description=title, progress=work.progress, **how)


def held_out(work: Repairing, share: float) -> tuple[ImageSet, ImageSet]:
    """Return the trusted images to learn from, and those to choose by; of few, all for both."""
    trusted = work.trusted
    if trusted is None:
        raise ValueError("a repair that tunes needs trusted images")
    order = np.random.default_rng(work.seed).permutation(len(trusted))
    kept = int(share * len(trusted))
    return (trusted.take(order[kept:]), trusted.take(order[:kept])) if kept else (trusted, trusted)


REPAIRS.load(sys.modules[__name__])
