"""Where other people's code is called: it gets a copy, and what it answers is read.

A net may change its input in place, keep it, or give it back as its answer; none of that reaches
our tensors. It may answer in another precision, or with its logits inside something else.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor, nn

from purpleteam.core.errors import ModelError, PurpleError, UsageError, place_of
from purpleteam.models.answers import checked, taken

__all__ = ["Classifier", "Guarded", "guarded", "is_exported", "switched"]

Classifier = Callable[[Tensor], Tensor]
"""Images (N, C, H, W) in [0, 1] to logits (N, classes)."""


EXPORTED = "a graph on a shelf: give its .module(), which is called with images"
AGAIN = "torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim('n')},))"


def is_exported(model: object) -> bool:
    """Say whether it is what `torch.export` returns, which is no module and cannot be called."""
    return isinstance(model, torch.export.ExportedProgram)


M = TypeVar("M", bound=nn.Module)


def switched(module: M, training: bool = False) -> M:
    """Put a net in train or eval mode and return it; a graph that was exported stays as it is.

    It has no modes, and a net that holds one is switched around it.
    """
    try:
        return module.train(training)
    except NotImplementedError:
        module.training = training
        for child in module.children():
            switched(child, training)
        return module


def guarded(model: object) -> Guarded:
    """Return a classifier that may be asked without care; one that is already so is returned.

    Raises:
        UsageError: it cannot be called.
    """
    if isinstance(model, Guarded):
        return model
    if is_exported(model):
        raise UsageError(f"model is a {type(model).__name__}, {EXPORTED}")
    if not callable(model):
        inner = getattr(model, "module", None)
        hint = "; its .module is one" if isinstance(inner, nn.Module) else ""
        raise UsageError(
            f"model is a {type(model).__name__}, not a classifier that is called with images{hint}"
        )
    return Guarded(model)


class Guarded(nn.Module):
    """Somebody's classifier, asked with copies: images (N, C, H, W) to float32 logits (N, classes).

    Attributes:
        model: as the user has it.
        form: how its logits are got out of what it returns; "" where it returns them.
        precision: what its weights are in, and so what the copies are in.
        classes: how many it scores, where that is known: it tells logits from features.
    """

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model
        self.form = ""
        self.precision = _precision_of(model)
        self.classes: int | None = None

    @property
    def differentiable(self) -> bool:
        """Whether the model says of itself that it gives gradients; most say nothing."""
        return bool(getattr(self.model, "differentiable", True))

    @property
    def quantised(self) -> bool:
        """Whether images reach the model as bytes, in steps of 1/255."""
        return bool(getattr(self.model, "quantised", False))

    @property
    def gives(self) -> str:
        """Whether it tells `labels` alone, or `scores`."""
        return str(getattr(self.model, "gives", "scores"))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, and leave `x` alone.

        Raises:
            ModelError: the model's own code failed, or what it returned are no logits.
        """
        try:
            with _uncompiled():
                out = self.model(x.to(self.precision, copy=True))
        except (PurpleError, MemoryError):  # they say what is wrong already
            raise
        except Exception as error:  # the model may be anybody's code
            raise ModelError(_what_failed(self.model, x, error)) from error
        scores, form = taken(out, len(x), self.classes)
        if form != self.form:
            self.form = form
        return checked(scores, len(x), form).to(torch.float32, copy=True)


def _precision_of(model: Classifier) -> torch.dtype:
    """Return what a net's weights are in, and so what it takes."""
    parameters = model.parameters() if isinstance(model, nn.Module) else ()
    return next((one.dtype for one in parameters if one.is_floating_point()), torch.float32)


def _uncompiled() -> AbstractContextManager[object]:
    """Ask what `torch.compile` made as it was written: compiling takes minutes and a compiler."""
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    stance: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance


def _what_failed(model: Classifier, x: Tensor, error: Exception) -> str:
    """Return one line: whose code failed, where, on what, and what may help."""
    whose, place = place_of(error)
    reason = " ".join(str(error).split())[:200] or "no reason given"
    if graph := _graph_takes(model, x):
        return f"the model does not take {len(x)} images of shape {tuple(x.shape[1:])}: {graph}"
    hint = next((f" ({told})" for told, other in _others(x) if _takes(model, other)), "")
    return (
        f"the model does not take images of shape {tuple(x.shape[1:])}: "
        f"{type(error).__name__}: {reason}{f' in {place}' if whose == 'user' else ''}"
        f"{hint}"
    )


def _graph_takes(model: Classifier, x: Tensor) -> str:
    """Return what an exported graph takes, where that are no such images; "" where it is none."""
    parts = model.modules() if isinstance(model, nn.Module) else ()
    graphs = [one.graph for one in parts if isinstance(one, torch.fx.GraphModule)]
    nodes = [node for graph in graphs for node in graph.nodes if node.op == "placeholder"]
    shape = getattr(nodes[0].meta.get("val"), "shape", None) if nodes else None
    if shape is None or len(shape) != x.ndim:
        return ""
    n, *sides = (side if isinstance(side, int) else None for side in shape)
    if any(side not in (None, own) for side, own in zip(sides, x.shape[1:], strict=True)):
        return f"its graph was exported for images of shape {tuple(sides)}"
    if n in (None, len(x)):
        return ""
    return f"its graph was exported for {n} at once: export it for any number, {AGAIN}"


def _others(x: Tensor) -> list[tuple[str, Tensor]]:
    """Return in what other forms the model may want these images, and how to wrap it for that.

    The first is the form that failed: where it goes without gradients, no other is the matter.
    """
    pixels, last = (255 * x).byte(), (0, 2, 3, 1)
    as_bytes = "net((255 * x).round().byte()"
    one = f"it takes one image, not {len(x)}: wrap it, torch.cat([net(one) for one in x.split(1)])"
    return [
        ("it does where no gradient is asked for", x),
        *([(one, x[:1])] if len(x) > 1 else []),
        (f"it takes bytes: wrap it, {as_bytes})", pixels),
        (f"it takes channels last: wrap it, net(x.permute{last})", x.permute(last)),
        (
            f"it takes bytes, channels last: wrap it, {as_bytes}.permute{last})",
            pixels.permute(last),
        ),
    ]


def _takes(model: Classifier, x: Tensor) -> bool:
    """Say whether the model has an answer for each of the images."""
    try:
        with torch.no_grad():
            out, _ = taken(model(x.clone()), len(x))
    except Exception:  # as before
        return False
    return isinstance(out, Tensor) and out.ndim > 0 and len(out) == len(x)
