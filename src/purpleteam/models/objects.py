"""Classifiers that are Python objects: MAITE models, and whatever is called with images.

A MAITE model (https://mit-ll-ai-technology.github.io/maite) is called with a sequence of images
(C, H, W), answers with one row of scores for each, and has `metadata` with an `id`; the package is
not needed. Any other callable gets a batch (N, C, H, W) in [0, 1] as a tensor, or as a NumPy array
where it does not take a tensor. What happens in the call is its own affair, so either is a black
box until its answers prove otherwise: where a MAITE model's attribute `model` is a net that
answers the same, or where the call lets gradients through, it is attacked white-box.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from purpleteam.core.digest import canonical_json, sha256_bytes
from purpleteam.core.errors import ModelError
from purpleteam.models.adapters import Normalisation, Ordered
from purpleteam.models.black_box import BlackBox
from purpleteam.models.devices import device_of
from purpleteam.models.guard import checked, guarded, switched, taken
from purpleteam.models.weights import digest_of, tensors_of

NEAR = 1e-3
"""How far probabilities may be from adding up to 1, and two ways to the same scores apart."""
Call = Callable[[Any, Tensor], Tensor]
"""Asks an object for the scores (N, classes) of images (N, C, H, W)."""
PROBES = 4
"""Images of fixed noise whose answers are part of the digest of a function without weights."""


class ObjectClassifier(BlackBox):
    """A Python object from outside: it gives scores and, as far as is known, no gradient."""

    quantised = False

    def __init__(
        self,
        model: Any,
        call: Call,
        name: str,
        digest: str,
        *,
        net: nn.Module | None = None,
        normalisation: Normalisation | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        shape = (None, None, None)
        super().__init__(name, digest=digest, shape=shape, classes=0, gives="scores", notes=notes)
        self.model = model
        self.call = call
        self.net = net
        self.normalisation = normalisation

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The names of its outputs in their order, where its metadata has them."""
        named: Any = self.model.metadata.get("index2label") if is_maite(self.model) else None
        return tuple(str(named[number]) for number in sorted(named)) if named else None

    def ask(self, images: Tensor) -> Tensor:
        """Return float32 scores (N, classes) for images on the CPU."""
        with torch.no_grad():
            x = self._input(images.to(device_of(self)))
            scores = _log_scores(self.call(self.model, x))
        self.classes = scores.shape[1]
        self.calls += len(images)
        return scores.cpu()

    def opened(self, x: Tensor) -> tuple[nn.Module, str]:
        """Return the most that an attack may know of the model, by its answers to `x`, and why."""
        wanted, net = self._input(x), self.net
        with torch.no_grad():
            scores = self.call(self.model, wanted)
            alike = net is not None and net is not self.model and _alike(net, wanted, scores)
        if net is not None and alike:
            return self._behind(net), "its net .model answers as it does itself: white-box"
        if self._lets_gradients_through(wanted):
            made = ObjectNet(self.model, self.call, net)
            return self._behind(made), "its own call lets gradients through: white-box"
        return self, "its own call lets no gradient through: black-box attacks only"

    def _input(self, x: Tensor) -> Tensor:
        return x if self.normalisation is None else self.normalisation(x)

    def _behind(self, net: nn.Module) -> nn.Module:
        net = net if self.normalisation is None else self.normalisation.before(net)
        return switched(net if self._order is None else Ordered(net, *self._order))

    def _lets_gradients_through(self, x: Tensor) -> bool:
        part = x.detach().clone().requires_grad_(True)
        try:
            with torch.enable_grad():
                scores = _log_scores(self.call(self.model, part))
                if not scores.requires_grad:
                    return False
                spread = scores.amax(1) - scores.mean(1)
                (gradient,) = torch.autograd.grad(spread.sum(), part)
        except Exception:  # numpy() of a tensor that wants a gradient, a detached graph, ...
            return False
        finite = bool(torch.isfinite(gradient).all())
        return finite and bool(gradient.flatten(1).abs().amax(1).gt(0).any())


