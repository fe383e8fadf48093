"""From what the user names or holds to a classifier."""

from __future__ import annotations

import copy
import difflib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from purpleteam.core.cards import ModelCard, find_stored
from purpleteam.core.digest import canonical_json, sha256_bytes, sha256_file
from purpleteam.core.errors import ModelError, UsageError
from purpleteam.core.factory import is_factory
from purpleteam.data.images import ImageSet
from purpleteam.models import black_box
from purpleteam.models import weights as read_in
from purpleteam.models.adapters import Normalisation, Normalised
from purpleteam.models.architectures import Shape
from purpleteam.models.black_box import BlackBox, OnnxFile
from purpleteam.models.devices import device_of, frozen, lay_out, scores_and_slope, to_batch
from purpleteam.models.endpoint import Endpoint, Remote
from purpleteam.models.estimators import is_estimator
from purpleteam.models.guard import Guarded, Order, guarded, switched
from purpleteam.models.inference_server import InferenceServer, is_served
from purpleteam.models.store import build as build
from purpleteam.models.store import made_by, module_of, unwrapped
from purpleteam.models.weights import WeightsReader, other_floats, plain_weights

OWN_WEIGHTS = "without --weights the factory's own are used; the digest is of its state dict"
BY_NAME = "; --classes NAME,NAME,... (or a file of them) says which output is which class"


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A classifier in memory, with the name and digest that records give as its subject."""

    name: str
    digest: str
    module: nn.Module
    card: ModelCard | None = None
    normalisation: Normalisation | None = None
    """The layer in front of it, as its card or the user says."""
    converted_from: str | None = None
    """The number format of its weights, where that was not float32."""
    notes: tuple[str, ...] = ()
    """What was changed or guessed on the way, each a line for the user."""

    @property
    def names(self) -> tuple[str, ...] | None:
        """The names of its outputs, in order, where its card or code says more than numbers."""
        if isinstance(self.module, black_box.ObjectClassifier):
            return self.module.labels
        if self.card is None:
            return None
        numbers = tuple(map(str, range(len(self.card.classes))))  # where nobody named them
        return None if self.card.classes == numbers and not self.card.recipe else self.card.classes

    def behind(self, net: nn.Module) -> nn.Module:
        """Return another net behind the same normalisation: what is compared sees the same."""
        return net if self.normalisation is None else self.normalisation.before(net)

    def without_ramp(self) -> LoadedModel | None:
        """Return the same weights without the input ramp before them; None where there is none."""
        outer, layer = guarded(self.module), self.normalisation
        if layer is None or not layer.clip or not isinstance(outer.model, Normalised):
            return None
        net = Guarded(outer.model.module, outer.classes)
        net.order = outer.order
        return replace(self, module=net, normalisation=None)

    def in_order_of(
        self, classes: tuple[str, ...], dataset: str, named: tuple[str, ...] | None = None
    ) -> LoadedModel:
        """Return the model with a score for each class of the data; `named` overrides a card."""
        names = named or self.names
        if names is None:
            return self  # nobody has said anything: the order is taken as it is
        told = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        if named is None and not set(names) & set(classes):
            order = "its outputs are taken in the order of the data's; --classes names them"
            return self.noting(f"the model's own names of classes ({told}) are others: {order}")
        if missing := [name for name in classes if name not in names]:
            near = difflib.get_close_matches(missing[0], names, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ModelError(
                f"class {missing[0]!r} of dataset {dataset!r} is not among the model's{hint}: "
                f"{told}; --classes names its outputs in their order"
            )
        if names == classes:
            return self
        net = self.module if isinstance(self.module, BlackBox) else guarded(self.module)
        if net.gives == "labels" and len(classes) < len(names):
            raise ModelError(f"model {self.name!r} gives labels: it cannot choose among some")
        net.order = Order(names, tuple(names.index(name) for name in classes))
        found = replace(self, module=net).noting(f"its outputs are, in this order: {told}")
        if not (left := [name for name in names if name not in classes]):
            return found
        listed = ", ".join(left[:8]) + (", ..." if len(left) > 8 else "")
        return found.noting(f"{listed}: left out, since the data has no such class")

    def check_fits(self, shape: Shape, classes: int, dataset: str) -> None:
        """Refuse images that the stored model was not made for."""
        if self.card is None:
            return
        model, other = f"model {self.name!r}", f"dataset {dataset!r} has"
        if self.card.shape != shape:
            raise ModelError(f"{model} takes images {self.card.shape}, {other} {shape}")
        own = len(self.card.classes)
        ordered = isinstance(self.module, Guarded | BlackBox) and self.module.order is not None
        if own != classes and not ordered:
            raise ModelError(f"{model} has {own} classes, {other} {classes}{BY_NAME}")

    def noting(self, *notes: str) -> LoadedModel:
        return replace(self, notes=(*self.notes, *notes))


def load(
    reference: str | LoadedModel | Callable[..., Any],
    *,
    weights: Path | None = None,
    arch: str | None = None,
    device: torch.device | None = None,
    read_weights: WeightsReader = plain_weights,
    normalisation: Normalisation | None = None,
    shape: Shape | None = None,
    classes: int | None = None,
) -> LoadedModel:
    """Return the classifier that the user names or holds.

    Args:
        reference: what `--model` says: a zoo name, a stored model's path, `module:factory`, or
            what can only be asked: an address (`http://...`) or an .onnx file. Or an object: a
            `LoadedModel`, which is returned as it is; an `nn.Module`, of which a copy in eval
            mode is taken; a MAITE model; a fitted classifier with scikit-learn's methods, which
            gets rows (N, C * H * W) in [0, 1]; any callable from images (N, C, H, W) in [0, 1],
            as a tensor or a NumPy array, to scores (N, classes).
        weights: the file of weights for `module:factory`, where that does not set its own.
        arch: the code of a stored model whose card names `module:factory`.
        device: where it goes; the default is the CPU.
        read_weights: reads that file; the default takes .safetensors alone, and
            `verbs.open_subject` reads whatever passes the gate of `scan`.
        normalisation: a layer to put in front of the net; a card may say another.
        shape: of the images that it will be shown, where no card says it: a net is then laid out
            in memory for speed, and a function is asked a few.
        classes: how many an app knows that tells labels alone, and not how many there are.

    Raises:
        UsageError: it is none of these, or an option does not go with it.
        ModelError: it cannot be loaded, or does not answer with scores.
    """
    if isinstance(reference, LoadedModel):
        return reference
    if not isinstance(reference, str):
        if weights is not None or arch is not None:
            kind = type(reference).__name__
            raise UsageError(f"weights and arch go with a name, not with a {kind}")
        loaded = _from_object(reference, normalisation, shape)
    elif is_factory(reference):
        if arch is not None:
            raise UsageError(f"--arch goes with a stored model: {reference!r} is code itself")
        loaded = _from_factory(reference, weights, read_weights, normalisation, shape)
    else:
        if weights is not None:
            raise UsageError(f"--weights goes with --model module:factory, not with {reference!r}")
        if not ("://" in reference or reference.endswith(".onnx")):
            loaded = _stored(reference, arch, normalisation)
        elif arch is not None:
            raise UsageError(f"--arch goes with a stored model, not with {reference!r}")
        else:
            loaded = _black_box(reference, normalisation, shape, classes)
    module = switched(loaded.module.to(device or "cpu"))
    shape = loaded.card.shape if loaded.card else shape
    if shape is not None and not isinstance(module, BlackBox):
        lay_out(module, torch.zeros(2, *shape))
    return replace(loaded, module=module)


def _black_box(
    reference: str, asked: Normalisation | None, shape: Shape | None, classes: int | None
) -> LoadedModel:
    if "://" in reference:
        served = is_served(reference)
        app: Remote = (
            InferenceServer(reference, images=shape, classes=classes)
            if served
            else Endpoint(reference, classes=classes)
        )
        if asked is not None and app.quantised:
            raise UsageError(f"a normalisation goes before a net, and {app.name!r} takes bytes")
        app.normalisation = asked
        return LoadedModel(app.name, app.digest, app, None, asked, notes=app.notes)
    file, layer = OnnxFile(Path(reference)), asked
    if file.card is not None and file.card.normalisation is not None:
        layer = _of_card_or_asked(file.card, asked)  # and the file has it in it
    elif asked is not None:
        file = file.behind(asked)
    return LoadedModel(file.name, file.digest, file, file.card, layer, notes=file.notes)


def _stored(reference: str, arch: str | None, asked: Normalisation | None) -> LoadedModel:
    stored = find_stored(reference)
    stored.verify()
    card, layer = stored.card, _of_card_or_asked(stored.card, asked)
    module = module_of(stored, arch)
    if layer is not None and not isinstance(module, Normalised):
        module = layer.before(module)
    return LoadedModel(card.name, card.digest, module, card, layer)


def _of_card_or_asked(card: ModelCard, asked: Normalisation | None) -> Normalisation | None:
    """Return the one normalisation that there is; the card and the user may not say two."""
    own = Normalisation.of_card(card.normalisation, f"card {card.name!r}")
    if own is not None and asked not in (None, own):
        raise UsageError(
            f"the card of {card.name!r} says normalisation {own.name!r}, the command "
            f"--normalise {asked.name}: leave --normalise out, or import the weights again with it"
        )
    return own or asked


def _from_factory(
    reference: str,
    weights: Path | None,
    read: WeightsReader,
    layer: Normalisation | None,
    shape: Shape | None,
) -> LoadedModel:
    with torch.random.fork_rng(devices=[]):  # its random weights are replaced at once
        made = made_by(reference)
    net = black_box.net_of(made)
    maite, digest, converted = black_box.is_maite(made), None, None
    notes: tuple[str, ...] = (f"{reference!r} returned a MAITE model",) if maite else ()
    if weights is not None:
        if net is None:
            kind = "a MAITE model" if maite else type(made).__name__
            raise UsageError(f"{reference!r} returned {kind} with no net for --weights")
        tensors = read(weights)
        notes += read_in.fill(net, tensors, str(weights))
        converted = tensors.other_floats or other_floats(tensors.tensors)
        digest = sha256_file(weights)
    if net is not None:
        notes += _in_train_mode(net, "the factory returned it")
    if net is None or maite:
        return _boxed(made, reference, layer, digest, notes, shape)
    if digest is None:
        digest, again = read_in.digest_of(net), build(reference, (0, 0, 0), 0, seed=1)
        first, second = (dict(_numbered(one)) for one in (net, again))
        if read_in.digest_of(first) != read_in.digest_of(second):
            raise UsageError(
                f"--model {reference} needs --weights FILE (.safetensors, .pt or .pth): the "
                "factory sets other weights each time that it is called"
            )
        converted = other_floats(net.state_dict())
        notes += (*read_in.as_float32(net), OWN_WEIGHTS)
    net = net if layer is None else layer.before(net)
    return LoadedModel(reference, digest, net, None, layer, converted or None, notes)


def _numbered(net: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Return the tensors of a net by their place: Keras names each net's layers anew."""
    for number, tensor in enumerate(read_in.tensors_of(net.state_dict()).values()):
        yield str(number), tensor


