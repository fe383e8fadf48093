"""The state dict among what a torch file describes: under a key, beside numbers and text."""

from typing import Any

from purpleteam.scan.formats.problem import Problem
from purpleteam.scan.formats.torch_file import StoredTensor

WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights")
MOST_WRAPPERS = 3  # in one another
AVERAGES = {"params", "params_ema"}  # of which the average is what is meant to be used
PLAIN = (int, float, bool, str, type(None))


def select_state(stored: Any, notes: list[str]) -> dict[str, StoredTensor]:
    """Return the state dict in what a file describes; add what was left out to the notes.

    It may lie under a key, as in a checkpoint of a training, or beside numbers and text.
    """
    if not isinstance(stored, dict):
        raise Problem("unsupported", "the file holds no dict of tensors; save model.state_dict()")
    way: list[str] = []
    holds: dict[int, bool] = {}  # by the address of a dict, which may lie in many
    while True:
        tensors = _tensors(stored)
        found = [key for key, value in stored.items() if _holds_state(key, value, holds)]
        inner = [key for key in found if key in WRAPPERS] or found
        if {*inner} == AVERAGES:
            inner = ["params_ema"]
        if len(inner) != 1:
            break
        way.append(repr(inner[0]))
        stored = stored[inner[0]]
    if not tensors or inner:
        held = "several state dicts" if inner else "no state dict"
        held += f" (keys: {', '.join(map(repr, list(stored)[:8]))})"
        raise Problem("unsupported", f"the file holds {held}; save model.state_dict()")
    if way:
        key = " and then ".join(way)
        notes.append(f"weights taken from key {key}; the rest of the file is left out")
    if rest := [repr(key) for key in stored if key not in tensors]:
        notes.append(f"no tensor, left out: {', '.join(rest[:8])[:200]}")
    return tensors


def _tensors(value: Any) -> dict[str, StoredTensor]:
    """Return the tensors of a dict that holds nothing beside but numbers and text."""
    if not isinstance(value, dict):
        return {}
    tensors = {key: item for key, item in value.items() if isinstance(item, StoredTensor)}
    good = all(isinstance(key, str) and 0 < len(key) <= 500 for key in tensors)
    plain = all(type(item) in PLAIN for key, item in value.items() if key not in tensors)
    return tensors if good and plain else {}


def _holds_state(key: Any, value: Any, known: dict[int, bool], depth: int = 1) -> bool:
    if not isinstance(key, str) or not isinstance(value, dict):
        return False
    if id(value) not in known:
        known[id(value)] = False  # where it holds itself
        known[id(value)] = bool(_tensors(value)) or (
            depth < MOST_WRAPPERS
            and any(_holds_state(*item, known, depth + 1) for item in value.items())
        )
    return known[id(value)]
