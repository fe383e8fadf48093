"""The same by questions alone: natural evolution strategies (Wierstra et al. 2014).

As black-box attacks use them (Ilyas et al. 2018, arXiv:1804.08598): the slope is estimated from the
scores at pairs of points to both sides. Images are asked about as bytes keep them.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from purpleteam.attacks.norms import quantise
from purpleteam.data.images import ImageSet
from purpleteam.models.recipes import generator
from purpleteam.privacy.inversion import INVERSIONS, Inversion, Rebuilt, part_of
from purpleteam.privacy.inversion.gradient import finished, start
from purpleteam.privacy.inversion.prior import Prior


@part_of(INVERSIONS, "inversion_score")
class ScoreBased(Inversion):
    """Estimates the gradient from scores, and follows it by Adam."""

    white_box = False
    ranges = "learning_rate above 0 and finite; pairs at least 1; spread above 0 and finite"

    steps: int = 60
    learning_rate: float = 0.2
    """Step size."""
    pairs: int = 20
    """Pairs of points that a step asks about."""
    spread: float = 0.3
    """Standard deviation of the points around the present one."""
    queries: int | None = None
    """Most questions about one image, which end the steps: each asks about two for each pair."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.queries is not None and self.queries < 2 * self.pairs:
            least = f"{2 * self.pairs}, two for each pair"
            raise ValueError(f"queries must be at least {least}, not {self.queries}")

    def search(
        self,
        ask: Callable[[Tensor], Tensor],
        classes: Sequence[int],
        *,
        pool: ImageSet,
        seed: int,
    ) -> Rebuilt:
        prior, wanted = Prior.of(self.prior, pool), torch.tensor(list(classes))
        free, rng = start(prior, len(wanted), seed), generator(seed, "score-based inversion")
        adam = torch.optim.Adam([free], lr=self.learning_rate)
        labels, asked = wanted.repeat_interleave(2 * self.pairs), 2 * self.pairs
        steps = self.steps if self.queries is None else min(self.steps, self.queries // asked)
        for _ in range(steps):
            noise = torch.randn(len(wanted), self.pairs, prior.dimensions, generator=rng)
            both = torch.stack([noise, -noise], 2)  # (K, pairs, 2, D)
            points = (free[:, None, None] + self.spread * both).flatten(0, 2)
            with torch.no_grad():
                x = prior.images(points)
                loss = F.cross_entropy(ask(quantise(x)), labels, reduction="none")
                loss = (loss + self.smoothness * prior.cost(x)).view(len(wanted), asked)
            # what is refused is as bad as the worst that was answered
            worst = loss.nan_to_num(-torch.inf).amax(1, keepdim=True).nan_to_num(neginf=0.0)
            rise = torch.where(loss.isnan(), worst, loss).view(len(wanted), self.pairs, 2, 1)
            free.grad = ((rise * both).sum(2) / (2 * self.spread)).mean(1)
            adam.step()
        return finished(prior, free, wanted, steps * len(labels))