def _from_object(made: Any, layer: Normalisation | None, shape: Shape | None) -> LoadedModel:
    """Return what the user holds; a net is copied, as what is measured must not change under us."""
    made = unwrapped(made)
    name = black_box.name_of(made)
    if isinstance(made, type):
        raise UsageError(f"model is the class {name}, not a net: give {name}()")
    if not is_estimator(made):
        guarded(made)  # says what is wrong with what cannot be called
    if isinstance(made, BlackBox):
        return LoadedModel(made.name, made.digest, made, made.card, layer, notes=made.notes)
    if black_box.is_maite(made):
        return _boxed(made, name, layer, notes=("it is a MAITE model",))
    if not isinstance(made, nn.Module):
        return _boxed(made, name, layer, shape=shape)
    notes: tuple[str, ...] = ()
    try:
        net = copy.deepcopy(made)
    except Exception:  # such as of tensors that are results of others
        net, notes = made, ("it cannot be copied: the net itself is used, in eval mode",)
    notes += _in_train_mode(net, "it was")
    converted = other_floats(net.state_dict())
    with frozen(net) as asked:
        digest, note = black_box.digest_of_code(made, shape, net.state_dict(), asked)
    net = net if layer is None else layer.before(net)
    notes += (*read_in.as_float32(net, "the net"), note)
    return LoadedModel(name, digest, net, None, layer, converted or None, notes)


