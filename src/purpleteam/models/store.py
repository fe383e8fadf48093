"""A net as three files, weights (safetensors), what the app runs (ONNX) and a card; and back.

The two nets are compared when written, so the model that is served is the one that was evaluated.
Nothing is ever unpickled, and the code that a card names is called only by the user's own word.
"""

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from purpleteam.core.cards import ModelCard, StoredModel
from purpleteam.core.digest import sha256_file
from purpleteam.core.errors import ModelError, Refused, UsageError, reason_of
from purpleteam.core.factory import call_factory, called_as, file_of, is_factory, portable
from purpleteam.core.machine import versions
from purpleteam.models.adapters import Normalisation, Normalised
from purpleteam.models.architectures import ARCHITECTURES, Shape, initialise
from purpleteam.models.black_box import is_maite, session_of
from purpleteam.models.estimators import is_estimator
from purpleteam.models.guard import Guarded, guarded, switched
from purpleteam.models.inference import logits
from purpleteam.models.weights import ANYWHERE, owned, plain_weights, put_weights

TOLERANCE = 1e-3  # of the logits by PyTorch and by ONNX Runtime of the same image
HEADER = "normalisation"  # key in the header of the weights, where there is one
_GRAPHS: dict[tuple[str, Shape], Any] = {}  # of nets that were traced, by their layers
_PLAIN = ("torch.nn.", "purpleteam.")  # whose layers say all of their settings in their `repr`


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
    weights, onnx, card_file = (
        stem.with_name(stem.name + end) for end in (".safetensors", ".onnx", ".json")
    )
    facts: dict[str, Any] = dict(vars(provenance))
    module = switched(module).cpu()
    net: Any = module
    if isinstance(asked := module, Guarded):
        net = asked.model
        module = net if asked.classes is None else Guarded(net, asked.classes)
        if asked.order is not None:  # it is the data's, not the net's
            facts["classes"] = asked.order.names
    layer: Normalisation | None = None
    if isinstance(net, Normalised):
        layer, net = net.normalisation, net.module
    channels, height, width = shape = facts.pop("shape")
    scores = logits(module, np.zeros((2, height, width, channels), np.uint8)).shape[1]
    if scores != len(facts["classes"]):
        raise ModelError(f"the net scores {scores} classes, not {len(facts['classes'])}")
    header = None if layer is None else {HEADER: layer.header()}
    save_file(owned(net.state_dict()), weights, metadata=header)
    weights.chmod(0o644)
    for traced in (False, True):
        _export(module, shape, onnx, traced)
        difference, scale = onnx_difference(module, onnx, shape, seed=0)
        if difference <= TOLERANCE * scale:
            break
    else:
        raise ModelError(
            f"PyTorch and ONNX Runtime disagree by {difference:.3g} on the logits of {onnx.name}"
        )
    facts["architecture"] = portable(provenance.architecture)
    card = ModelCard(
        name=stem.name,
        digest=sha256_file(weights),
        onnx_digest=sha256_file(onnx),
        input={"channels": channels, "height": height, "width": width, "range": [0, 1]},
        normalisation=None if layer is None else layer.to_json(),
        versions=versions(),
        onnx_difference=round(difference, 8),
        **facts,
    )
    card.write(card_file)
    return StoredModel(stem, card)


def _export(module: nn.Module, shape: Shape, path: Path, traced: bool) -> None:
    """Write a net as ONNX: traced, or with its weights in the graph of a net of the same layers."""
    module = module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    state = {name: tensor.numpy().tobytes() for name, tensor in module.state_dict().items()}
    if traced or (proto := _GRAPHS.get((str(module), shape))) is None:
        proto = _traced(module, shape)
        kept = {part.name: part.raw_data for part in proto.graph.initializer}
        plain = all(type(layer).__module__.startswith(_PLAIN) for layer in module.modules())
        if plain and state.items() <= kept.items():  # no layer was folded into another
            _GRAPHS[str(module), shape] = proto
    else:
        for part in proto.graph.initializer:
            part.raw_data = state.get(part.name, part.raw_data)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def _traced(module: nn.Module, shape: Shape) -> Any:
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
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
        reason = reason_of(error)
        raise ModelError(f"the net cannot be exported to ONNX: {reason}") from None
    finally:
        logger.setLevel(level)
    if program is None:
        raise ModelError("the net cannot be exported to ONNX")
    proto = program.model_proto
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]  # holds stack traces: paths of the machine that exported
    return proto


