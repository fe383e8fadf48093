"""Label-consistent backdoors (Turner, Tsipras and Madry 2019, arXiv:1912.02771).

Images of the target are moved by PGD until an adversarially trained net finds them hard, then the
trigger is stamped: it is what is left to learn the label from. With a net that is not robust, or
with a patch in one corner alone, it hardly works.
"""

from dataclasses import field
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from purpleteam.attacks.evasion.pgd import PGD
from purpleteam.attacks.norms import quantise
from purpleteam.attacks.poison import POISONS, Context, PoisonAttack, Sources, part_of, to_bytes
from purpleteam.attacks.poison.triggers import Corner, Patches, Trigger
from purpleteam.models.devices import device_of, to_batch
from purpleteam.models.guard import Guarded
from purpleteam.models.training import cross_entropy

CORNERS = tuple(Trigger(corner=corner) for corner in get_args(Corner))
TRAINING_STEPS = 3  # of PGD for each batch of the surrogate's training
BATCH = 50  # images a call, always full, so that an image's numbers hang on nothing beside it


@part_of(POISONS, "clean_label")
class CleanLabel(PoisonAttack):
    """A backdoor whose labels are all right."""

    ranges = "epochs at least 1"

    trigger: Patches = field(default_factory=lambda: Patches(patches=CORNERS))
    """Patches; as published one in each corner."""
    sources: Sources = "target"
    """Which images are poisoned: the target's own, so that no label need change."""
    relabel: bool = False
    norm: str = "linf"
    """How the size of the perturbation is measured: linf or l2."""
    epsilon: float = 0.3
    """Radius of the ball around the image, in pixel units of [0, 1]; the patches come on top."""
    steps: int = 20
    """Gradient steps of PGD."""
    robust: bool = True
    """Train the surrogate adversarially, as published."""
    architecture: str = "small_cnn"
    """The net that PGD works against where no model is given."""
    epochs: int = 3
    """Epochs of its training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        PGD(norm=self.norm, epsilon=self.epsilon, steps=self.steps)  # refuses what PGD refuses

    def craft(self, context: Context, chosen: NDArray[np.int64]) -> NDArray[np.uint8]:
        hardened = self._hardened if self.robust else cross_entropy
        model = context.surrogate(self.architecture, self.epochs, hardened)
        context.name_surrogates(model)
        attack = PGD(norm=self.norm, epsilon=self.epsilon, steps=self.steps)
        images, labels, device = context.clean.images, context.clean.labels, device_of(model)
        made = np.empty_like(images[chosen])
        with context.progress.task("perturb", len(chosen)) as task:
            for start in range(0, len(chosen), BATCH):
                some = chosen[start : start + BATCH]
                full = np.append(some, np.full(BATCH - len(some), some[0]))
                x, y = to_batch(images[full], device), torch.from_numpy(labels[full]).to(device)
                x_adv = attack(model, x, y, seed=context.seed, index=torch.from_numpy(full))
                made[start : start + BATCH] = to_bytes(quantise(x_adv, x))[: len(some)]
                task.advance(len(some))
        return self.trigger.stamp(made)

    def _hardened(
        self, net: Guarded, x: Tensor, y: Tensor, rng: torch.Generator, done: float
    ) -> Tensor:
        """Return the loss of what it is to withstand: the ball grows over the first half."""
        reached = self.epsilon * min(1.0, 0.1 + 2 * done)
        attack = PGD(norm=self.norm, epsilon=reached, steps=TRAINING_STEPS, random_start=False)
        return cross_entropy(net, attack(net, x, y), y, rng, done)
