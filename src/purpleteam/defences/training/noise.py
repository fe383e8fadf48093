"""Training under Gaussian noise, for randomized smoothing (Cohen et al. 2019, arXiv:1902.02918)."""

import torch
from torch import Tensor, nn

from purpleteam.certify.smoothing import Smoothing, certify_smoothing
from purpleteam.defences.training import DEFENCES, BallDefence, Hardening, part_of
from purpleteam.models.guard import Guarded
from purpleteam.models.training import Training, Validation, cross_entropy


@part_of(DEFENCES, "noise")
class NoiseTraining(BallDefence):
    """Learns from noisy images, as the smoothed classifier asks about no others."""

    ranges = "sigma above 0 and finite; validation_images at least 1"

    epochs: int = 9
    learning_rate: float = 2e-3
    epsilon: float = 0.25
    """L2 radius within which most validation images are to be certified, in pixel units."""
    sigma: float = 0.25
    """Standard deviation of the noise; certify with the same."""
    validation_images: int = 200
    """The best epoch certifies the most of so many validation images, by 100 samples each."""

    def harden(self, work: Hardening) -> Training:
        """Train on noisy images only; choose the epoch by certified validation accuracy."""
        chosen_by = work.dataset.validation.first(self.validation_images)
        smoothing = Smoothing(sigma=self.sigma, selection_samples=10, estimation_samples=100)

        def objective(
            net: Guarded, x: Tensor, y: Tensor, rng: torch.Generator, done: float
        ) -> Tensor:
            noise = torch.randn(x.shape, generator=rng).to(x.device)
            return cross_entropy(net, x + self.sigma * noise, y, rng, done)

        def validate(model: nn.Module) -> Validation:
            found = certify_smoothing(model, chosen_by, smoothing)
            clean, certified = (found.certified_accuracy(r).value for r in (0, self.epsilon))
            return Validation(validation_accuracy=clean, certified=certified)

        return work.train(
            self,
            work.dataset.train,
            work.dataset.validation,
            objective=objective,
            validate=validate,
        )
