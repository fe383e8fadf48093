"""An app as an adversary meets it: bytes go in, scores, labels or a refusal come out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from purpleteam.models.black_box import BlackBox, Gives

Refuses = Callable[[Tensor], Tensor]


class Endpoint(BlackBox):
    """A net behind a wall; `received` holds every image that came through."""

    def __init__(
        self,
        net: nn.Module,
        classes: int,
        *,
        gives: Gives = "scores",
        refuses: Refuses | None = None,
    ) -> None:
        super().__init__(
            "endpoint", digest="", shape=(None, None, None), classes=classes, gives=gives
        )
        self.net = net
        self.refuses = refuses
        self.received: list[Tensor] = []

    def ask(self, images: Tensor) -> Tensor:
        self.calls += len(images)
        self.received.extend(images)
        scores = self.net(images).detach()
        if self.gives == "labels":
            scores = torch.eye(self.classes)[scores.argmax(1)]
        if self.refuses is not None:
            scores[self.refuses(images)] = torch.nan
        return scores


def on_bytes(x: Tensor) -> Tensor:
    """Return images whose values are steps of 1/255, as those of a dataset are."""
    return (x * 255).round() / 255
