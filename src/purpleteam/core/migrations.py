"""Runs of earlier versions as the present one has them: in memory, the files stay as they are.

Up to version 1 a model's part was told by its name alone, as `purple run` gave it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from purpleteam.core.records import Measurement, Note, Record
from purpleteam.core.schema import MODEL, SCHEMA, SERVED, TRAINING, Role, model_note


def migrate(records: Sequence[Record], info: Mapping[str, Any]) -> list[Record]:
    """Return the records of a run, with what its version did not write yet.

    Args:
        records: as they lie on disk.
        info: run.json, whose `schema` is the version; none is version 0.
    """
    made = list(records)
    if info.get("schema", 0) >= SCHEMA:
        return made
    noted = {_model(one.facts) for one in records if isinstance(one, Note) and one.name == MODEL}
    served = {
        str(one.facts.get("model"))
        for one in records
        if isinstance(one, Note) and one.name == SERVED
    }
    asked = info.get("asked")
    models = asked.get("models") if isinstance(asked, Mapping) else None
    models = models if isinstance(models, Mapping) else {}
    for digest, name in dict.fromkeys(_models(records)):
        if (digest, name) not in noted:
            role, lab = _role(name, models, served=digest in served)
            made.append(model_note(digest, name, role, lab=lab))
    return made


def _models(records: Sequence[Record]) -> list[tuple[str, str]]:
    found = [one.subject for one in records if isinstance(one, Measurement)]
    found += [one.facts for one in records if isinstance(one, Note) and one.name == TRAINING]
    return [_model(one) for one in found if one.get("model_name")]


def _model(facts: Mapping[str, Any]) -> tuple[str, str]:
    return str(facts.get("model", "")), str(facts.get("model_name", ""))


def _role(name: str, models: Mapping[str, Any], *, served: bool) -> tuple[Role, bool]:
    """Return the role of a model that had this name, and whether it belongs to the lab."""
    lab = name.startswith(("backdoored", "backdoors"))
    if name == "baseline":
        return ("brought" if models.get("use") else "baseline"), False
    if name == "partitions":
        return "partitions", False
    if "/" in name and lab:
        return "repaired", True
    if name.startswith("clean-twin") or name == "backdoors-clean":
        return "clean_twin", lab
    if name.startswith(("poisoned", "backdoored")):
        return "poisoned", lab
    if name.startswith("hardened") or name.endswith("-defence"):
        return "hardened", False
    trained = models.get("served") == name or served
    return ("served" if trained else "brought"), False
