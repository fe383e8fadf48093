"""Classifiers that are Python objects: MAITE models, and whatever is called with images.

A MAITE model (https://mit-ll-ai-technology.github.io/maite) is called with a sequence of images
(C, H, W), answers with one row of scores for each, and has `metadata` with an `id`; the package is
not needed. Any other callable gets a batch (N, C, H, W) in [0, 1] as a tensor, or as a NumPy array
where it does not take a tensor. What happens in the call is its own affair, so either is a black
box until its answers prove otherwise: where a MAITE model's attribute `model` is a net that
answers the same, or where the call lets gradients through, it is attacked white-box.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from purpleteam.core.digest import sha256_bytes
from purpleteam.core.errors import ModelError
from purpleteam.models.adapters import Ordered
from purpleteam.models.black_box import BlackBox, one_line
from purpleteam.models.devices import device_of
from purpleteam.models.guard import scores_in, switched
from purpleteam.models.weights import digest_of, tensors_of

NEAR = 1e-3
"""How far probabilities may be from adding up to 1, and two ways to the same scores apart."""
PROBES = 4
"""Images of fixed noise whose answers are part of the digest of a function without weights."""


class ObjectClassifier(BlackBox):
    """A Python object from outside: it gives scores and, as far as is known, no gradient."""

    quantised = False

    def __init__(self, model: Any, name: str) -> None:
        super().__init__(name, digest="", shape=(None, None, None), classes=0)
        self.model = model
        self.net = net_of(model)
        maite = is_maite(model)
        self.call: Callable[[Any, Tensor], Tensor] = _ask_maite if maite else _ask
        named = model.metadata.get("index2label") if maite else None
        self.labels = tuple(str(named[number]) for number in sorted(named)) if named else None
        """The names of its outputs in their order, where its metadata has them."""

    def ask(self, images: Tensor) -> Tensor:
        """Return float32 scores (N, classes) for images on the CPU."""
        with torch.no_grad():
            scores = _log_scores(self.call(self.model, images.to(device_of(self))))
        self.classes = scores.shape[1]
        self.calls += len(images)
        return scores.cpu()

    def opened(self, x: Tensor) -> tuple[nn.Module, str]:
        """Return the most that an attack may know of the model, by its answers to `x`, and why."""
        wanted = x if self.normalisation is None else self.normalisation(x)
        with torch.no_grad():
            scores = self.call(self.model, wanted)
            alike = self.net is not None and self.net is not self.model
            alike = alike and _alike(self.net, wanted, scores)
        net, why = self.net, "its net .model answers as it does itself: white-box"
        if net is None or not alike:
            net, why = ObjectNet(self), "its own call lets gradients through: white-box"
            if not _lets_gradients_through(net, wanted):
                return self, "its own call lets no gradient through: black-box attacks only"
        net = net if self.normalisation is None else self.normalisation.before(net)
        return switched(net if self.order is None else Ordered(net, self.order)), why


class ObjectNet(nn.Module):
    """A Python object whose call lets gradients through: images (N, C, H, W) to scores.

    Probabilities come back as their logarithms, which attacks can use as they use logits.
    """

    def __init__(self, box: ObjectClassifier) -> None:
        super().__init__()
        self.model, self.call = box.model, box.call
        self.net = box.net  # known here, it follows `.to` and `.eval`

    def forward(self, x: Tensor) -> Tensor:
        return _log_scores(self.call(self.model, x))


def digest_of_code(
    model: object,
    shape: tuple[int, int, int] | None,
    state: object,
    ask: Callable[[Tensor], Tensor],
) -> tuple[str, str]:
    """Return the digest of a model that may be code alone, and what that digest is of.

    Args:
        model: gives its name.
        shape: of an image, where that is known.
        state: its state dict, or an empty one.
        ask: images (N, C, H, W) to scores.
    """
    if tensors := tensors_of(state):
        return digest_of(tensors), "its digest is of its state dict; its code is no part of it"
    known = [f"{getattr(model, '__module__', '')}.{name_of(model)}".encode()]
    parts = "name alone"
    if shape is not None:
        x = torch.rand((PROBES, *shape), generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            known.append(ask(x).cpu().numpy().tobytes())
        parts = f"name and its answers to {PROBES} images of noise"
    return sha256_bytes(*known), f"its digest is of its {parts}: its code is no part of it"


def name_of(model: object) -> str:
    """Return the name of a function, or of an object's class."""
    return str(getattr(model, "__name__", None) or type(model).__name__)


def is_maite(made: object) -> bool:
    """Say whether an object is called like a MAITE model and has its metadata."""
    metadata = getattr(made, "metadata", None)
    return callable(made) and isinstance(metadata, Mapping) and "id" in metadata


def net_of(model: object) -> nn.Module | None:
    """Return the net that the object is, or that a MAITE model has as its attribute `model`."""
    inner = getattr(model, "model", None) if is_maite(model) else None
    net = model if isinstance(model, nn.Module) else inner
    return net if isinstance(net, nn.Module) else None


def _ask_maite(model: Any, x: Tensor) -> Tensor:
    """Return the rows that a MAITE model answers, (N, classes)."""
    answer: Any = model([image.clone() for image in x])  # copies: it may change them
    try:
        rows = [row if isinstance(row, Tensor) else _from_array(row) for row in answer]
        scores = torch.stack(rows)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = one_line(error)
        raise ModelError(f"the MAITE model returned no row of scores each: {reason}") from None
    if scores.ndim != 2 or len(scores) != len(x):
        raise ModelError(f"the MAITE model returned {tuple(scores.shape)}, not ({len(x)}, classes)")
    return scores.float().to(x.device)


def _ask(model: Any, x: Tensor) -> Tensor:
    """Return the scores (N, classes) of a callable, which gets an array where it wants one."""
    try:
        answer = model(x.clone())  # a copy: it may change it
    except Exception as error:
        if x.requires_grad:  # an array would lose the gradient: it has none to give
            raise
        try:
            answer = model(x.detach().cpu().numpy().copy())
        except Exception:  # so the form was not the matter
            raise error from None
    if isinstance(answer, np.ndarray | list):
        answer = _from_array(answer)
    return scores_in(answer, len(x))[0].float().to(x.device)


def _from_array(row: Any) -> Tensor:
    return torch.from_numpy(np.array(row, np.float32))


def _log_scores(scores: Tensor) -> Tensor:
    """Return the logarithm of each row that is a distribution, any other row as it is."""
    spread = (scores >= 0).all(1) & ((scores.sum(1) - 1).abs() < NEAR)
    logarithms = scores.clamp_min(torch.finfo(scores.dtype).tiny).log()
    return torch.where(spread[:, None], logarithms, scores)


def _alike(net: Any, x: Tensor, scores: Tensor) -> bool:
    try:
        logits = net(x).float()
        answers = (logits, logits.softmax(1)) if logits.shape == scores.shape else ()
        return any(torch.allclose(answer, scores, rtol=NEAR, atol=NEAR) for answer in answers)
    except Exception:  # it may want other images than the model around it
        return False


def _lets_gradients_through(net: ObjectNet, x: Tensor) -> bool:
    part = x.detach().clone().requires_grad_(True)
    try:
        with torch.enable_grad():
            scores = net(part)
            spread = scores.amax(1) - scores.mean(1)
            (gradient,) = torch.autograd.grad(spread.sum(), part)
    except Exception:  # numpy() of a tensor that wants a gradient, a detached graph, ...
        return False
    finite = bool(torch.isfinite(gradient).all())
    return finite and bool(gradient.flatten(1).abs().amax(1).gt(0).any())
