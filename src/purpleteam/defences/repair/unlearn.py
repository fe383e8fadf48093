"""Unlearn a recovered trigger, after Neural Cleanse (Wang et al. 2019, IEEE S&P, section VI).

By distillation (Hinton et al. 2015, arXiv:1503.02531), so a hundred images, cut and put together,
are enough. A recovered trigger is not the planted one, so it is varied at random, and an adversary
adds whatever opens the backdoor again. Further patches are searched for and unlearned until they
are as large as those that open the other labels, which are natural.
"""

import copy
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from purpleteam.defences import repair as tuning
from purpleteam.defences.detection.model import Scanning
from purpleteam.defences.detection.model._base import every_target, shrink_mask
from purpleteam.defences.detection.model.patch import PatchInversion
from purpleteam.defences.repair import REPAIRS, Repairing, Stamp, answers, part_of
from purpleteam.models.devices import device_of, frozen, to_batch


@part_of(REPAIRS, "unlearn")
class Unlearn(tuning.Tuning):
    """Teaches the net that an image with the trigger is the image without it."""

    needs = ("trusted", "trigger")
    ranges = (
        "mixed from 0 to 1; worsened from 0 to 1; size from 0 to 1; nearby at least 0; "
        "weakest at least 0; strongest at least 0 and finite; temperature above 0 and finite; "
        "restart at least 1; rounds at least 1"
    )

    steps: int = 400
    learning_rate: float = 3e-3
    guide: Literal["model", "labels"] = "model"
    """What an image should be called: as the model itself says when clean, or its true label."""
    temperature: float = 2.0
    """Above 1, what the model thinks of the other labels counts for more."""
    mixed: float = 1.0
    """Share of the images that are put together of two, where the model is the guide."""
    nearby: int = 3
    """The trigger is moved by up to this many pixels."""
    weakest: float = 0.5
    """What the trigger changes is scaled at random, from here."""
    strongest: float = 1.5
    """And up to here."""
    worsened: float = 0.5
    """Share of the triggered images to which an adversary adds something."""
    size: float = 0.05
    """Mean change of a pixel value that it may add, in pixel units."""
    restart: int = 50
    """Steps after which the adversary begins anew."""
    rounds: int = 3
    """How often, at most, a patch is looked for and unlearned; the first one is given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weakest > self.strongest:
            raise ValueError(f"weakest must be up to {self.strongest}, not {self.weakest}")

    def mend(self, net: nn.Module, work: Repairing) -> nn.Module:
        """Return the net that differs least from its guide on held-out images, with and without."""
        trigger, shorter = work.trigger, replace(self, steps=max(1, self.steps // 2))
        for turn in range(self.rounds):
            if turn > 0:
                trigger = self._left(net, work)
            if trigger is None:
                break
            net = (shorter if turn > 0 else self)._unlearned(net, work, trigger)
        return net

    def _left(self, net: nn.Module, work: Repairing) -> Stamp | None:
        """Return the patch that still opens the net; None where other labels' are as small."""
        trusted, target = work.trusted, work.target_label
        if trusted is None or target is None:
            return None
        x = to_batch(trusted.images[:], device_of(net))
        classes = answers(net, x[:1]).shape[1]
        looking = Scanning(
            model=net, images=x, labels=trusted.labels, classes=classes, seed=work.seed
        )
        with frozen(net):
            sizes = shrink_mask(every_target(looking, steps=120, images=24, stream=95)).log_sizes
            if sizes[target] >= np.median(np.delete(sizes, target)):
                return None
            sources = getattr(work.trigger, "source_labels", None)
            return PatchInversion().recover(looking, target, sources)

    def _unlearned(self, net: nn.Module, work: Repairing, trigger: Stamp) -> nn.Module:
        """Teach one trigger away."""
        model = copy.deepcopy(net).requires_grad_(False)
        images, others = tuning.held_out(work, self.held_out)
        x = to_batch(images.images[:1000], device_of(model))
        target = work.target_label
        if target is None:
            target = where_it_leads(model, trigger, x)
        adversary = None  # where the trigger does nothing, there is no label to push to
        if target is not None:
            adversary = Adversary(x, target, self.size, self.restart, work.seed)

        def distance(net: nn.Module, x: Tensor, y: Tensor, stamped: Tensor) -> Tensor:
            given = answers(net, torch.cat([x, stamped]))
            if self.guide == "labels":
                return 2 * F.cross_entropy(given, y.repeat(2))
            with torch.no_grad():
                wanted = answers(model, x)
            return 2 * tuning.divergence(given, wanted.repeat(2, 1), self.temperature)

        def loss(net: nn.Module, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
            if self.guide == "model":
                x = tuning.put_together(x, self.mixed, rng)
            stamped = moved(trigger, x, self.nearby, rng)
            stamped = scaled(x, stamped, self.weakest, self.strongest, rng)
            count = round(self.worsened * len(x))
            if adversary is not None and count:
                worse = adversary.worsen(net, stamped[:count])
                stamped = torch.cat([worse, stamped[count:]])
            return distance(net, x, y, stamped)

        score = tuning.mean_score(others, lambda net, x, y: distance(net, x, y, trigger.apply(x)))
        return self.fine_tune(net, work, loss=loss, score=score)


def rolled(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return images (N, C, H, W), each moved down and right by its own number, around the edge."""
    moves = zip(x, rows.tolist(), columns.tolist(), strict=True)
    return torch.stack([image.roll((row, column), (1, 2)) for image, row, column in moves])


def moved(trigger: Stamp, x: Tensor, nearby: int, rng: torch.Generator) -> Tensor:
    """Return images with the trigger up to `nearby` pixels from its place."""
    rows, columns = torch.randint(-nearby, nearby + 1, (2, len(x)), generator=rng)
    return rolled(trigger.apply(rolled(x, -rows, -columns)), rows, columns)


def scaled(
    x: Tensor, stamped: Tensor, weakest: float, strongest: float, rng: torch.Generator
) -> Tensor:
    """Return images with what was changed scaled by a random factor each, in [0, 1]."""
    spread = torch.rand(len(x), 1, 1, 1, generator=rng).to(x.device)
    factor = weakest + (strongest - weakest) * spread
    return (x + factor * (stamped - x)).clamp(0, 1)


def where_it_leads(model: nn.Module, trigger: Stamp, x: Tensor) -> int | None:
    """Return the label that most images change to with the trigger; None if none changes."""
    with torch.no_grad():
        before, after = answers(model, x).argmax(1), answers(model, trigger.apply(x)).argmax(1)
    changed = after[before != after]
    return int(changed.bincount().argmax()) if len(changed) else None


class Adversary:
    """One addition to all images, pushed to the target a step a batch (after arXiv:1811.11304)."""

    def __init__(self, x: Tensor, target_label: int, size: float, restart: int, seed: int) -> None:
        self.target_label, self.restart = target_label, restart
        self.most = size * x[0].numel()  # largest L1 norm of the addition
        self.rng = torch.Generator().manual_seed(seed)
        self.calls = 0
        self.addition = torch.zeros_like(x[:1])

    def worsen(self, net: nn.Module, x: Tensor) -> Tensor:
        """Take a step against the net as it is and return images (N, C, H, W) with the addition."""
        if self.calls % self.restart == 0:
            start = 0.01 * torch.randn(self.addition.shape, generator=self.rng)
            self.addition = start.to(x.device).requires_grad_(True)
            self.optimizer = torch.optim.Adam([self.addition], lr=0.05)
        self.calls += 1
        target = torch.full((len(x),), self.target_label, device=x.device)
        loss = F.cross_entropy(answers(net, (x + self.addition).clamp(0, 1)), target)
        (self.addition.grad,) = torch.autograd.grad(loss, self.addition)
        self.optimizer.step()
        with torch.no_grad():
            self.addition *= (self.most / self.addition.abs().sum().clamp(min=1e-12)).clamp(max=1)
            return (x + self.addition).clamp(0, 1)
