"""Whose weights an ONNX file holds: its tensors beside those of a .safetensors file; no torch.

An exporter may fold batch normalisation into the layer in front of it (Ioffe and Szegedy 2015,
arXiv 1502.03167), which changes values but can be done again here. What the graph does with the
weights is not looked at: that the two nets answer alike is what `model.onnx-parity` tests.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.errors import ModelError, reason_of
from purpleteam.core.protobuf import Field, Reader

Tensors = dict[str, NDArray[Any]]
TYPES = {1: "<f4", 2: "u1", 3: "i1", 6: "<i4", 7: "<i8", 9: "?", 10: "<f2", 11: "<f8"}  # of ONNX
EPSILONS = (1e-5, 1e-3)  # of batch normalisation: PyTorch's default, and Keras's
CLOSE = 1e-4  # relative error of folded weights, which an exporter computes in float32
FEW = 8  # a tensor of so many numbers says nothing: shapes, axes, scales


@dataclass(frozen=True, kw_only=True)
class Held:
    """Where the weights of a model are in an ONNX file, by name."""

    verbatim: tuple[str, ...]  # there bit by bit, or transposed
    folded: tuple[str, ...]  # there as batch normalisation and the layer before it give them
    missing: tuple[str, ...]  # of the weights
    foreign: tuple[str, ...]  # of the file: no weights of the model

    @property
    def whole(self) -> bool:
        """Whether the file holds all of these weights and no others."""
        return not self.missing and not self.foreign

    def __str__(self) -> str:
        tensors = len(self.verbatim) + len(self.folded) + len(self.missing)
        if self.whole:
            folded = f" ({len(self.folded)} folded)" if self.folded else ""
            return f"the ONNX file holds the {tensors} tensors of the weights{folded} and no others"
        lost = f"lacks {len(self.missing)} of the {tensors} tensors of the weights"
        more = f"holds {len(self.foreign)} that are not theirs"
        which = ", ".join([*self.missing, *self.foreign][:3])
        parts = " and ".join([lost] * bool(self.missing) + [more] * bool(self.foreign))
        return f"the ONNX file {parts} ({which})"


def held(onnx: bytes, weights: bytes) -> Held:
    """Find the tensors of a .safetensors file in an ONNX file, and those that are not of it.

    Raises:
        ModelError: one of the files cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        wanted = {n: part for n, part in load(weights).items() if not n.endswith("_tracked")}
        there = {_own(name, wanted): part for name, part in _initialisers(onnx).items()}
    except (SafetensorError, ValueError, LookupError, TypeError, OverflowError) as error:
        raise ModelError(f"the weights cannot be compared: {reason_of(error)}") from None
    left = {name: part for name, part in there.items() if part.size > FEW or name in wanted}
    verbatim, folded = _verbatim(wanted, left), list[str]()
    for name in wanted.keys() - set(verbatim):
        folded += _unfold(name, wanted, left)
    found = {*verbatim, *folded}
    return Held(
        verbatim=tuple(verbatim),
        folded=tuple(sorted(found - set(verbatim))),
        missing=tuple(sorted(wanted.keys() - found)),
        foreign=tuple(name for name, part in left.items() if part.dtype.kind == "f"),
    )


def _own(name: str, wanted: Tensors) -> str:
    """Return what the weights call a tensor of a net that is behind a normalisation."""
    bare = name.removeprefix("module.")
    return bare if bare in wanted else name


def _verbatim(wanted: Tensors, left: Tensors) -> list[str]:
    """Take from `left` the tensors that are in both, and return their names in `wanted`."""
    spelled = {(part.dtype.str, part.tobytes()): name for name, part in left.items()}
    spelled |= {(p.dtype.str, p.T.tobytes()): n for n, p in left.items() if p.ndim == 2}
    at = {n: spelled.get((part.dtype.str, part.tobytes())) for n, part in wanted.items()}
    for name in {*at.values()} - {None}:
        del left[str(name)]
    return [name for name, place in at.items() if place is not None]


def _unfold(name: str, wanted: Tensors, left: Tensors) -> list[str]:
    """Return the tensors that make the one of this name in `left`, and take it from there."""
    if name not in left or left[name].shape != wanted[name].shape:
        return []
    layer, size = name.rpartition(".")[0], len(wanted[name])
    for norm in {n.rpartition(".")[0] for n in wanted if n.endswith("running_var")}:
        parts = {n: f"{norm}.{n}" for n in ("weight", "bias", "running_mean", "running_var")}
        gamma, beta, mean, variance = (
            wanted[full].astype(np.float64) if full in wanted else np.full(size, absent)
            for full, absent in zip(parts.values(), (1.0, 0.0, 0.0, 1.0), strict=True)
        )
        before = wanted.get(f"{layer}.bias", np.zeros(size)).astype(np.float64)
        if not gamma.shape == beta.shape == mean.shape == variance.shape == before.shape == (size,):
            continue
        for epsilon in EPSILONS:
            scale = gamma / np.sqrt(variance + epsilon)
            scaled = scale.reshape(-1, *[1] * (wanted[name].ndim - 1)) * wanted[name]
            shifted = beta + (before - mean) * scale
            biases = [n for n, part in left.items() if _close(part, shifted)]
            if _close(left[name], scaled) and biases:
                del left[name], left[biases[0]]
                used = [name, f"{layer}.bias", *parts.values()]
                return [full for full in used if full in wanted]
    return []


def _close(found: NDArray[Any], made: NDArray[np.float64]) -> bool:
    if found.shape != made.shape or found.dtype.kind != "f" or not found.size:
        return False
    return bool(np.abs(found - made).max() <= CLOSE * np.abs(made).max())


def _initialisers(onnx: bytes) -> Tensors:
    """Return the constants of an ONNX file's graph by name, those of its nodes too."""
    read = Reader().fields
    graph = next((field.message for field in read(memoryview(onnx)) if field.number == 7), None)
    if graph is None:
        raise ValueError("this is no ONNX file")
    tensors = []
    for part in read(graph):
        if part.number == 5:
            tensors.append(part)
        for field in read(part.message) if part.number == 1 else ():
            if field.number == 5:
                tensors += [value for value in read(field.message) if value.number == 5]
    return dict(_tensor(read(part.message), place) for place, part in enumerate(tensors))


def _tensor(fields: Iterator[Field], place: int) -> tuple[str, NDArray[Any]]:
    """Read a TensorProto: its name, or its place where it has none, and its values."""
    shape, kind, name, content = list[int](), 0, f"constant {place}", b""
    for field in fields:
        if field.number == 1:
            shape += field.numbers
        elif field.number == 2:
            kind = field.numbers[-1]
        elif field.number == 4:  # float_data; packed, as in raw_data
            content += bytes(field.message)
        elif field.number == 7:
            content += np.array(field.numbers, np.uint64).tobytes()
        elif field.number == 8:
            name = str(field.message, "utf-8") or name
        elif field.number == 9:
            content = bytes(field.message)
    if kind not in TYPES:
        raise ValueError(f"tensor {name!r} is of a type that is not known here")
    return name, np.frombuffer(content, TYPES[kind]).reshape(shape)