def _boxed(
    made: Any,
    name: str,
    layer: Normalisation | None,
    digest: str | None = None,
    notes: tuple[str, ...] = (),
    shape: Shape | None = None,
) -> LoadedModel:
    """Return what can be asked as a black box; `opened` may make more of it."""
    box = black_box.ObjectClassifier(made, name)
    if is_estimator(made):
        notes += ("it gets each image as a row of C * H * W numbers in [0, 1], channels first",)
    box.normalisation = layer
    if digest is None and not black_box.is_maite(made):
        owner = getattr(made, "__self__", made)  # of a bound method
        state = getattr(owner, "state_dict", dict)
        digest, note = black_box.digest_of_code(made, shape, state(), guarded(box))
        notes, box.calls, box.refusals = (*notes, note), 0, 0
    elif digest is None and box.net is not None:
        digest = read_in.digest_of(box.net)
    elif digest is None:
        code = getattr(sys.modules.get(name.partition(":")[0]), "__file__", None)
        about = canonical_json({"reference": name, "id": str(made.metadata["id"])}).encode()
        digest = sha256_bytes(about, b"" if code is None else Path(code).read_bytes())
    box.digest = digest
    return LoadedModel(name, digest, box, None, layer, notes=notes)


def _in_train_mode(module: nn.Module, who: str) -> tuple[str, ...]:
    """Note the kinds of layers that are in train mode and answer otherwise in it."""
    active = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    layers = [layer for layer in module.modules() if isinstance(layer, active) and layer.training]
    kinds = ", ".join(sorted({type(layer).__name__ for layer in layers}))
    return (f"{who} in train mode ({kinds}); it is used in eval mode",) if kinds else ()


