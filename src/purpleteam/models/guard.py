"""Where other people's code is called: with a copy; the logits are looked for in its answer."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from purpleteam.core.errors import ModelError, PurpleError, UsageError, place_of

Classifier = Callable[[Tensor], Tensor]  # images (N, C, H, W) in [0, 1] to logits (N, classes)
M = TypeVar("M", bound=nn.Module)

AGAIN = "torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim('n')},))"
SIDES = (224, 32, 28, 299)  # of images that nets are usually made for
DEEPEST, MANY, MOST_LISTED = 4, 64, 4  # how far an answer is looked through, and what is listed


def switched(module: M, training: bool = False) -> M:
    """Put a net in train or eval mode and return it, around graphs that were exported in one."""
    try:
        return module.train(training)
    except NotImplementedError:
        module.training = training
        for child in module.children():
            switched(child, training)
        return module


def guarded(model: object) -> Guarded:
    """Return a classifier that may be asked without care; what cannot be called is refused."""
    if isinstance(model, Guarded):
        return model
    kind = type(model).__name__
    if isinstance(model, torch.export.ExportedProgram):  # it is no module and cannot be called
        raise UsageError(f"model is a {kind}: give its .module(), which is called with images")
    if not callable(model):
        hint = "; its .module is one" if isinstance(getattr(model, "module", 0), nn.Module) else ""
        raise UsageError(f"model is a {kind}, not a classifier that is called with images{hint}")
    return Guarded(model)


class Guarded(nn.Module):
    """Somebody's classifier, asked with copies (N, C, H, W), for float32 logits (N, classes)."""

    def __init__(self, model: Classifier, classes: int | None = None) -> None:
        super().__init__()
        self.model = model
        self.form = ""  # how its logits are got out of what it returns, where they are within it
        self.classes = classes  # where known: it tells logits from features
        self.order: Order | None = None
        parameters = model.parameters() if isinstance(model, nn.Module) else ()
        floats = (tensor.dtype for tensor in parameters if tensor.is_floating_point())
        self.precision = next(floats, torch.float32)  # of its weights, and so of the copies
        self.differentiable = bool(getattr(model, "differentiable", True))
        self.quantised = bool(getattr(model, "quantised", False))
        self.gives = str(getattr(model, "gives", "scores"))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, and leave `x` alone; a ModelError says whose code failed, and where."""
        # What `torch.compile` made is asked as it was written: compiling takes minutes.
        compiled = "torch._dynamo" in sys.modules
        try:
            with torch.compiler.set_stance("force_eager") if compiled else nullcontext():
                out = self.model(x.to(self.precision, copy=True))
        except (PurpleError, MemoryError):  # they say what is wrong already
            raise
        except Exception as error:  # the model may be anybody's code
            raise ModelError(_what_failed(self.model, x, error)) from error
        scores, form = scores_in(out, len(x), self.classes)
        if form != self.form:
            self.form = form
        scores = scores.to(torch.float32, copy=True)
        return scores if self.order is None else self.order(scores)


@dataclass(frozen=True)
class Order:
    """Brings scores (N, outputs) into the data's order of classes."""

    names: tuple[str, ...]  # of all outputs of the net, in its own order
    places: tuple[int, ...]  # for each class of the data the number of the output that is named so

    def __call__(self, scores: Tensor) -> Tensor:
        """Return the scores (N, classes); the net must score as many classes as are named."""
        scored, named = scores.shape[1], len(self.names)
        if scored != named:
            raise ModelError(f"the model scores {scored} classes, not the {named} named")
        return scores[:, self.places]


def _what_failed(model: Classifier, x: Tensor, error: Exception) -> str:
    """Return one line: whose code failed, where, on what, and what may help."""
    whose, place = place_of(error)
    reason = " ".join(str(error).split())[:200] or "no reason given"
    if graph := _graph_takes(model, x):
        return f"the model does not take {len(x)} images of shape {tuple(x.shape[1:])}: {graph}"
    # In what other forms it may want these images, and how to wrap it for that. The first is the
    # form that failed: where it goes without gradients, no other is the matter.
    pixels, last, as_bytes = (255 * x).byte(), (0, 2, 3, 1), "net((255 * x).round().byte()"
    others = {
        "it does where no gradient is asked for": x,
        f"it takes one image, not {len(x)}: wrap it, "
        "torch.cat([net(one) for one in x.split(1)])": x[:1] if len(x) > 1 else x[:0],
        f"it takes bytes: wrap it, {as_bytes})": pixels,
        f"it takes channels last: wrap it, net(x.permute{last})": x.permute(last),
        f"it takes bytes, channels last: wrap it, {as_bytes}.permute{last})": pixels.permute(last),
    }
    gray = x.shape[1:2] == (1,) and x.ndim == 4
    for side in (None, *SIDES) if x.ndim == 4 else ():
        for channels in (x.shape[1], 3) if gray else (x.shape[1],):
            text, other = "x", x[:2]
            if channels != x.shape[1]:
                text, other = "x.expand(-1, 3, -1, -1)", other.expand(-1, 3, -1, -1)
            if side is not None:
                scaled = f"torch.nn.functional.interpolate({text}, size={side})"
                text, other = scaled, F.interpolate(other, size=side)
            of = f"{channels} channels" if side is None else f"{channels} x {side} x {side}"
            if text != "x":
                others[f"it takes images of {of}: wrap it, net({text})"] = other
    hint = next((f" ({text})" for text, other in others.items() if _takes(model, other)), "")
    return (
        f"the model does not take images of shape {tuple(x.shape[1:])}: "
        f"{type(error).__name__}: {reason}{f' in {place}' if whose == 'user' else ''}{hint}"
    )


