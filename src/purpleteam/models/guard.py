"""Where other people's code is called: it gets a copy, and what it answers is read.

A net may change its input in place, keep it, or give it back as its answer; none of that reaches
our tensors. It may answer in another precision, or with its logits inside something else.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from purpleteam.core.errors import ModelError, PurpleError, UsageError, place_of

__all__ = ["Classifier", "Guarded", "guarded"]

Classifier = Callable[[Tensor], Tensor]
"""Images (N, C, H, W) in [0, 1] to logits (N, classes)."""


def guarded(model: object) -> Guarded:
    """Return a classifier that may be asked without care; one that is already so is returned.

    Raises:
        UsageError: it cannot be called.
    """
    if isinstance(model, Guarded):
        return model
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
    """

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model
        self.form = ""
        self.precision = _precision_of(model)

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
        scores, form = _taken(out)
        if form != self.form:
            self.form = form
        return _checked(scores, len(x), form).to(torch.float32, copy=True)


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


def _taken(out: Any) -> tuple[Any, str]:
    """Return the scores out of what hubs' models return, and where they were."""
    if isinstance(out, Tensor):
        return out, ""
    if isinstance(out, Mapping):
        if "logits" in out:
            return out["logits"], "a dict; its 'logits' are taken"
        return out, ""
    if isinstance(getattr(out, "logits", None), Tensor):
        return out.logits, f"a {type(out).__name__}; its .logits are taken"
    if isinstance(out, tuple | list) and out and isinstance(out[0], Tensor) and out[0].ndim:
        return out[0], f"a {type(out).__name__} of {len(out)}; the first is taken for the logits"
    return out, ""


def _checked(out: Any, n: int, form: str = "") -> Tensor:
    """Return the scores of `n` images, or say why they are none."""
    if not isinstance(out, Tensor):
        keys = f" with {', '.join(map(repr, out))}" if isinstance(out, Mapping) else ""
        raise ModelError(
            f"the model returned {type(out).__name__}{keys}, not logits ({n}, classes): wrap it in "
            f"a module that returns the tensor of logits alone{_such_as(out, n)}"
        )
    shape = tuple(out.shape)
    came = f"{shape} ({form})" if form else f"{shape}"
    wrong = f"the model returned {came}, not logits ({n}, classes)"
    if form and not (out.ndim == 2 and len(out) == n):
        raise ModelError(f"{wrong}: wrap it in a module that returns the tensor of logits alone")
    if out.is_complex():
        raise ModelError(f"{wrong}: its numbers are complex; wrap it to return their .real")
    if not out.is_floating_point():
        kind = str(out.dtype).removeprefix("torch.")
        raise ModelError(f"{wrong}: its {kind} numbers look like labels, which have no gradient")
    if shape in ((n,), (n, 1)):
        inside = bool(((out >= 0) & (out <= 1)).all())
        column = "torch.logit(net(x).flatten(), 1e-6)" if inside else "net(x).flatten()"
        raise ModelError(
            f"{wrong}: one {'probability' if inside else 'score'} an image? wrap it to return "
            f"torch.stack([-z, z], 1) with z = {column}"
        )
    if out.ndim == 4 and len(out) == n:
        raise ModelError(f"{wrong}: a map of scores? wrap it to return their mean, x.mean((2, 3))")
    if out.ndim != 2 or len(out) != n:
        raise ModelError(wrong)
    return out


def _such_as(out: Any, n: int) -> str:
    """Return how to get at what may be the logits in an answer of another form, if it is clear."""
    if type(out).__name__ == "ndarray":
        return ", such as torch.from_numpy(net(x))"
    parts = [(f"[{key!r}]", one) for key, one in _items(out)]
    parts += [(f".{name}", one) for name, one in getattr(out, "__dict__", {}).items()]
    fitting = [
        place
        for place, one in parts
        if isinstance(one, Tensor) and one.ndim == 2 and len(one) == n and one.is_floating_point()
    ]
    return f", such as net(x){fitting[0]}" if len(fitting) == 1 else ""


def _items(out: Any) -> list[tuple[Any, Any]]:
    if isinstance(out, Mapping):
        return list(out.items())
    return list(enumerate(out)) if isinstance(out, tuple | list) else []


def _what_failed(model: Classifier, x: Tensor, error: Exception) -> str:
    """Return one line: whose code failed, where, on what, and what may help."""
    whose, place = place_of(error)
    reason = " ".join(str(error).split())[:200] or "no reason given"
    hint = next((f" ({told})" for told, other in _others(x) if _takes(model, other)), "")
    return (
        f"the model does not take images of shape {tuple(x.shape[1:])}: "
        f"{type(error).__name__}: {reason}{f' in {place}' if whose == 'user' else ''}"
        f"{hint}"
    )


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
            out, _ = _taken(model(x.clone()))
    except Exception:  # as before
        return False
    return isinstance(out, Tensor) and out.ndim > 0 and len(out) == len(x)
