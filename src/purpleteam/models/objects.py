"""Classifiers that are Python objects: MAITE models, and whatever is called with images.

A MAITE model (https://mit-ll-ai-technology.github.io/maite) gets a sequence of images (C, H, W) and
answers with a row of scores for each; any other callable gets a batch (N, C, H, W) in [0, 1].
Either is a black box, unless a MAITE model's attribute `model` is a net that answers the same, or
the call lets gradients through.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from purpleteam.core.digest import sha256_bytes
from purpleteam.core.errors import ModelError, reason_of
from purpleteam.models.black_box import BlackBox, distributions
from purpleteam.models.devices import device_of
from purpleteam.models.guard import scores_in
from purpleteam.models.weights import digest_of, tensors_of

PROBES = 4  # images of noise whose answers are part of the digest of a function without weights


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

    def ask(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            scores = _log_scores(self.call(self.model, images.to(device_of(self))))
        self.classes = scores.shape[1]
        self.calls += len(images)
        return scores.cpu()


class ObjectNet(nn.Module):
    """A Python object whose call lets gradients through; probabilities come as their logarithms."""

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
    """Return the digest of a state dict, or of code alone, and what that digest is of."""
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
        reason = reason_of(error)
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
    logarithms = scores.clamp_min(torch.finfo(scores.dtype).tiny).log()
    return torch.where(distributions(scores)[:, None], logarithms, scores)
