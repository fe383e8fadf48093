"""Witches' Brew: change one answer by gradient matching (Geiping et al. 2021, arXiv:2009.02276).

Images of the target class are moved within a small ball so that the gradient of training on them
points where the gradient of "this one image is the target" does.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import field
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from purpleteam.attacks import poison
from purpleteam.attacks.norms import Noise, project, quantise
from purpleteam.attacks.poison.triggers import Nothing
from purpleteam.core.errors import UsageError
from purpleteam.data.images import ImageSet
from purpleteam.models.devices import device_of, frozen, to_batch
from purpleteam.models.guard import guarded

Match = Callable[[Tensor], Tensor]  # images to how far their gradient is from the adversary's


@poison.part_of(poison.POISONS, "witches_brew")
class WitchesBrew(poison.PoisonAttack):
    """A targeted poison: one image, the victim, shall be read as the target."""

    shown: ClassVar[poison.Shown] = "victim"
    ranges = (
        "epsilon above 0 and at most 1; steps at least 1; restarts at least 1; "
        "surrogates at least 1; epochs at least 1; victim at least 0"
    )

    trigger: Nothing = field(default_factory=Nothing)
    sources: poison.Sources = "target"
    """Which images are poisoned: the target's own."""
    relabel: bool = False
    victim: int | None = None
    """Place of the victim in the validation split; by default drawn from the other classes'."""
    epsilon: float = 0.3
    """Largest change of a pixel, in units of [0, 1]; 16/255 as published on CIFAR-10."""
    steps: int = 60
    """Signed gradient steps, shorter and shorter; 250 as published."""
    restarts: int = 1
    """Independent starts, of which the best match is kept; 8 as published."""
    surrogates: int = 4
    """Nets whose gradients are matched, each trained longer than the one before."""
    architecture: str = "small_cnn"
    """The nets whose gradients are matched where no model is given."""
    epochs: int = 3
    """Epochs of the last one's training."""

    def craft(self, context: poison.Context, chosen: NDArray[np.int64]) -> NDArray[np.uint8]:
        models = []
        for number in range(self.surrogates if context.model is None else 1):
            stage = -(-self.epochs * (number + 1) // self.surrogates)  # poisons act all along it
            models.append(context.surrogate(self.architecture, stage, number=number))
        split, place, images = self._victim(context)
        device = device_of(models[0])
        x = to_batch(context.clean.images[chosen], device)
        y = torch.from_numpy(self.new_labels(context, chosen)).to(device)
        aim = to_batch(images.images[place : place + 1], device)
        wanted = torch.tensor([self.target_label], device=device)
        with ExitStack() as stack:
            for model in models:
                stack.enter_context(frozen(model))
            matches = [matching(model, aim, wanted) for model in models]

            def match(x: Tensor) -> Tensor:
                return torch.stack([distance(x, y) for distance in matches]).mean()

            before = float(match(x).detach())
            x_adv, after = self._brewed(match, x, context, chosen)
        context.facts["victim"] = {
            "split": split,
            "index": place,
            "label": int(images.labels[place]),
            "digest": images.take([place]).digest,
        }
        context.facts["cosine"] = {"before": 1 - before, "after": 1 - after}
        context.name_surrogates(*models)
        return poison.to_bytes(x_adv)

    def _brewed(
        self, match: Match, x: Tensor, context: poison.Context, chosen: NDArray[np.int64]
    ) -> tuple[Tensor, float]:
        best, lowest = x, float("inf")
        with context.progress.task("match gradients", self.restarts * self.steps) as task:
            for restart in range(self.restarts):
                noise = Noise(context.seed, torch.from_numpy(chosen), restart)
                moved = x + self.epsilon * (2 * noise.uniform(x) - 1)
                for step in range(self.steps):
                    x_adv = project(moved, x, self.epsilon, "linf").detach().requires_grad_()
                    loss = match(x_adv)
                    (gradient,) = torch.autograd.grad(loss, x_adv)
                    size = 5 * self.epsilon / self.steps * (1 - step / self.steps)
                    moved = x_adv.detach() - size * gradient.sign()
                    task.advance(1, match=f"{float(loss.detach()):.3f}")
                candidate = quantise(project(moved, x, self.epsilon, "linf"), x)
                reached = float(match(candidate).detach())
                if reached < lowest:
                    best, lowest = candidate, reached
        return best, lowest

    def _victim(self, context: poison.Context) -> tuple[str, int, ImageSet]:
        """Return split, place and images of the victim."""
        split = "train" if context.validation is None else "validation"
        images = context.clean if context.validation is None else context.validation
        others = np.flatnonzero(images.labels != self.target_label)
        place = self.victim
        if place is None:
            place = int(poison.in_drawn_order(others, context.seed, "victim")[0])
        elif place not in others:
            raise UsageError(
                f"victim {place} is no image of another class than {self.target_label} among the "
                f"{len(images)} of {split}"
            )
        return split, place, images


def matching(model: nn.Module, aim: Tensor, wanted: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss of poisons: 1 - cosine of their training gradient with the adversary's.

    The adversary wants the victim `aim`, (1, C, H, W), to get the label `wanted`, (1,).
    """
    weights = [weight.requires_grad_() for weight in model.parameters()]
    adversary = torch.autograd.grad(F.cross_entropy(model(aim), wanted), weights)
    length = sum((part**2).sum() for part in adversary) ** 0.5

    def loss(x: Tensor, y: Tensor) -> Tensor:
        own = torch.autograd.grad(F.cross_entropy(guarded(model)(x), y), weights, create_graph=True)
        inner = sum((a * b).sum() for a, b in zip(adversary, own, strict=True))
        size = sum((part**2).sum() for part in own)
        cosine: Tensor = inner / (length * (size + 1e-20) ** 0.5)
        return 1 - cosine

    return loss
