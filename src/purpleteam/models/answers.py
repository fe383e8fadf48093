"""What other people's classifiers answer: where in it the logits are, or why there are none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from purpleteam.core.errors import ModelError

__all__ = ["checked", "taken"]

DEEPEST, MANY, MANY_TOLD = 4, 64, 4
"""How deep and wide an answer is looked through for its logits, and how many are listed."""


def taken(out: Any, n: int, classes: int | None = None) -> tuple[Any, str]:
    """Return the scores of `n` images out of what hubs' models return, and where they were.

    What is called logits is taken, and in a tuple, whose parts have no names, what alone has the
    form of logits; of two that have it none is, unless one scores as many `classes` as are known.
    """
    if isinstance(out, Tensor):
        return out, ""
    leaves = list(_leaves(out))
    named = [one for one in leaves if one[0].endswith(("['logits']", ".logits"))]
    told = named or (leaves if isinstance(out, tuple | list) else [])
    if len(named) != 1:
        told = [one for one in told if _fits(one[1], n, classes)]
    if len(told) != 1:
        return out, ""
    (place, scores), kind = told[0], type(out).__name__
    kind += f" of {len(out)}" if isinstance(out, tuple | list) else ""
    return scores, f"a {kind}; its {place} is taken for the logits"


def _leaves(out: Any, place: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Return the tensors, or what else there is, in an answer, and how to get at each."""
    if isinstance(out, Mapping):
        parts = [(f"[{key!r}]", one) for key, one in out.items()]
    elif isinstance(out, tuple | list):
        parts = [(f"[{number}]", one) for number, one in enumerate(out[:MANY])]
    elif not isinstance(out, Tensor | nn.Module | type):
        parts = [(f".{name}", one) for name, one in getattr(out, "__dict__", {}).items()]
    else:
        parts = []
    if depth < DEEPEST and parts:
        for more, one in parts:
            yield from _leaves(one, place + more, depth + 1)
    elif depth:
        yield place, out


def _fits(one: Any, n: int, classes: int | None = None) -> bool:
    """Say whether it has the form of the logits of `n` images."""
    return (
        isinstance(one, Tensor)
        and one.ndim == 2
        and len(one) == n
        and one.shape[1] > 1
        and one.is_floating_point()
        and classes in (None, one.shape[1])
    )


def checked(out: Any, n: int, form: str = "") -> Tensor:
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
    if out.is_meta:
        raise ModelError(f"{wrong}: it holds no numbers, on the device 'meta'; load the weights")
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
    """Return how to get at what may be the logits in an answer of another form."""
    if type(out).__name__ == "ndarray":
        return ", such as torch.from_numpy(net(x))"
    fitting = [(place, tuple(one.shape)) for place, one in _leaves(out) if _fits(one, n)]
    if len(fitting) == 1:
        return f", such as net(x){fitting[0][0]}"
    if fitting:
        listed = ", ".join(f"net(x){place} {shape}" for place, shape in fitting[:MANY_TOLD])
        return f"; {len(fitting)} may be that: {listed}"
    rows = isinstance(out, tuple | list) and len(out) == n and n > 1
    if rows and all(isinstance(one, Tensor) and one.ndim == 1 for one in out):
        return ", such as torch.stack(list(net(x)))"
    return ""
