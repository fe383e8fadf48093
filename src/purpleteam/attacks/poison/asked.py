"""A poison from what is typed (`badnets:count=50,trigger.size=4`) or from a set's manifest."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from purpleteam.attacks.poison import POISONS, PoisonAttack
from purpleteam.core.config import build, parse_part
from purpleteam.core.errors import DataError, UsageError
from purpleteam.data.images import Dataset


def aimed_at(label: int, dataset: Dataset) -> int:
    """Return the label to aim at where none was typed: the usual one, or the last before it.

    It has training images, and not all test images; else `PoisonAttack.check` refuses it.
    """
    labels, tested = np.unique(dataset.train.labels).tolist(), dataset.test.labels
    able = [known for known in labels if (tested != known).any()]
    before = [known for known in able if known <= label]
    return max(before) if before else min(able, default=min(label, len(dataset.classes) - 1))


def poison_from(
    text: str, options: Mapping[str, Any], *, dataset: Dataset | None, where: str = "attack"
) -> PoisonAttack:
    """Return the attack of `name[:field=value,...]`, aimed at a label that `dataset` has.

    `trigger.size=4` changes one field of the trigger. `options` are fields that are given beside;
    None is not given, and `text` goes before. `where` names the source in errors.
    """
    name, fields = parse_part(text)
    given = {key: value for key, value in options.items() if value is not None} | fields
    if "count" in given and "rate" in given:
        raise UsageError(f"--count {given['count']} and --rate {given['rate']}: give one of them")
    part, values = POISONS[name], dict[str, Any]()
    for key in sorted(given, key=lambda key: "." in key):  # a whole field before parts of it
        outer, dot, inner = key.partition(".")
        if dot:
            start = asdict(part())["trigger"] if outer == "trigger" else {}
            values[outer] = start | dict(values.get(outer, {})) | {inner: given[key]}
        else:
            values[key] = given[key]
    if dataset is not None and "target_label" not in values:
        values["target_label"] = aimed_at(part().target_label, dataset)
    return build(part, values, f"{where} {name}")


def attack_of(manifest: Mapping[str, Any]) -> tuple[PoisonAttack, int]:
    """Return the attack of a manifest and its seed; `apply` of these makes the set again."""
    try:
        name, fields, seed = str(manifest["poison"]), manifest["fields"], int(manifest["seed"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"no manifest of a poisoned set: {error!r}") from None
    return build(POISONS[name], fields, f"manifest of {name}"), seed
