"""From what the user names to a classifier.

That is a zoo name, a stored model, `module:factory`, the address of an app, or an ONNX file.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from purpleteam.core.cards import ModelCard, find_stored
from purpleteam.core.digest import sha256_file
from purpleteam.core.errors import ModelError, UsageError
from purpleteam.core.factory import call_factory, is_factory
from purpleteam.models.architectures import ARCHITECTURES, Shape, initialise
from purpleteam.models.black_box import BlackBox
from purpleteam.models.devices import lay_out
from purpleteam.models.endpoint import Endpoint
from purpleteam.models.maite import adapted, is_maite, net_of_maite
from purpleteam.models.normalisation import Normalisation
from purpleteam.models.onnx_file import OnnxFile
from purpleteam.models.store import load_weights
from purpleteam.models.weights import Weights, WeightsReader, fill, plain_weights

__all__ = ["LoadedModel", "Weights", "build", "load", "net_of"]


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A classifier in memory, with the name and digest that records give as its subject."""

    name: str
    digest: str
    module: nn.Module
    card: ModelCard | None = None
    normalisation: Normalisation | None = None
    """The layer that the user asked for in front of it."""
    notes: tuple[str, ...] = ()
    """What was changed or guessed on the way, each a line for the user."""

    def check_fits(self, shape: Shape, classes: int, dataset: str) -> None:
        """Refuse images that the stored model was not made for."""
        if self.card is None:
            return
        if self.card.shape != shape:
            raise ModelError(
                f"model {self.name!r} takes images {self.card.shape}, "
                f"dataset {dataset!r} has {shape}"
            )
        if len(self.card.classes) != classes:
            raise ModelError(
                f"model {self.name!r} has {len(self.card.classes)} classes, "
                f"dataset {dataset!r} has {classes}"
            )

    def noting(self, *notes: str) -> LoadedModel:
        """Return the model with more to tell."""
        return replace(self, notes=(*self.notes, *notes))


def load(
    reference: str,
    *,
    weights: Path | None = None,
    device: torch.device | None = None,
    read_weights: WeightsReader = plain_weights,
    normalisation: Normalisation | None = None,
    shape: Shape | None = None,
) -> LoadedModel:
    """Return the classifier that the user names.

    Args:
        reference: what `--model` says: a zoo name, a stored model's path, `module:factory`, or
            what can only be asked: an address (`http://...`) or an .onnx file.
        weights: the file of weights for `module:factory`.
        device: where it goes; the default is the CPU.
        read_weights: reads that file; the default takes .safetensors alone, and
            `pipeline.importing.read_weights` takes what passes the gate of `scan`.
        normalisation: a layer to put in front of the net.
        shape: of the images that it will be shown, where no card says it: it is then laid out
            in memory for speed.
    """
    if is_factory(reference):
        loaded = _from_factory(reference, weights, read_weights, normalisation)
    else:
        if weights is not None:
            raise UsageError(f"--weights goes with --model module:factory, not with {reference!r}")
        loaded = _black_box(reference, normalisation) or _stored(reference)
    module = loaded.module
    if normalisation is not None and not isinstance(module, BlackBox):
        module = normalisation.before(module)
    module.to(device or "cpu")
    shape = loaded.card.shape if loaded.card else shape
    if shape is not None and not isinstance(module, BlackBox):
        lay_out(module, torch.zeros(2, *shape))
    return replace(loaded, module=module.eval(), normalisation=normalisation)


def _black_box(reference: str, normalisation: Normalisation | None) -> LoadedModel | None:
    """Return the app or the ONNX file that can only be asked; None where it is neither."""
    if "://" not in reference and not reference.endswith(".onnx"):
        return None
    if normalisation is not None:
        raise UsageError(f"a normalisation goes before a net, and {reference!r} takes bytes")
    box = Endpoint(reference) if "://" in reference else OnnxFile(Path(reference))
    return LoadedModel(box.name, box.digest, box, box.card, notes=box.notes)


def _stored(reference: str) -> LoadedModel:
    stored = find_stored(reference)
    stored.verify()
    module = net_of(stored.card)
    load_weights(module, stored.weights)
    return LoadedModel(stored.card.name, stored.card.digest, module, stored.card)


def _from_factory(
    reference: str, weights: Path | None, read: WeightsReader, normalisation: Normalisation | None
) -> LoadedModel:
    with torch.random.fork_rng(devices=[]):  # its random weights are replaced at once
        made = call_factory(reference, ModelError)
    maite = is_maite(made)
    net = net_of_maite(made) if maite or isinstance(made, nn.Module) else None
    if net is None and not maite:
        kind = type(made).__name__
        raise ModelError(f"{reference!r} returned {kind}, not a torch nn.Module or a MAITE model")
    notes: tuple[str, ...] = (f"{reference!r} returned a MAITE model",) if maite else ()
    digest = None
    if weights is not None:
        if net is None:
            raise UsageError(f"{reference!r} returned a MAITE model with no net for --weights")
        notes += fill(net, read(weights), str(weights))
        digest = sha256_file(weights)
    if net is not None and (kinds := _active_in_training(net)):
        notes += (f"the factory returned it in train mode ({kinds}); it is used in eval mode",)
    if maite:
        module = adapted(made, reference, digest, normalisation)
        return LoadedModel(reference, module.digest, module, notes=notes)
    if net is None or digest is None:
        raise UsageError(f"--model {reference} needs --weights FILE (.safetensors, .pt or .pth)")
    return LoadedModel(reference, digest, net, notes=notes)


def net_of(card: ModelCard) -> nn.Module:
    """Return the net that a card names, its weights still to be loaded.

    Raises:
        ModelError: the card names code outside the current folder.
    """
    if is_factory(card.architecture):
        _refuse_foreign_code(card)
    return build(card.architecture, card.shape, len(card.classes), seed=0)


def build(architecture: str, shape: Shape, classes: int, *, seed: int) -> nn.Module:
    """Return a net with seeded random weights: a registered name or `module:factory`."""
    if is_factory(architecture):
        return initialise(lambda *_: _net_from(architecture), shape, classes, seed)
    return initialise(ARCHITECTURES[architecture], shape, classes, seed)


def _net_from(reference: str) -> nn.Module:
    made = call_factory(reference, ModelError)
    if not isinstance(made, nn.Module):
        raise ModelError(f"{reference!r} returned {type(made).__name__}, not a torch nn.Module")
    return made


def _active_in_training(module: nn.Module) -> str:
    """Return the kinds of layers that are in train mode and answer otherwise in it."""
    active = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    kinds = {
        type(one).__name__ for one in module.modules() if one.training and isinstance(one, active)
    }
    return ", ".join(sorted(kinds))


def _refuse_foreign_code(card: ModelCard) -> None:
    """Refuse a card that names code outside the current folder: a card may be a stranger's.

    Nothing is imported to find out; the first part of the module's name must lie right here.
    """
    package = card.architecture.partition(":")[0].partition(".")[0]
    here = Path.cwd()
    if not ((here / f"{package}.py").is_file() or (here / package).is_dir()):
        raise ModelError(
            f"the card of {card.name!r} names {card.architecture!r}, which is not in the current "
            "folder, so it is not called; to trust it, give it as --model with --weights FILE"
        )
