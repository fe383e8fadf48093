"""Classifiers that follow MAITE's protocol, without depending on the package.

A MAITE model (https://mit-ll-ai-technology.github.io/maite) is called with a sequence of images
(C, H, W), answers with one row of scores for each, and has `metadata` with an `id`. What happens
in its call is its own affair, so it is a black box until its answers prove otherwise: where its
attribute `model` is a net that answers the same, or its own call lets gradients through, it is
attacked white-box.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from purpleteam.core.digest import canonical_json, sha256_bytes
from purpleteam.core.errors import ModelError
from purpleteam.models.black_box import BlackBox
from purpleteam.models.class_order import Ordered
from purpleteam.models.devices import device_of
from purpleteam.models.guard import switched
from purpleteam.models.normalisation import Normalisation
from purpleteam.models.weights import digest_of

__all__ = ["MaiteClassifier", "MaiteNet", "adapted", "is_maite", "net_of_maite"]

MaiteModel = Callable[[Sequence[Tensor]], Sequence[Any]]

NEAR = 1e-3
"""How far probabilities may be from adding up to 1, and two ways to the same scores apart."""


def is_maite(made: object) -> bool:
    """Say whether an object is called like a MAITE model and has its metadata."""
    metadata = getattr(made, "metadata", None)
    return callable(made) and isinstance(metadata, Mapping) and "id" in metadata


class MaiteNet(nn.Module):
    """A MAITE model whose own call lets gradients through: images (N, C, H, W) to scores.

    Probabilities come back as their logarithms, which attacks can use as they use logits.
    """

    def __init__(self, model: MaiteModel) -> None:
        super().__init__()
        self.model = model
        self.net = net_of_maite(model)  # known here, it follows `.to` and `.eval`

    def forward(self, x: Tensor) -> Tensor:
        return _log_scores(_asked(self.model, x))


class MaiteClassifier(BlackBox):
    """A MAITE model from outside: it gives scores and no gradient."""

    quantised = False

    def __init__(
        self, model: MaiteModel, name: str, digest: str, normalisation: Normalisation | None
    ) -> None:
        super().__init__(name, digest=digest, shape=(None, None, None), classes=0, gives="scores")
        self.model = model
        self.net = net_of_maite(model)
        self.normalisation = normalisation

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The names of its outputs in their order, where its metadata has them."""
        named: Any = getattr(self.model, "metadata", {}).get("index2label")
        return tuple(str(named[number]) for number in sorted(named)) if named else None

    def ask(self, images: Tensor) -> Tensor:
        """Return float32 scores (N, classes) for images on the CPU."""
        with torch.no_grad():
            scores = _log_scores(_asked(self.model, self._input(images.to(device_of(self)))))
        self.classes = scores.shape[1]
        self.calls += len(images)
        return scores.cpu()

    def opened(self, x: Tensor) -> tuple[nn.Module, str]:
        """Return the most that an attack may know of the model, judged on images, and why."""
        wanted, net = self._input(x), self.net
        with torch.no_grad():
            scores = _asked(self.model, wanted)
            alike = net is not self.model and _answers_alike(net, wanted, scores)
        if net is not None and alike:
            return self._behind(net), "its net .model answers as it does itself: white-box"
        if _lets_gradients_through(self.model, wanted):
            return self._behind(
                MaiteNet(self.model)
            ), "its own call lets gradients through: white-box"
        return self, "its own call lets no gradient through: black-box attacks only"

    def _input(self, x: Tensor) -> Tensor:
        return x if self.normalisation is None else self.normalisation(x)

    def _behind(self, net: nn.Module) -> nn.Module:
        net = net if self.normalisation is None else self.normalisation.before(net)
        return switched(net if self._order is None else Ordered(net, *self._order))


def net_of_maite(model: object) -> nn.Module | None:
    """Return the net of a MAITE model: the model itself, or its attribute `model`."""
    net = model if isinstance(model, nn.Module) else getattr(model, "model", None)
    return net if isinstance(net, nn.Module) else None


def adapted(
    made: object, reference: str, digest: str | None, normalisation: Normalisation | None
) -> MaiteClassifier:
    """Return a MAITE model as a black box; `opened` may make more of it.

    Args:
        made: what the factory returned.
        reference: `module:factory`.
        digest: of the file of weights; without one, it is of the net's tensors or of the code.
        normalisation: a layer to put in front of it.
    """
    model: Any = made
    return MaiteClassifier(model, reference, digest or _digest(model, reference), normalisation)


def _digest(model: Any, reference: str) -> str:
    if (net := net_of_maite(model)) is not None:
        return digest_of(net)
    code = getattr(sys.modules.get(reference.partition(":")[0]), "__file__", None)
    about = canonical_json({"reference": reference, "id": str(model.metadata["id"])}).encode()
    return sha256_bytes(about, b"" if code is None else Path(code).read_bytes())


def _asked(model: MaiteModel, x: Tensor) -> Tensor:
    answer: Any = model([one.clone() for one in x])  # copies: it may change them
    try:
        rows = [one if isinstance(one, Tensor) else _from_array(one) for one in answer]
        scores = torch.stack(rows)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"the MAITE model returned no row of scores each: {reason}") from None
    if scores.ndim != 2 or len(scores) != len(x):
        raise ModelError(f"the MAITE model returned {tuple(scores.shape)}, not ({len(x)}, classes)")
    return scores.float().to(x.device)


def _from_array(row: Any) -> Tensor:
    return torch.from_numpy(np.array(row, np.float32))


def _log_scores(scores: Tensor) -> Tensor:
    """Return the logarithm of each row that is a distribution, any other row as it is."""
    spread = (scores >= 0).all(1) & ((scores.sum(1) - 1).abs() < NEAR)
    logarithms = scores.clamp_min(torch.finfo(scores.dtype).tiny).log()
    return torch.where(spread[:, None], logarithms, scores)


def _answers_alike(net: nn.Module | None, x: Tensor, scores: Tensor) -> bool:
    if net is None:
        return False
    try:
        logits = net(x)
    except Exception:  # it may want other images than the model around it
        return False
    if not isinstance(logits, Tensor) or logits.shape != scores.shape:
        return False
    answers = (logits.float(), logits.float().softmax(1))
    return any(torch.allclose(one, scores, rtol=NEAR, atol=NEAR) for one in answers)


def _lets_gradients_through(model: MaiteModel, x: Tensor) -> bool:
    part = x.detach().clone().requires_grad_(True)
    try:
        with torch.enable_grad():
            scores = _log_scores(_asked(model, part))
            if not scores.requires_grad:
                return False
            spread = scores.amax(1) - scores.mean(1)
            (gradient,) = torch.autograd.grad(spread.sum(), part)
    except Exception:  # numpy() of a tensor that wants a gradient, a detached graph, ...
        return False
    return bool(torch.isfinite(gradient).all() and gradient.flatten(1).abs().amax(1).gt(0).any())
