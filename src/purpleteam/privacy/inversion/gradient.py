"""Climb the class's probability (Fredrikson et al. 2015, doi:10.1145/2810103.2813677)."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from purpleteam.data.images import ImageSet
from purpleteam.models.black_box import as_bytes
from purpleteam.models.recipes import generator
from purpleteam.privacy.inversion import INVERSIONS, Inversion, Rebuilt, part_of
from purpleteam.privacy.inversion.prior import Prior


@part_of(INVERSIONS, "inversion_gradient")
class Gradient(Inversion):
    """Follows the gradient of the loss, by Adam."""

    ranges = "learning_rate above 0 and finite"

    learning_rate: float = 0.1
    """Step size."""

    def search(
        self,
        ask: Callable[[Tensor], Tensor],
        classes: Sequence[int],
        *,
        pool: ImageSet,
        seed: int,
    ) -> Rebuilt:
        prior, wanted = Prior.of(self.prior, pool), torch.tensor(list(classes))
        free = start(prior, len(wanted), seed).requires_grad_()
        adam = torch.optim.Adam([free], lr=self.learning_rate)
        for _ in range(self.steps):
            x = prior.images(free)
            loss = F.cross_entropy(ask(x), wanted, reduction="sum")
            loss = loss + self.smoothness * prior.cost(x).sum()
            (free.grad,) = torch.autograd.grad(loss, free)
            adam.step()
        return finished(prior, free, wanted, self.steps * len(wanted))


def start(prior: Prior, count: int, seed: int) -> Tensor:
    """Return where a search begins: near the middle, elsewhere for each image."""
    return 0.1 * torch.randn(count, prior.dimensions, generator=generator(seed, "inversion"))


def finished(prior: Prior, free: Tensor, wanted: Tensor, queries: int) -> Rebuilt:
    """Return the images that a search ended with."""
    pixels = as_bytes(prior.images(free.detach())).transpose(0, 2, 3, 1)
    return Rebuilt(ImageSet(pixels.copy(), wanted.numpy()), queries)
