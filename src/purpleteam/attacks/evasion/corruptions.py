"""Common corruptions as an attack: the worst of several kinds (arXiv:1906.02337), per image."""

import numpy as np
import torch
from torch import Tensor

from purpleteam.attacks.evasion import ATTACKS, Driver, EvasionAttack, Noise, part_of
from purpleteam.core.errors import unknown
from purpleteam.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from purpleteam.models.devices import channels_first


@part_of(ATTACKS, "corruptions")
class Corruptions(EvasionAttack):
    """Tries each kind of corruption at one severity."""

    knowledge = "decision-based"
    norms = ("corruption",)

    norm: str = "corruption"
    """The set that is searched: no ball."""
    epsilon: float = 3.0
    """Severity, 1 to 5; at 0 nothing changes."""
    kinds: tuple[str, ...] = ()
    """The kinds that are tried, in this order; all of them where none is named."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epsilon not in (0, *SEVERITIES):
            raise ValueError(
                f"epsilon of {self.name} is a severity: 0 to {SEVERITIES[-1]}, not {self.epsilon:g}"
            )
        for kind in self.kinds:
            if kind not in CORRUPTIONS:
                raise ValueError(unknown("corruption", kind, CORRUPTIONS))

    @property
    def planned_steps(self) -> int:
        return len(self.kinds or CORRUPTIONS)

    def perturb(self, driver: Driver, x: Tensor, noise: Noise) -> Tensor:
        severity = int(self.epsilon)
        pictures = (x.permute(0, 2, 3, 1).cpu() * 255).round().to(torch.uint8).numpy()
        for kind in (self.kinds or CORRUPTIONS) if severity else ():
            standing = driver.standing.nonzero().flatten()
            rows = standing.cpu().numpy()
            index = noise.index.cpu().numpy()[rows]
            changed = corrupt(pictures[rows], kind, severity, seed=noise.seed, index=index)
            candidates = channels_first(torch.from_numpy(changed / np.float32(255)))
            driver.errs(candidates.to(x.device, x.dtype), standing)
        return x