def _graph_takes(model: Classifier, x: Tensor) -> str:
    """Return why an exported graph does not take such images; "" where the model is none."""
    parts = model.modules() if isinstance(model, nn.Module) else ()
    graphs = [part.graph for part in parts if isinstance(part, torch.fx.GraphModule)]
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


def _takes(model: Classifier, x: Tensor) -> bool:
    """Say whether the model has an answer for each of the images, of which there are some."""
    try:
        with torch.no_grad():
            out, _ = _found(model(x.clone()), len(x))
    except Exception:  # as before
        return False
    return isinstance(out, Tensor) and out.ndim > 0 and len(out) == len(x) > 0


def scores_in(out: Any, n: int, classes: int | None = None) -> tuple[Tensor, str]:
    """Return the scores of `n` images out of what hubs' models return, and where they were.

    A ModelError says why they are no logits (N, classes), and what to do.
    """
    scores, form = _found(out, n, classes)
    if not isinstance(scores, Tensor):
        keys = f" with {', '.join(map(repr, out))}" if isinstance(out, Mapping) else ""
        raise ModelError(
            f"the model returned {type(out).__name__}{keys}, not logits ({n}, classes): wrap it in "
            f"a module that returns the tensor of logits alone{_such_as(out, n)}"
        )
    shape, fits = tuple(scores.shape), scores.ndim == 2 and len(scores) == n
    remedy = ""
    if form and not fits:
        remedy = ": wrap it in a module that returns the tensor of logits alone"
    elif scores.is_meta:
        remedy = ": it holds no numbers, on the device 'meta'; load the weights"
    elif scores.is_complex():
        remedy = ": its numbers are complex; wrap it to return their .real"
    elif not scores.is_floating_point():
        kind = str(scores.dtype).removeprefix("torch.")
        remedy = f": its {kind} numbers look like labels, which have no gradient"
    elif shape in ((n,), (n, 1)):
        inside = bool(((scores >= 0) & (scores <= 1)).all())
        column = "torch.logit(net(x).flatten(), 1e-6)" if inside else "net(x).flatten()"
        remedy = (
            f": one {'probability' if inside else 'score'} an image? wrap it to return "
            f"torch.stack([-z, z], 1) with z = {column}"
        )
    elif scores.ndim == 4 and len(scores) == n:
        remedy = ": a map of scores? wrap it to return their mean, x.mean((2, 3))"
    if remedy or not fits:
        came = f"{shape} ({form})" if form else f"{shape}"
        raise ModelError(f"the model returned {came}, not logits ({n}, classes){remedy}")
    return scores, form


def _found(out: Any, n: int, classes: int | None = None) -> tuple[Any, str]:
    """Return what may be the scores in an answer, and where; the answer itself where none is.

    What is called logits is taken, and in a tuple, whose parts have no names, what alone has the
    form of logits; of two that have it none is, unless one scores as many `classes` as are known.
    """
    if isinstance(out, Tensor):
        return out, ""
    leaves = list(_leaves(out))
    named = [leaf for leaf in leaves if leaf[0].endswith(("['logits']", ".logits"))]
    candidates = named or (leaves if isinstance(out, tuple | list) else [])
    if len(named) != 1:
        candidates = [leaf for leaf in candidates if _fits(leaf[1], n, classes)]
    if len(candidates) != 1:
        return out, ""
    (place, scores), kind = candidates[0], type(out).__name__
    kind += f" of {len(out)}" if isinstance(out, tuple | list) else ""
    return scores, f"a {kind}; its {place} is taken for the logits"


def _leaves(out: Any, place: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Return the tensors, or what else there is, in an answer, and how to get at each."""
    if isinstance(out, Mapping):
        parts = [(f"[{key!r}]", part) for key, part in out.items()]
    elif isinstance(out, tuple | list):
        parts = [(f"[{number}]", part) for number, part in enumerate(out[:MANY])]
    elif not isinstance(out, Tensor | nn.Module | type):
        parts = [(f".{name}", part) for name, part in getattr(out, "__dict__", {}).items()]
    else:
        parts = []
    if depth < DEEPEST and parts:
        for step, part in parts:
            yield from _leaves(part, place + step, depth + 1)
    elif depth:
        yield place, out


def _fits(part: Any, n: int, classes: int | None = None) -> bool:
    """Say whether it has the form of the logits of `n` images."""
    if not isinstance(part, Tensor) or part.ndim != 2 or not part.is_floating_point():
        return False
    return len(part) == n and part.shape[1] > 1 and classes in (None, part.shape[1])


def _such_as(out: Any, n: int) -> str:
    """Return how to get at what may be the logits in an answer of another form."""
    if type(out).__name__ == "ndarray":
        return ", such as torch.from_numpy(net(x))"
    fitting = [(place, tuple(part.shape)) for place, part in _leaves(out) if _fits(part, n)]
    if len(fitting) == 1:
        return f", such as net(x){fitting[0][0]}"
    if fitting:
        listed = ", ".join(f"net(x){place} {shape}" for place, shape in fitting[:MOST_LISTED])
        return f"; {len(fitting)} may be that: {listed}"
    rows = isinstance(out, tuple | list) and len(out) == n and n > 1
    if rows and all(isinstance(row, Tensor) and row.ndim == 1 for row in out):
        return ", such as torch.stack(list(net(x)))"
    return ""
