"""A net from what a name or a card says; a card's code only by the user's own word."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from purpleteam.core.cards import ModelCard, StoredModel
from purpleteam.core.errors import ModelError
from purpleteam.core.factory import call_factory, called_as, file_of, is_factory
from purpleteam.models.architectures import ARCHITECTURES, Shape, initialise
from purpleteam.models.maite import is_maite
from purpleteam.models.normalisation import Normalisation
from purpleteam.models.store import check_header, load_weights
from purpleteam.models.weights import ANYWHERE

__all__ = ["arch_to_type", "build", "made_by", "module_of", "net_of"]


def module_of(stored: StoredModel, arch: str | None = None) -> nn.Module:
    """Return a stored model's net with its weights, behind the normalisation of its card.

    Args:
        stored: its files; their digests are not looked at here.
        arch: the code to build it with, where the card names code that is not in the current
            folder.

    Raises:
        Refused: the card names another normalisation than the header of the weights.
        ModelError: the card names code outside the current folder, or does not fit the weights.
    """
    card = stored.card
    net = net_of(card, arch)
    load_weights(net, stored.weights)
    check_header(card, stored.weights)
    layer = Normalisation.of_card(card.normalisation, f"card {card.name!r}")
    return net if layer is None else layer.before(net)


def net_of(card: ModelCard, arch: str | None = None) -> nn.Module:
    """Return the net that a card names, its weights still to be loaded.

    Args:
        card: of a stored model; it may be a stranger's.
        arch: the code to take where the card names code: the user's own word.

    Raises:
        ModelError: the card names code outside the current folder.
    """
    named = card.architecture
    if is_factory(named):
        named = arch or called_as(named) or named
        if arch is None and called_as(card.architecture) is None:
            _refuse_foreign_code(card)
    return build(named, card.shape, len(card.classes), seed=0)


def build(architecture: str, shape: Shape, classes: int, *, seed: int) -> nn.Module:
    """Return a net with seeded random weights: a registered name or `module:factory`."""
    if is_factory(architecture):
        return initialise(lambda *_: _net_from(architecture), shape, classes, seed)
    return initialise(ARCHITECTURES[architecture], shape, classes, seed)


def made_by(reference: str) -> object:
    """Return the net, or the MAITE model, that the user's code makes.

    Raises:
        ModelError: the code cannot be imported or fails, or it makes something else.
    """
    made = call_factory(reference, ModelError, _is_model)
    while isinstance(made, nn.DataParallel) or isinstance(getattr(made, ANYWHERE, None), nn.Module):
        made = made.module if isinstance(made, nn.DataParallel) else getattr(made, ANYWHERE)
    if not _is_model(made):
        raise ModelError(f"{reference!r} returned {_no_net(made)}")
    return made


def _net_from(reference: str) -> nn.Module:
    made = made_by(reference)
    if not isinstance(made, nn.Module):
        raise ModelError(f"{reference!r} returned a MAITE model, not a torch nn.Module")
    return made


def _is_model(made: object) -> bool:
    return isinstance(made, nn.Module) or (is_maite(made) and not isinstance(made, type))


def _no_net(made: object) -> str:
    if isinstance(made, type):
        return f"the class {made.__name__}, not a net: return {made.__name__}()"
    kind = type(made).__name__
    more = {
        "tuple": ": return the net alone",
        "dict": ": return the net, and give the file of its weights as --weights",
        "OrderedDict": ": return the net, and give the file of its weights as --weights",
        "ExportedProgram": ": return its .module()",
        "NoneType": ": does it end with `return net`?",
    }
    return f"{kind}, not a torch nn.Module or a MAITE model{more.get(kind, '')}"


def arch_to_type(architecture: str) -> str:
    """Return the option that supplies the code which a card names, its folder left to fill in."""
    module, _, factory = architecture.rpartition(":")
    file = file_of(architecture) or Path(f"{module.replace('.', '/')}.py")
    return f"--arch PATH/TO/{file.name if file_of(architecture) else file}:{factory}"


def _refuse_foreign_code(card: ModelCard) -> None:
    """Refuse a card that names code outside the current folder: a card may be a stranger's.

    Nothing is imported to find out; the file, or the first part of the module's name, must lie
    right here.
    """
    here = Path.cwd().resolve()
    if (file := file_of(card.architecture)) is not None:
        whole = (here / file).resolve()
        found = not file.is_absolute() and whole.is_relative_to(here) and whole.is_file()
    else:
        package = card.architecture.partition(":")[0].partition(".")[0]
        found = (here / f"{package}.py").is_file() or (here / package).is_dir()
    if not found:
        raise ModelError(
            f"the card of {card.name!r} names the code {card.architecture!r}, which is not in the "
            "current folder, so it is not called: a card may be a stranger's; if you trust that "
            f"code, add: {arch_to_type(card.architecture)}"
        )
