"""Wrappers to attack in place of a defended model that is random or has no gradient."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from purpleteam.attacks.norms import seed_of
from purpleteam.models.guard import Classifier, guarded

Transform = Callable[[Tensor], Tensor]


class Averaged(nn.Module):
    """The mean logits of a randomised model: expectation over transformation (arXiv:1707.07397).

    The draws are a pure function of the seed and the batch asked about: every step meets fresh
    ones, and asking again gives the same answer.
    """

    def __init__(self, model: Classifier, samples: int = 20, *, seed: int = 0) -> None:
        super().__init__()
        if samples < 1:
            raise ValueError(f"samples must be at least 1, not {samples}")
        self.model = guarded(model)
        self.samples, self.seed = samples, seed

    def forward(self, x: Tensor) -> Tensor:
        content = x.detach().float().cpu().contiguous().numpy().tobytes()
        with torch.random.fork_rng([x.device] if x.is_cuda else []):
            torch.manual_seed(seed_of(f"{self.seed}/", content))
            total = self.model(x)
            for _ in range(self.samples - 1):
                total = total + self.model(x)
        mean: Tensor = total / self.samples
        return mean


class BackwardPass(nn.Module):
    """`model(transform(x))`, backward with `substitute` for the transform (BPDA, arXiv:1802.00420).

    By default with one that changes nothing.
    """

    def __init__(
        self, transform: Transform, model: Classifier, substitute: Transform | None = None
    ) -> None:
        super().__init__()
        self.transform, self.substitute = transform, substitute
        self.model = guarded(model)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            transformed = self.transform(x.detach())
        differentiable = x if self.substitute is None else self.substitute(x)
        logits: Tensor = self.model(_InPlaceOf.apply(differentiable, transformed))  # type: ignore[no-untyped-call]
        return logits


class _InPlaceOf(torch.autograd.Function):
    """The second tensor forward, the first one's gradient backward."""

    @staticmethod
    def forward(_ctx: object, _differentiable: Tensor, transformed: Tensor) -> Tensor:
        return transformed.clone()

    @staticmethod
    def backward(_ctx: object, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None
