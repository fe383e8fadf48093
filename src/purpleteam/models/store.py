"""Keep a net as three files: weights (safetensors), what the app runs (ONNX), and its card.

The two nets are compared when written: a difference above the tolerance is an error, so the
model that is served is the model that was evaluated. Nothing is ever unpickled.
"""

from __future__ import annotations

import difflib
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from purpleteam.core.cards import ModelCard, StoredModel
from purpleteam.core.digest import sha256_file
from purpleteam.core.errors import ModelError, Refused, UsageError
from purpleteam.core.factory import portable
from purpleteam.core.machine import versions
from purpleteam.models.architectures import Shape
from purpleteam.models.class_order import Ordered, Scored
from purpleteam.models.guard import guarded, switched
from purpleteam.models.inference import logits
from purpleteam.models.normalisation import Normalisation, Normalised

__all__ = ["Provenance", "check_header", "load_weights", "put_weights", "read_safetensors", "store"]

TOLERANCE = 1e-3
"""Largest difference of logits that PyTorch and ONNX Runtime may have on the same image."""

MOST_NAMES = 1000
"""Names among which the nearest is looked for."""
HEADER = "normalisation"
"""Key in the header of the weights, where there is one."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a model comes from, for its card."""

    architecture: str
    shape: Shape
    classes: tuple[str, ...]
    recipe: Mapping[str, Any]
    data_digest: str | None = None
    parent: str | None = None
    converted_from: str | None = None
    validation_accuracy: float | None = None


def store(module: nn.Module, stem: Path, provenance: Provenance) -> StoredModel:
    """Write `<stem>.safetensors`, `<stem>.onnx` and `<stem>.json`; return the stored model.

    Raises:
        ModelError: the net does not score the classes of images of that shape, it cannot be
            exported, or the two nets disagree.
    """
    if stem.suffix in (".safetensors", ".onnx", ".json"):
        stem = stem.with_suffix("")
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write {str(stem)!r}: {error.strerror}") from None
    weights = stem.with_name(stem.name + ".safetensors")
    onnx = stem.with_name(stem.name + ".onnx")
    module = switched(module).cpu()
    classes = provenance.classes
    if isinstance(module, Ordered):  # its order is the data's, not the net's
        classes, module = module.names, module.module
    net: nn.Module = module.module if isinstance(module, Scored) else module
    layer: Normalisation | None = None
    if isinstance(net, Normalised):
        layer = net.normalisation
        net = net.module
    _check_scores(module, provenance.shape, classes)
    tensors = {name: value.detach().contiguous() for name, value in net.state_dict().items()}
    header = {} if layer is None else {HEADER: layer.header()}
    save_file(_unshared(tensors), weights, metadata=header or None)
    weights.chmod(0o644)
    _export(module, provenance.shape, onnx)
    difference = _difference(module, onnx, provenance.shape)
    card = ModelCard(
        name=stem.name,
        digest=sha256_file(weights),
        onnx_digest=sha256_file(onnx),
        architecture=portable(provenance.architecture),
        input=dict(zip(("channels", "height", "width"), provenance.shape, strict=True))
        | {"range": [0, 1]},
        classes=classes,
        normalisation=None if layer is None else layer.to_json(),
        recipe=provenance.recipe,
        data_digest=provenance.data_digest,
        parent=provenance.parent,
        converted_from=provenance.converted_from,
        validation_accuracy=provenance.validation_accuracy,
        versions=versions(),
        onnx_difference=difference,
    )
    card.write(stem.with_name(stem.name + ".json"))
    return StoredModel(stem, card)


def _check_scores(module: nn.Module, shape: Shape, classes: tuple[str, ...]) -> None:
    channels, height, width = shape
    scores = logits(module, np.zeros((2, height, width, channels), np.uint8)).shape[1]
    if scores != len(classes):
        raise ModelError(f"the net scores {scores} classes, not {len(classes)}")


