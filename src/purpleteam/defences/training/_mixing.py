"""Layers that make one image's gradient hang on another image: privacy has no bound there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from purpleteam.core.errors import UsageError
from purpleteam.models.guard import guarded, switched

PROBES = 4  # images by which such a layer is found


def refuse_mixing(net: nn.Module, x: Tensor) -> None:
    """Refuse a net one of whose layers mixes images (N, C, H, W) or keeps what it saw of them.

    Batch normalisation is known by its name. Any other layer is found by asking: in train mode no
    output of the first image may have a slope in another one, and no buffer may change.
    """
    for place, layer in net.named_modules():
        kept = getattr(layer, "running_mean", None) is not None
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) or kept:
            raise UsageError(_refusal(layer, place, "normalises by other images of the batch"))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    x = x[:PROBES].clone().requires_grad_()
    found: list[tuple[nn.Module, str]] = []

    def look(place: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(layer: nn.Module, _: Any, out: Any) -> None:
            if found or not isinstance(out, Tensor) or not out.requires_grad or not len(out):
                return
            (slope,) = torch.autograd.grad(
                out[0].float().sum(), x, retain_graph=True, allow_unused=True
            )
            if slope is not None and bool(slope[1:].any()):
                found.append((layer, place))

        return hook

    handles = [layer.register_forward_hook(look(place)) for place, layer in net.named_modules()]
    training = net.training
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            guarded(switched(net, training=True))(x)
    finally:
        for handle in handles:
            handle.remove()
        switched(net, training)
    if found:
        # The first that was done; what holds it was done later.
        raise UsageError(_refusal(*found[0], "mixes the images of a batch"))
    changed = [name for name, old in before.items() if not torch.equal(net.state_dict()[name], old)]
    if changed:
        net.load_state_dict(before)
        place, _, name = changed[0].rpartition(".")
        raise UsageError(_refusal(net.get_submodule(place), place, f"keeps {name} of the images"))


def _refusal(layer: nn.Module, place: str, why: str) -> str:
    kind = type(layer).__name__
    where = f"layer {place}, a {kind}," if place else f"the net, a {kind},"
    remedy = "put nn.GroupNorm in its place" if "Norm" in kind else "take it out"
    return f"no differential privacy: {where} {why}: {remedy}, or --arch scattering or small_cnn"
