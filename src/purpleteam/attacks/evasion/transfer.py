"""Transfer from a surrogate (Papernot et al. 2016, arXiv:1605.07277): crafted there, tried here.

Only final answers are asked of the attacked model, so its gradients may be masked or withheld.
"""

from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor

from purpleteam.attacks.driver import Cost, Driver, Search
from purpleteam.attacks.evasion import ATTACKS, Ensemble, EvasionAttack, Noise, part_of
from purpleteam.core.errors import UsageError
from purpleteam.models.devices import frozen
from purpleteam.models.inference import Classifier, Nets
from purpleteam.models.loading import LoadedModel, load


@part_of(ATTACKS, "transfer")
class Transfer(EvasionAttack):
    """Runs a white-box attack on another model, to its end, and tries what comes out."""

    knowledge = "transfer"
    surrogate: str = "standard"
    """The other model: a zoo name, a stored model's path, or module:factory."""
    weights: str | None = None
    """The file of weights for module:factory."""
    attack: str = "mifgsm"
    """The white-box attack that is run on it."""
    steps: int = 20
    """Number of gradient steps, where that attack takes any."""
    restarts: int = 1
    """Independent starts for each image that still stands."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._inner()

    def perturb(self, driver: Driver, x: Tensor, noise: Noise) -> Tensor:
        surrogate = _loaded(self.surrogate, self.weights)
        if surrogate.card is not None and surrogate.card.shape != tuple(x.shape[1:]):
            raise UsageError(
                f"surrogate {self.surrogate!r} takes images {surrogate.card.shape}, "
                f"these are {tuple(x.shape[1:])}"
            )
        return crafted(surrogate.module.to(x.device), self._inner(), x, driver.y, noise)

    def _inner(self) -> EvasionAttack:
        kind = ATTACKS[self.attack]
        known = {field.name for field in fields(kind)}
        steps: dict[str, Any] = {"steps": self.steps} if "steps" in known else {}
        fitted = kind.prepare is not EvasionAttack.prepare
        if kind.knowledge != "white-box" or fitted or issubclass(kind, Ensemble):
            raise ValueError(
                f"attack {self.attack!r} is none that runs on a surrogate: "
                "it must be white-box, a single one, and fitted on nothing"
            )
        return kind(norm=self.norm, epsilon=self.epsilon, **steps)


def crafted(
    surrogate: Classifier, attack: EvasionAttack, x: Tensor, y: Tensor, noise: Noise
) -> Tensor:
    """Return the attack's last candidates: the higher the loss, the likelier another model errs."""
    search = Search(epsilon=attack.epsilon, norm=attack.norm, nearest=True, stop_inside=False)
    with frozen(surrogate):
        there = Driver(Nets.of(surrogate, x), x, y, search, Cost())
        return attack.perturb(there, x, noise)


@lru_cache(maxsize=1)
def _loaded(reference: str, weights: str | None) -> LoadedModel:
    return load(reference, weights=None if weights is None else Path(weights))
