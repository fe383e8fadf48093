"""From what the user names to a classifier: a zoo name, a stored model, or `module:factory`."""

from __future__ import annotations

import importlib
import inspect
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from purpleteam.core.cards import ModelCard, find_stored
from purpleteam.core.digest import sha256_file
from purpleteam.core.errors import ModelError, UsageError
from purpleteam.models.architectures import ARCHITECTURES, Shape, initialise
from purpleteam.models.store import load_weights

__all__ = ["LoadedModel", "build", "load", "net_of"]


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A classifier in memory, with the name and digest that records give as its subject."""

    name: str
    digest: str
    module: nn.Module
    card: ModelCard | None = None

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


def load(
    reference: str, *, weights: Path | None = None, device: torch.device | None = None
) -> LoadedModel:
    """Return the classifier that a zoo name, a stored model's path or `module:factory` means.

    Args:
        reference: what `--model` says.
        weights: the .safetensors file for `module:factory`.
        device: where it goes; the default is the CPU.
    """
    if _is_factory(reference):
        if weights is None:
            raise UsageError(f"--model {reference} needs --weights FILE (.safetensors)")
        with torch.random.fork_rng(devices=[]):  # its random weights are replaced at once
            module = call_factory(reference)
        load_weights(module, weights)
        name, digest, card = reference, sha256_file(weights), None
    else:
        if weights is not None:
            raise UsageError(f"--weights goes with --model module:factory, not with {reference!r}")
        stored = find_stored(reference)
        stored.verify()
        card = stored.card
        module = net_of(card)
        load_weights(module, stored.weights)
        name, digest = card.name, card.digest
    module.to(device=device or "cpu", memory_format=torch.channels_last)  # type: ignore[call-overload]
    return LoadedModel(name, digest, module.eval(), card)


def net_of(card: ModelCard) -> nn.Module:
    """Return the net that a card names, its weights still to be loaded.

    Raises:
        ModelError: the card names code outside the current folder.
    """
    if _is_factory(card.architecture):
        _refuse_foreign_code(card)
    return build(card.architecture, card.shape, len(card.classes), seed=0)


def build(architecture: str, shape: Shape, classes: int, *, seed: int) -> nn.Module:
    """Return a net with seeded random weights: a registered name or `module:factory`."""
    if _is_factory(architecture):
        return initialise(lambda *_: call_factory(architecture), shape, classes, seed)
    return initialise(ARCHITECTURES[architecture], shape, classes, seed)


def call_factory(reference: str) -> nn.Module:
    """Import `module:factory` from the Python path or the current folder and call it."""
    module_name, _, factory_name = reference.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever the user's file does when imported
        raise ModelError(
            f"{reference!r}: module {module_name!r} cannot be imported: {_one_line(error)}"
        ) from None
    factory = getattr(module, factory_name, None)
    if factory is None:
        raise ModelError(f"{reference!r}: module {module_name!r} has no {factory_name!r}")
    try:
        made = factory()
    except (Exception, SystemExit) as error:
        raise ModelError(
            f"{reference!r}{_signature(factory)} failed when called without arguments: "
            f"{_one_line(error)}"
        ) from None
    if not isinstance(made, nn.Module):
        raise ModelError(f"{reference!r} returned {type(made).__name__}, not a torch nn.Module")
    return made


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


def _signature(factory: object) -> str:
    try:
        return str(inspect.signature(factory))  # type: ignore[arg-type]
    except (TypeError, ValueError):  # no function, or one that does not tell
        return ""


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _is_factory(reference: str) -> bool:
    module_name, separator, factory_name = reference.partition(":")
    dotted = all(part.isidentifier() for part in module_name.split("."))
    return bool(separator) and dotted and factory_name.isidentifier()