class ObjectNet(nn.Module):
    """A Python object whose call lets gradients through: images (N, C, H, W) to scores.

    Probabilities come back as their logarithms, which attacks can use as they use logits.
    """

    def __init__(self, model: Any, call: Call, net: nn.Module | None) -> None:
        super().__init__()
        self.model = model
        self.call = call
        self.net = net  # known here, it follows `.to` and `.eval`

    def forward(self, x: Tensor) -> Tensor:
        return _log_scores(self.call(self.model, x))


def maite_classifier(
    model: Any, name: str, digest: str | None = None, normalisation: Normalisation | None = None
) -> ObjectClassifier:
    """Return a MAITE model as a black box; `opened` may make more of it.

    Args:
        model: what the factory returned, or the user holds.
        name: of the model; `module:factory` where it was made by one.
        digest: of the file of weights; without one, it is of the net's tensors or of the code.
        normalisation: a layer to put in front of it.
    """
    net = net_of_maite(model)
    if digest is None and net is not None:
        digest = digest_of(net)
    if digest is None:
        code = getattr(sys.modules.get(name.partition(":")[0]), "__file__", None)
        about = canonical_json({"reference": name, "id": str(model.metadata["id"])}).encode()
        digest = sha256_bytes(about, b"" if code is None else Path(code).read_bytes())
    return ObjectClassifier(model, _ask_maite, name, digest, net=net, normalisation=normalisation)


def callable_classifier(
    model: Callable[[Any], Any],
    shape: tuple[int, int, int] | None = None,
    normalisation: Normalisation | None = None,
) -> ObjectClassifier:
    """Return any callable from images to scores as a black box; `opened` may make more of it.

    Args:
        model: takes a batch (N, C, H, W) in [0, 1], a tensor or else a NumPy array.
        shape: of an image; the answers to images of noise are then part of the digest.
        normalisation: a layer to put in front of it.

    Raises:
        ModelError: it does not take such images, or does not answer with scores.
    """
    state = getattr(getattr(model, "__self__", model), "state_dict", dict)  # of a bound method too
    made = ObjectClassifier(model, _ask, name_of(model), "", normalisation=normalisation)
    made.digest, note = digest_of_code(model, shape, state(), guarded(made))
    made.notes = (note,)
    made.calls = 0
    return made


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


def _ask_maite(model: Any, x: Tensor) -> Tensor:
    """Return the rows that a MAITE model answers, (N, classes)."""
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
    scores, form = taken(answer, len(x))
    return checked(scores, len(x), form).float().to(x.device)


def name_of(model: object) -> str:
    """Return the name of a function, or of an object's class."""
    return str(getattr(model, "__name__", None) or type(model).__name__)


def is_maite(made: object) -> bool:
    """Say whether an object is called like a MAITE model and has its metadata."""
    metadata = getattr(made, "metadata", None)
    return callable(made) and isinstance(metadata, Mapping) and "id" in metadata


def net_of_maite(model: object) -> nn.Module | None:
    """Return the net of a MAITE model: the model itself, or its attribute `model`."""
    net = model if isinstance(model, nn.Module) else getattr(model, "model", None)
    return net if isinstance(net, nn.Module) else None


def _from_array(row: Any) -> Tensor:
    return torch.from_numpy(np.array(row, np.float32))


def _log_scores(scores: Tensor) -> Tensor:
    """Return the logarithm of each row that is a distribution, any other row as it is."""
    spread = (scores >= 0).all(1) & ((scores.sum(1) - 1).abs() < NEAR)
    logarithms = scores.clamp_min(torch.finfo(scores.dtype).tiny).log()
    return torch.where(spread[:, None], logarithms, scores)


def _alike(net: nn.Module, x: Tensor, scores: Tensor) -> bool:
    try:
        logits = net(x)
    except Exception:  # it may want other images than the model around it
        return False
    if not isinstance(logits, Tensor) or logits.shape != scores.shape:
        return False
    answers = (logits.float(), logits.float().softmax(1))
    return any(torch.allclose(one, scores, rtol=NEAR, atol=NEAR) for one in answers)
