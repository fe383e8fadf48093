"""Training with differential privacy (Abadi et al. 2016, arXiv:1607.00133), through Opacus.

What anyone can tell of one training image from the weights of every step is bounded: with it or
without it, any event is at most e^epsilon times as likely, up to `delta`. The bound holds for the
training images alone. Validation images are not protected: accuracy and loss on them are told
after each epoch, and no training image is in them. The loss of the training images is not told.

What is counted is this training: trials of other options on the same images are not.

The noise comes from the seed, so that a training can be repeated and measured. Who knows the seed
can take the noise away: keep that of a model whose images are truly private to yourself.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any, ClassVar, Literal

from purpleteam.core.errors import UsageError
from purpleteam.defences.training import DEFENCES, Defence, Hardening, part_of
from purpleteam.defences.training._mixing import PROBES, refuse_mixing
from purpleteam.defences.training._per_example import PrivateSteps
from purpleteam.models.devices import to_batch
from purpleteam.models.guard import guarded
from purpleteam.models.training import Training

Accountant = Literal["prv", "rdp"]


@part_of(DEFENCES, "dp_sgd")
class DPSGD(Defence):
    """Learns from clipped, noised gradients: no training image leaves much of itself behind."""

    keep: ClassVar[Literal["best", "last"]] = "last"  # each step is paid for, so all are used
    ranges = (
        "epsilon above 0 and finite; delta above 0 and under 1; max_grad_norm above 0 and finite; "
        "noise_multiplier above 0 and finite"
    )

    epochs: int = 30
    batch_size: int = 4096
    """Images a step, on average; never more than there are."""
    learning_rate: float = 3e-3
    schedule: Literal["constant", "one_cycle", "cosine", "steps"] = "constant"
    averaging: Literal["none", "ema", "swa"] = "ema"
    average_decay: float = 0.98
    precision: Literal["fast", "float32"] = "float32"
    """bfloat16 would round the length that gradients are cut to, and is refused."""
    epsilon: float = 3.0
    """Privacy budget: no more is spent; it is no radius."""
    delta: float = 1e-5
    """Chance that the bound does not hold; well under one by the number of training images."""
    max_grad_norm: float = 0.1
    """Length (L2, all weights together) that the gradient of an image is cut to."""
    noise_multiplier: float | None = None
    """Deviation of the noise over that length; by default as little as the budget allows."""
    accountant: Accountant = "prv"
    """What adds up the budget: privacy loss distributions (arXiv:2106.02848), or Renyi
    divergences (arXiv:1702.07476), which claim less."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, only in {"precision": "float32", "l1": 0, "precise_batch_norm": False}.items():
            if getattr(self, name) != only:
                raise ValueError(f"{name} must be {only} for differential privacy")

    def harden(self, work: Hardening) -> Training:
        """Train on noised gradients; the last epoch's weights are kept, and what is spent is told.

        Raises:
            UsageError: a layer mixes the images of a batch, or the budget does not suffice.
        """
        return self.trained(work, PrivateSteps)

    def trained(self, work: Hardening, make: Callable[..., PrivateSteps]) -> Training:
        """Train with steps of the given kind, which must do what those of the class do."""
        images, validation = work.dataset.train, work.dataset.validation
        refuse_mixing(work.net, to_batch(images.images[:PROBES]))
        steps = make(
            guarded(work.net),
            images=len(images),
            batch_size=self.batch_size,
            noise_multiplier=self.noise(len(images)),
            max_grad_norm=self.max_grad_norm,
            augmented=self.augmentation != "none",
        )
        with steps.hooked():
            training = work.train(
                self,
                images,
                validation,
                validate=partial(steps.validate, images=validation),
                steps=steps,
            )
        return replace(training, facts={"privacy": self.spent(len(images), len(training.epochs))})

    def sampling_rate(self, images: int) -> float:
        """Return the probability that an image is in a step."""
        return min(1.0, self.batch_size / images)

    def steps(self, images: int, epochs: int) -> int:
        """Return how many steps so many epochs have."""
        return epochs * -(-images // self.batch_size)

    def noise(self, images: int) -> float:
        """Return the noise multiplier of a training on so many images, within the budget."""
        rate, steps = self.sampling_rate(images), self.steps(images, self.epochs)
        if self.noise_multiplier is None:
            return noise_for(self.epsilon, self.delta, rate, steps, self.accountant)
        spent = epsilon_of(self.noise_multiplier, rate, steps, self.delta, self.accountant)
        if spent > self.epsilon:
            raise UsageError(
                f"noise_multiplier {self.noise_multiplier:g} spends epsilon {spent:.3g} in {steps} "
                f"steps, more than {self.epsilon:g}: give more noise, fewer epochs or more epsilon"
            )
        return self.noise_multiplier

    def spent(self, images: int, epochs: int) -> dict[str, Any]:
        """Return what so many epochs on so many images have spent, and what says so."""
        import opacus

        rate, steps = self.sampling_rate(images), self.steps(images, epochs)
        noise = self.noise(images)
        return {
            "epsilon": round(epsilon_of(noise, rate, steps, self.delta, self.accountant), 6),
            "delta": self.delta,
            "noise_multiplier": noise,
            "max_grad_norm": self.max_grad_norm,
            "sampling": "poisson",
            "sampling_rate": rate,
            "steps": steps,
            "normalised_by": f"the expected batch, {rate * images:g} images",
            "neighbours": "one training image more or less",
            "accountant": self.accountant,
            "opacus": opacus.__version__,
            "noise": "seeded: it protects from those who do not know the seed",
            "validation": "held out and not protected; no epoch is chosen by it",
        }


@cache
def epsilon_of(
    noise_multiplier: float, sampling_rate: float, steps: int, delta: float, accountant: Accountant
) -> float:
    """Return what so many Poisson-sampled Gaussian steps spend, an upper bound."""
    from opacus.accountants import create_accountant

    counted = create_accountant(mechanism=accountant)
    counted.history = [(noise_multiplier, sampling_rate, steps)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # RDP's order at the end of its range: still a bound
        return float(counted.get_epsilon(delta=delta))


@cache
def noise_for(
    epsilon: float, delta: float, sampling_rate: float, steps: int, accountant: Accountant
) -> float:
    """Return the least noise multiplier, nearly, by which so many steps spend at most `epsilon`."""
    from opacus.accountants.utils import get_noise_multiplier

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return float(
                get_noise_multiplier(
                    target_epsilon=epsilon,
                    target_delta=delta,
                    sample_rate=sampling_rate,
                    steps=steps,
                    accountant=accountant,
                    epsilon_tolerance=min(0.01, epsilon / 100),
                )
            )
    except ValueError:
        remedy = "give more epsilon" + (" or accountant=prv" if accountant == "rdp" else "")
        raise UsageError(
            f"the accountant {accountant} can promise no epsilon of {epsilon:g} at delta "
            f"{delta:g}, whatever the noise: {remedy}"
        ) from None
