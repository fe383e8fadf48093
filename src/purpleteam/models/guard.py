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
        return _checked(scores, len(x)).to(torch.float32, copy=True)


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
    if isinstance(out, tuple | list) and out and isinstance(out[0], Tensor):
        return out[0], f"a {type(out).__name__} of {len(out)}; the first is taken for the logits"
    return out, ""


def _checked(out: Any, n: int) -> Tensor:
    """Return the scores of `n` images, or say why they are none."""
    if not isinstance(out, Tensor):
        keys = f" with {', '.join(map(repr, out))}" if isinstance(out, Mapping) else ""
        raise ModelError(
            f"the model returned {type(out).__name__}{keys}, not logits ({n}, classes): wrap it in "
            "a module that returns the tensor of logits alone"
        )
    shape = tuple(out.shape)
    wrong = f"the model returned {shape}, not logits ({n}, classes)"
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


def _what_failed(model: Classifier, x: Tensor, error: Exception) -> str:
    """Return one line: whose code failed, where, on what, and what may help."""
    whose, place = place_of(error)
    reason = " ".join(str(error).split())[:200] or "no reason given"
    one_only = len(x) > 1 and _takes(model, x[:1])
    hint = (
        f" (it takes one image, not {len(x)}: wrap it, torch.cat([net(one) for one in x.split(1)]))"
    )
    return (
        f"the model does not take images of shape {tuple(x.shape[1:])}: "
        f"{type(error).__name__}: {reason}{f' in {place}' if whose == 'user' else ''}"
        f"{hint if one_only else ''}"
    )


def _takes(model: Classifier, x: Tensor) -> bool:
    try:
        with torch.no_grad():
            model(x.clone())
    except Exception:  # as before
        return False
    return True