def onnx_difference(module: nn.Module, onnx: Path, shape: Shape, seed: int) -> tuple[float, float]:
    """Return how far the logits of net and file are apart on images of noise, and their scale."""
    session = session_of(onnx.name, onnx.read_bytes())
    x = torch.rand(16, *shape, generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        expected = guarded(module)(x).numpy()
    try:
        scores = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    except Exception as error:
        reason = reason_of(error)
        if "invalid dimensions" in reason:  # it kept the two images that it was exported with
            reason = "it takes two images a call, no more; does it ask for len(x)? take x.shape[0]"
        raise ModelError(f"ONNX Runtime cannot run {onnx.name}: {reason}") from None
    return float(np.abs(expected - scores).max()), max(1.0, float(np.abs(expected).max()))


def module_of(stored: StoredModel, arch: str | None = None) -> nn.Module:
    """Return a stored model's net, unverified, behind the normalisation of its card."""
    card, path = stored.card, stored.weights
    net = net_of(card, arch)
    put_weights(net, plain_weights(path).tensors, str(path))
    with safe_open(path, framework="pt") as file:
        header = (file.metadata() or {}).get(HEADER)
    layer = Normalisation.of_card(card.normalisation, f"card {card.name!r}")
    # The digest of the model is that of its weights' file, so the header is part of it.
    if header != (None if layer is None else layer.header()):
        raise Refused(
            f"the card of {card.name!r} names another normalisation than its weights were stored "
            "with; make them a model again: purple import FILE --normalise ..."
        )
    return net if layer is None else layer.before(net)


def net_of(card: ModelCard, arch: str | None = None) -> nn.Module:
    """Return the net that a card names, its weights still to be loaded; `arch` goes before it.

    A card may be a stranger's: code that it names outside the current folder is a ModelError, and
    nothing is imported to find out.
    """
    named = card.architecture
    if is_factory(named):
        here, file = Path.cwd().resolve(), file_of(named)
        if file is not None:
            path = (here / file).resolve()
            is_here = not file.is_absolute() and path.is_relative_to(here) and path.is_file()
        else:
            package = named.partition(":")[0].partition(".")[0]
            is_here = (here / f"{package}.py").is_file() or (here / package).is_dir()
        called = arch or called_as(named)
        if called is None and not is_here:
            raise ModelError(
                f"the card of {card.name!r} names the code {named!r}, which is not in the current "
                "folder, so it is not called: a card may be a stranger's; if you trust that code, "
                f"add: {arch_to_type(named)}"
            )
        named = called or named
    return build(named, card.shape, len(card.classes), seed=0)


def arch_to_type(architecture: str) -> str:
    """Return the option that supplies the code which a card names, its folder left to fill in."""
    module, _, factory = architecture.rpartition(":")
    file = file_of(architecture)
    place = f"{module.replace('.', '/')}.py" if file is None else file.name
    return f"--arch PATH/TO/{place}:{factory}"


def build(architecture: str, shape: Shape, classes: int, *, seed: int) -> nn.Module:
    """Return a net with seeded random weights: a registered name or `module:factory`."""

    def own(*_: object) -> nn.Module:
        made = made_by(architecture)
        if not isinstance(made, nn.Module):
            kind = "a MAITE model" if is_maite(made) else type(made).__name__
            raise ModelError(f"{architecture!r} returned {kind}, not a torch nn.Module")
        return made

    make = own if is_factory(architecture) else ARCHITECTURES[architecture]
    return initialise(make, shape, classes, seed)


def made_by(reference: str) -> object:
    """Return the net, or what else can be asked about images, that the user's code makes."""
    made = unwrapped(call_factory(reference, ModelError, _is_model))
    kind, remedy = type(made).__name__, REMEDIES.get(type(made).__name__, "")
    if _is_model(made) or (callable(made) and not isinstance(made, type) and not remedy):
        return made
    problem = f"{kind}, not a torch nn.Module, a MAITE model, a classifier with predict_proba or "
    problem += f"a function of images{remedy}"
    if isinstance(made, type):
        problem = f"the class {made.__name__}, not a net: return {made.__name__}()"
    raise ModelError(f"{reference!r} returned {problem}")


_WITH_WEIGHTS = ": return the net, and give the file of its weights as --weights"
REMEDIES = {
    "tuple": ": return the net alone",
    "dict": _WITH_WEIGHTS,
    "OrderedDict": _WITH_WEIGHTS,
    "ExportedProgram": ": return its .module()",
    "NoneType": ": does it end with `return net`?",
}
"""What to do where a factory returned something else than a net."""


def unwrapped(made: object) -> object:
    """Return a net without what DataParallel and torch.compile put around it."""
    while isinstance(made, nn.DataParallel) or isinstance(getattr(made, ANYWHERE, None), nn.Module):
        made = made.module if isinstance(made, nn.DataParallel) else getattr(made, ANYWHERE)
    return made


def _is_model(made: object) -> bool:
    is_object = is_maite(made) or is_estimator(made)
    return isinstance(made, nn.Module) or (is_object and not isinstance(made, type))
