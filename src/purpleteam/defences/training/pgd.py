"""Adversarial training (Madry et al. 2018, arXiv:1706.06083) against the current model."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from purpleteam.attacks.driver import image_of
from purpleteam.attacks.evaluate import evaluate
from purpleteam.attacks.evasion.pgd import PGD
from purpleteam.attacks.norms import project
from purpleteam.defences.training import DEFENCES, BallDefence, Growth, Hardening, part_of, ramped
from purpleteam.models.devices import fast_autocast
from purpleteam.models.guard import Guarded, guarded, switched
from purpleteam.models.training import Training, Validation, cross_entropy


@part_of(DEFENCES, "pgd")
class PGDTraining(BallDefence):
    """Learns from images that a few steps of PGD made against the net as it is now."""

    ranges = (
        "steps at least 1; validation_images at least 1; relative_step_size above 0 and finite; "
        "warm_up from 0 to 1; extra from 0 to 1"
    )

    epochs: int = 9
    batch_size: int = 64
    learning_rate: float = 2e-3
    steps: int = 5
    """Gradient steps for each training batch."""
    relative_step_size: float = 2.0
    """Length of one step, as a multiple of epsilon / steps."""
    warm_up: float = 0.25
    """Fraction of the training over which epsilon grows from 0: small sets need it to start."""
    growth: Growth = "linear"
    """How it grows: in a straight line, or with a smooth start."""
    extra: float = 0.0
    """Margin: what is trained for is epsilon and this; what is validated is epsilon."""
    validation_images: int = 1000
    """The best epoch is the most robust one on this many validation images, under PGD-10."""

    def harden(self, work: Hardening) -> Training:
        """Train by the objective; choose the epoch by robust validation accuracy."""
        chosen_by = work.dataset.validation.first(self.validation_images)
        pgd_10 = PGD(epsilon=self.epsilon, steps=10).inside_box()

        def validate(model: nn.Module) -> Validation:
            found = evaluate(model, chosen_by, pgd_10)
            clean = float((found.broken_by > -2).mean())
            return Validation(validation_accuracy=clean, attacked=found.robust_accuracy.value)

        return work.train(
            self,
            work.dataset.train,
            work.dataset.validation,
            objective=self.objective,
            validate=validate,
        )

    def objective(
        self, net: Guarded, x: Tensor, y: Tensor, rng: torch.Generator, done: float
    ) -> Tensor:
        """Return the cross-entropy of adversarial images only."""
        return cross_entropy(net, self.attacked(net, x, y, rng, done), y, rng, done)

    def attacked(
        self, net: Guarded, x: Tensor, y: Tensor, rng: torch.Generator, done: float
    ) -> Tensor:
        """Return images (N, C, H, W) made to be far from `y`, labels (N,) or (N, classes) shares.

        They lie in the ball as large as it is after a fraction of the training.
        """
        epsilon = ramped(self.epsilon + self.extra, done, 0.0, self.warm_up, self.growth)
        step_size = self.relative_step_size * epsilon / self.steps
        return craft_linf(net, x, y, epsilon, step_size, self.steps, rng)


def craft_linf(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    epsilon: float,
    step_size: float,
    steps: int,
    rng: torch.Generator,
) -> Tensor:
    """Return PGD images from a uniform start, for training, in a ramp's box: no verdicts.

    What rises is their cross-entropy with `y`: labels (N,), or shares of classes (N, classes).
    """
    switched(model)
    image = image_of(model, x, epsilon)
    noise = torch.rand(x.shape, generator=rng).to(x.device)
    x_adv = project(x + epsilon * (2 * noise - 1), x, epsilon, "linf")
    for _ in range(steps):
        x_adv.requires_grad_(True)
        with fast_autocast(x.device):
            loss = F.cross_entropy(guarded(model)(image(x_adv)), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x_adv)
        x_adv = project(x_adv.detach() + step_size * gradient.sign(), x, epsilon, "linf")
    switched(model, training=True)
    return image(x_adv)
