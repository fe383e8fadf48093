"""A poison as it is typed: `badnets:count=50,trigger.size=4`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from purpleteam.attacks.poison import POISONS, PoisonAttack
from purpleteam.core.config import build, merge, parse_part
from purpleteam.core.errors import UsageError

__all__ = ["poison_from"]


def poison_from(
    text: str, options: Mapping[str, Any], *, labels: int | None, where: str = "attack"
) -> PoisonAttack:
    """Return the attack that is meant; with fewer labels than its target, the last is aimed at.

    Args:
        text: `name[:field=value,...]`; `trigger.size=4` changes one field of the trigger and
            leaves the others as the attack has them.
        options: fields that are given beside it; None is not given, and `text` goes before.
        labels: how many the dataset has, where that is known.
        where: names the source in errors.

    Raises:
        UsageError: there is no such attack, a field is wrong, or both count and rate are given.
    """
    name, fields = parse_part(text)
    given = {key: value for key, value in options.items() if value is not None} | fields
    if "count" in given and "rate" in given:
        raise UsageError(f"--count {given['count']} and --rate {given['rate']}: give one of them")
    values = merge({}, {key: value for key, value in given.items() if "." not in key})
    part = POISONS[name]
    for key in (key for key in given if "." in key):
        outer, _, inner = key.partition(".")
        start = asdict(part())["trigger"] if outer == "trigger" else {}
        values[outer] = start | dict(values.get(outer, {})) | {inner: given[key]}
    if labels is not None and "target_label" not in values:
        values["target_label"] = min(part().target_label, labels - 1)
    return build(part, values, f"{where} {name}")
