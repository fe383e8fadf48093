"""Whether a model that answers at random errs: the mean of its scores does, beyond doubt.

Each candidate of an attack is a new chance to meet a lucky draw, so one draw says nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from purpleteam.models.inference import Classifier

FRESH = 16
"""Draws at a time, until it is clear whether their mean errs."""
ROUNDS = 16
"""Times that so many are drawn at most."""
CERTAIN = 3.0
"""Standard errors by which the mean must err."""


def errs_on_average(model: Classifier, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Say for which images the mean answer errs beyond doubt, (N,), and how often each was drawn.

    What stays unclear is no error.
    """
    errs = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    calls = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    unclear = torch.arange(len(x), device=x.device)
    drawn: list[Tensor] = []  # (draws, n, classes) each
    for _ in range(ROUNDS):
        part, labels = x[unclear], y[unclear]
        drawn.append(torch.stack([model(part) for _ in range(FRESH)]))
        calls[unclear] += FRESH
        scores = torch.cat(drawn)
        other = scores.mean(0).scatter(1, labels[:, None], -torch.inf).argmax(1)
        places = torch.arange(len(part), device=x.device)
        lead = scores[:, places, other] - scores[:, places, labels]  # (draws, n)
        mean, error = lead.mean(0), lead.std(0) / len(lead) ** 0.5
        errs[unclear[mean > CERTAIN * error]] = True
        open_ = (mean > 0) & (mean <= CERTAIN * error)  # a mean that is right errs no more
        unclear, drawn = unclear[open_], [one[:, open_] for one in drawn]
        if len(unclear) == 0:
            break
    return errs, calls
