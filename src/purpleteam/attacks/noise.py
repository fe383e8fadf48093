"""Random numbers for attacks, seeded per image by its index, restart, draw and attack alone.

Neither batch size, order and shard matter, nor which of its neighbours were dropped.
"""

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor


class Noise:
    """Draws for the images of one batch; `index` holds each image's place in its dataset."""

    def __init__(self, seed: int, index: Tensor, restart: int = 0, stream: str = "") -> None:
        self.seed = seed
        self.index = index
        self.restart = restart
        self.stream = stream
        """Keeps the attacks of one ensemble apart; none for an attack on its own."""
        self._draws = 0

    def uniform(self, like: Tensor) -> Tensor:
        """Return numbers in [0, 1) of the shape, type and device of `like`."""
        return self._draw(like, torch.rand)

    def normal(self, like: Tensor) -> Tensor:
        """Return standard normal numbers of the shape, type and device of `like`."""
        return self._draw(like, torch.randn)

    def seed_torch(self) -> None:
        """Seed torch's own generators, from which a model of random answers draws."""
        torch.manual_seed(seed_of(f"{self.seed}/{self.index.tolist()}/{self.restart}{self.stream}"))

    def _draw(self, like: Tensor, kind: Callable[..., Tensor]) -> Tensor:
        self._draws += 1
        rng, rows = torch.Generator(), []
        for index in self.index.tolist():
            rng.manual_seed(
                seed_of(f"{self.seed}/{index}/{self.restart}/{self._draws}{self.stream}")
            )
            rows.append(kind(like.shape[1:], generator=rng))
        return torch.stack(rows).to(device=like.device, dtype=like.dtype)


def seed_of(*key: str | bytes) -> int:
    """Return the seed that stands for a key of any length."""
    parts = (part.encode() if isinstance(part, str) else part for part in key)
    return int.from_bytes(hashlib.sha256(b"".join(parts)).digest()[:7], "big")
