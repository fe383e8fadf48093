"""A poisoned set's manifest, read back: the attack and the seed that made the set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from purpleteam.attacks.poison._base import POISONS, PoisonAttack
from purpleteam.core.config import build
from purpleteam.core.errors import DataError


def attack_of(manifest: Mapping[str, Any]) -> tuple[PoisonAttack, int]:
    """Return the attack of a manifest and its seed; `apply` of these makes the set again.

    Raises:
        DataError: it is no manifest of a poisoned set.
        ConfigError: a field of the attack is not known or out of its range.
    """
    try:
        name, fields, seed = str(manifest["poison"]), manifest["fields"], int(manifest["seed"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"no manifest of a poisoned set: {error!r}") from None
    return build(POISONS[name], fields, f"manifest of {name}"), seed
