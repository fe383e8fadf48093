"""Searches over what is free in a linear bound: it never ends looser than it began.

alpha-CROWN (Xu et al. 2021, arXiv:2011.13824) searches the slopes of the lower lines; beta-CROWN
(Wang et al. 2021, arXiv:2103.06624) multipliers of neurons that are split into two cases.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from purpleteam.certify.bends import Rectifier
from purpleteam.certify.bounds import Boxes, Choices, lower_bound
from purpleteam.certify.network import Network


def optimise(
    network: Network,
    boxes: Boxes,
    form: Tensor,
    *,
    steps: int = 20,
    rate: float = 0.25,
    splits: Mapping[int, Tensor] | None = None,
    start: Choices | None = None,
    rounding: bool = True,
) -> tuple[Tensor, Choices]:
    """Return the best lower bound (N, S) of margins that a search over slopes finds, and these.

    Never less than the bound that it starts from. `splits` says by node which neurons (N, ...) are
    known to be at least 0 (+1) or at most 0 (-1), and is used by multipliers; the boxes know too.
    """
    start = start or Choices()
    nodes = [
        number
        for number in range(network.root + 1, len(network.nodes))
        if any(isinstance(network[user].layer, Rectifier) for user in network.users[number])
    ]
    if not nodes:  # nothing is free
        return lower_bound(network, boxes, form, rounding=rounding), start
    shape = form.shape[:2]
    slopes, betas, signs = {}, {}, {}
    for number in nodes:
        first = start.slopes.get(number)
        if first is None:
            first = _usual(network, boxes, number).expand(*shape, *network.shape(number))
        slopes[number] = first.detach().clone().requires_grad_(True)
        if splits is not None and number in splits and bool(splits[number].any()):
            signs[number] = -splits[number].to(form.dtype)[:, None]
            beta = start.multipliers.get(number)
            beta = (
                torch.zeros_like(slopes[number]) if beta is None else (beta * signs[number]).abs()
            )
            betas[number] = beta.detach().clone().requires_grad_(True)

    def choices() -> Choices:
        return Choices(slopes, {k: beta * signs[k] for k, beta in betas.items()})

    frozen = Choices(
        {k: v.detach().clone() for k, v in slopes.items()},
        {k: (v * signs[k]).detach().clone() for k, v in betas.items()},
    )
    with torch.no_grad():
        best = lower_bound(network, boxes, form, choices=frozen, rounding=rounding)
    optimiser = torch.optim.Adam(
        [
            {"params": list(slopes.values()), "lr": rate},
            {"params": list(betas.values()), "lr": rate / 5},
        ]
        if betas
        else list(slopes.values()),
        lr=rate,
    )
    for _ in range(steps):
        optimiser.zero_grad(set_to_none=True)
        now = lower_bound(network, boxes, form, choices=choices(), rounding=False)
        with torch.no_grad():
            _keep_better(frozen, choices(), now, best)
            best = torch.maximum(best, now.detach())
        (-now.clamp_max(1).sum()).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        with torch.no_grad():
            for group in optimiser.param_groups:
                group["lr"] *= 0.97
            for slope in slopes.values():
                slope.clamp_(0, 1)
            for beta in betas.values():
                beta.clamp_min_(0)
    with torch.no_grad():
        sure = lower_bound(network, boxes, form, choices=frozen, rounding=rounding)
        first = lower_bound(network, boxes, form, choices=start, rounding=rounding)
    return torch.maximum(sure, first), frozen


def _usual(network: Network, boxes: Boxes, number: int) -> Tensor:
    """Return the slopes (N, 1, ...) that a rectifier after the node has by default."""
    layers = (network[user].layer for user in network.users[number])
    layer = next(layer for layer in layers if isinstance(layer, Rectifier))
    return layer.lines(boxes[number]).below[:, None]


def _keep_better(kept: Choices, new: Choices, now: Tensor, best: Tensor) -> None:
    better = now > best
    for old, fresh in ((kept.slopes, new.slopes), (kept.multipliers, new.multipliers)):
        for number, value in fresh.items():
            wide = better.reshape(*better.shape, *(1,) * (value.ndim - 2))
            old[number] = torch.where(wide, value.detach(), old[number])
