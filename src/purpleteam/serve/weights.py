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
        there = _initialisers(onnx)
    except (SafetensorError, ValueError, KeyError, IndexError, TypeError) as error:
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
    graph = _bytes(next((part for number, part in _fields(memoryview(onnx)) if number == 7), 0))
    tensors = [part for number, part in _fields(graph) if number == 5]
    for number, node in _fields(graph):
        for field, attribute in _fields(_bytes(node)) if number == 1 else ():
            if field == 5:
                tensors += [part for kind, part in _fields(_bytes(attribute)) if kind == 5]
    return dict(_tensor(_bytes(part), place) for place, part in enumerate(tensors))


def _tensor(message: memoryview, place: int) -> tuple[str, NDArray[Any]]:
    """Read a TensorProto: its name, or its place where it has none, and its values."""
    shape, kind, name, content = list[int](), 0, f"constant {place}", b""
    for number, part in _fields(message):
        if number == 1:
            shape += [part] if isinstance(part, int) else _varints(part)
        elif number == 2 and isinstance(part, int):
            kind = part
        elif number == 4 and not isinstance(part, int):  # float_data; packed, as in raw_data
            content += bytes(part)
        elif number == 7 and not isinstance(part, int):
            content += np.array(_varints(part), np.uint64).tobytes()
        elif number == 8:
            name = str(_bytes(part), "utf-8") or name
        elif number == 9:
            content = bytes(_bytes(part))
    if kind not in TYPES:
        raise ValueError(f"tensor {name!r} is of a type that is not known here")
    return name, np.frombuffer(content, TYPES[kind]).reshape(shape)


def _bytes(part: int | memoryview) -> memoryview:
    if isinstance(part, int):
        raise ValueError("this is no ONNX file")
    return part


def _varints(part: memoryview) -> list[int]:
    numbers, at = [], 0
    while at < len(part):
        number, at = _varint(part, at)
        numbers.append(number)
    return numbers


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        number |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return number, at


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield number and content of each field of a protobuf message (protobuf.dev/encoding)."""
    at, fixed = 0, {1: 8, 5: 4}
    while at < len(data):
        key, at = _varint(data, at)
        if key & 7 == 0:
            number, at = _varint(data, at)
            yield key >> 3, number
            continue
        length = fixed.get(key & 7, 0)
        if key & 7 == 2:
            length, at = _varint(data, at)
        if (not length and key & 7 != 2) or at + length > len(data):
            raise ValueError("this is no ONNX file")
        yield key >> 3, data[at : at + length]
        at += length