def check_header(card: ModelCard, weights: Path) -> None:
    """Refuse a card that names another normalisation than the weights were stored with.

    The digest of the model is that of its weights' file, so what is in front of them is in there.
    """
    with safe_open(weights, framework="pt") as file:
        text = (file.metadata() or {}).get(HEADER)
    stored = Normalisation.of_header(text, str(weights))
    if stored != Normalisation.of_card(card.normalisation, f"card {card.name!r}"):
        raise Refused(
            f"the card of {card.name!r} names another normalisation than its weights were stored "
            "with; make them a model again: purple import FILE --normalise ..."
        )


def load_weights(module: nn.Module, path: Path) -> None:
    """Put the weights of a .safetensors file into `module`, whole and float32.

    Raises:
        ModelError: unreadable, another format, or tensors that are missing, left over, of
            another shape or not finite; each is named.
    """
    put_weights(module, read_safetensors(path), str(path))


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a .safetensors file as they are in it."""
    if path.suffix != ".safetensors":
        raise ModelError(
            f"weights {str(path)!r} are not .safetensors; make them so with: "
            f"purple import {path} --arch NAME"
        )
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"weights {str(path)!r} cannot be read: {error}") from None


def put_weights(module: nn.Module, tensors: Mapping[str, torch.Tensor], source: str) -> None:
    """Put tensors into `module` after naming everything that does not fit."""
    wanted = module.state_dict()
    if other := [name for name, value in wanted.items() if not isinstance(value, torch.Tensor)]:
        raise ModelError(
            f"the net holds more than tensors in {other[0]!r}, as quantised ones do: load its "
            "weights in its factory, and leave --weights out"
        )
    left_over = [name for name in tensors if name not in wanted]
    problems = [_missing(name, left_over) for name in wanted if name not in tensors]
    problems += [f"left over {name!r}" for name in left_over]
    for name in wanted.keys() & tensors.keys():
        have, need = tuple(tensors[name].shape), tuple(wanted[name].shape)
        if have != need:
            problems.append(f"{name!r} has shape {have}, not {need}")
        elif tensors[name].is_floating_point() and not torch.isfinite(tensors[name]).all():
            problems.append(f"{name!r} holds NaN or infinity")
    if problems:
        more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise ModelError(f"weights {source!r} do not fit: {'; '.join(problems[:4])}{more}")
    module.load_state_dict(tensors)


def _missing(name: str, left_over: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, left_over[:MOST_NAMES], n=1)
    return f"missing {name!r}" + (f" (the file has {near[0]!r})" if near else "")


def _unshared(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Give tensors that share memory (tied weights) their own, as safetensors requires."""
    return {name: value.clone() for name, value in tensors.items()}


def _export(module: nn.Module, shape: Shape, path: Path) -> None:
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    module = module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                (torch.zeros(2, *shape),),
                dynamo=True,
                verbose=False,
                external_data=False,
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("n", min=1)},),
            )
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"the net cannot be exported to ONNX: {reason}") from None
    finally:
        logger.setLevel(level)
    if program is None:
        raise ModelError("the net cannot be exported to ONNX")
    proto = program.model_proto
    del proto.metadata_props[:], proto.graph.metadata_props[:]
    for part in (*proto.graph.node, *proto.graph.value_info, *proto.graph.initializer):
        del part.metadata_props[:]  # holds stack traces: paths of the machine that exported
    path.write_bytes(proto.SerializeToString(deterministic=True))


def _difference(module: nn.Module, onnx: Path, shape: Shape) -> float:
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = InferenceSession(onnx.read_bytes(), options, providers=["CPUExecutionProvider"])
    x = torch.rand(16, *shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours = guarded(module)(x).numpy()
    try:
        theirs = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        if "invalid dimensions" in reason:  # it kept the two images that it was exported with
            reason = "it takes two images a call, no more; does it ask for len(x)? take x.shape[0]"
        raise ModelError(f"ONNX Runtime cannot run {onnx.name}: {reason}") from None
    difference = float(np.abs(ours - theirs).max())
    scale = max(1.0, float(np.abs(ours).max()))
    if not difference <= TOLERANCE * scale:
        raise ModelError(
            f"PyTorch and ONNX Runtime disagree by {difference:.3g} on the logits of {onnx.name}"
        )
    return round(difference, 8)