def opened(loaded: LoadedModel, images: ImageSet) -> LoadedModel:
    """Return the model as it will be attacked: the most that its answers show an object to be."""
    box = loaded.module
    if not isinstance(box, black_box.ObjectClassifier):
        return loaded
    x = to_batch(images.images[:8], device_of(box))
    with torch.no_grad():
        guarded(box)(x)  # it may be anybody's code: what fails there is told in a line
    x = x if box.normalisation is None else box.normalisation(x)
    with torch.no_grad():
        scores = box.call(box.model, x)
        alike = box.net is not None and box.net is not box.model and _alike(box.net, x, scores)
    net, why = box.net, "its net .model answers as it does itself: white-box"
    if net is None or not alike:
        net, why = black_box.ObjectNet(box), "its own call lets gradients through: white-box"
        try:
            slope = scores_and_slope(net, x)[1]
        except Exception:  # numpy() of a tensor that wants a gradient, a detached graph, ...
            slope = None
        if slope is None or not (slope.isfinite().all() and slope.any()):
            box.blind = "its own call lets no gradient through"
            return loaded.noting(f"{box.blind}: black-box attacks only")
    net = loaded.behind(net)
    if box.order is not None:
        net = guarded(net)
        net.order = box.order
    return replace(loaded, module=switched(net)).noting(why)


def _alike(net: nn.Module, x: Tensor, scores: Tensor) -> bool:
    try:
        logits, near = net(x).float(), black_box.NEAR
        answers = (logits, logits.softmax(1)) if logits.shape == scores.shape else ()
        return any(torch.allclose(answer, scores, rtol=near, atol=near) for answer in answers)
    except Exception:  # it may want other images than the model around it
        return False
