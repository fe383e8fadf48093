"""A model's bill of materials: CycloneDX 1.6 (ECMA-424) with a model card of measured numbers.

Only what was measured on these very weights is told, each number with its interval: records of a
run whose subject is the model's digest. Data, parent and packages are those that its card names.
"""

import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from purpleteam import __version__
from purpleteam.core.cards import FORMATS, ModelCard, StoredModel
from purpleteam.core.digest import canonical_json, sha256_file
from purpleteam.core.records import Measurement
from purpleteam.core.revision import Revision
from purpleteam.core.runfolder import RunFolder
from purpleteam.core.statistics import Estimate, Rate

SCHEMA = "http://cyclonedx.org/schema/bom-1.6.schema.json"
SPACE = uuid.UUID("8d1bb1d2-6f4c-5f0c-9a39-0b8f4dfb1c8e")  # the same materials, the same number
LIMITS = (
    "The net answers with a class for any image, also for one of no class.",
    "The numbers hold for the data and attacks that they name; stronger attacks may exist.",
)
DATA = "data"


def bill_of_materials(stored: StoredModel | Path, run: Path | None = None) -> dict[str, Any]:
    """Return the bill of a model as JSON: one with a card, or a file of which only that is known.

    Raises:
        Refused, ModelError: the files are not those of the card.
        RunError: the run is missing or damaged.
    """
    card, measured, ran = None, list[Measurement](), list[Revision]()
    facts: dict[str, Any] = {"card": "none: what it takes and was made from is not known"}
    if isinstance(stored, Path):
        name, digest, files = stored.name, sha256_file(stored), [stored]
    else:
        stored.verify()
        card, name, digest = stored.card, stored.card.name, stored.card.digest
        files = [stored.stem.with_name(f"{stored.stem.name}{end}") for end in FORMATS]
        facts = {"identity": card.identity, "onnx difference": card.onnx_difference, **card.recipe}
    if run is not None:
        folder = RunFolder.open(run)
        records = [one for one in folder.records() if isinstance(one, Measurement)]
        measured = [one for one in records if one.subject.get("model") == digest]
        ran = Revision.all_of(folder.info)
        head = folder.info.get("records") or {}
        facts |= {"run": head.get("chain", "not ended"), "run by": folder.info.get("actor")}
        facts |= {"code": "; ".join(map(str, ran))} if ran else {}
    parts = [] if card is None else list(_materials(card))
    model = _component("machine-learning-model", name, digest)
    told = [_component("file", path.name, sha256_file(path)) for path in files]
    model |= {
        "modelCard": _model_card(card, measured, facts),
        "components": [file | {"bom-ref": file["name"]} for file in told],
    }
    pedigree: dict[str, Any] = {}
    if commits := [{"uid": one.commit} for one in ran if one.commit]:
        pedigree["commits"] = commits
    if card is not None and card.parent is not None:
        ancestor = _component("machine-learning-model", f"parent of {card.name}", card.parent)
        pedigree["ancestors"] = [ancestor]
    model |= {"pedigree": pedigree} if pedigree else {}
    needs = {"ref": model["bom-ref"], "dependsOn": [part["bom-ref"] for part in parts]}
    whole = {"components": parts, "dependencies": [needs]}
    number = uuid.uuid5(SPACE, canonical_json([model, whole]))
    tool = {"type": "application", "name": "purpleteam", "version": __version__}
    metadata = {
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "tools": {"components": [tool]},
        "component": model,
    }
    head = {"$schema": SCHEMA, "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1}
    return {**head, "serialNumber": f"urn:uuid:{number}", "metadata": metadata, **whole}


def _model_card(
    card: ModelCard | None, measured: Iterable[Measurement], facts: Mapping[str, Any]
) -> dict[str, Any]:
    numbers = [
        _metric(one, one.value) for one in measured if isinstance(one.value, Rate | Estimate)
    ]
    parameters: dict[str, Any] = {"task": "image classification"}
    if card is not None:
        channels, height, width = card.shape
        parameters |= {
            "modelArchitecture": card.architecture,
            "inputs": [{"format": f"{channels}x{height}x{width} pixels in [0, 1]"}],
            "outputs": [{"format": f"one score for each of: {', '.join(card.classes)}"}],
        }
    if card is not None and card.data_digest is not None:
        parameters |= {"approach": {"type": "supervised"}, "datasets": [{"ref": DATA}]}
    return {
        "modelParameters": parameters,
        "quantitativeAnalysis": {"performanceMetrics": numbers},
        "considerations": {"technicalLimitations": [*LIMITS]},
        "properties": [
            {"name": f"purpleteam:{name}", "value": str(value)}
            for name, value in sorted(facts.items())
        ],
    }


def _metric(one: Measurement, value: Rate | Estimate) -> dict[str, Any]:
    about = {**one.how, **{key: one.subject[key] for key in sorted(one.subject.keys() - {"model"})}}
    bounds = {"lowerBound": repr(value.low), "upperBound": repr(value.high)}
    slice_ = canonical_json({**about, "n": value.n, "record": one.id, "interval": value.method})
    name = {"type": str(one.name), "value": repr(value.value), "slice": slice_}
    return {**name, "confidenceInterval": bounds}


def _materials(card: ModelCard) -> Iterable[dict[str, Any]]:
    """Yield what went into a model: the data, and the packages that made it."""
    if card.data_digest is not None:
        yield _component("data", "training images and labels", card.data_digest) | {"bom-ref": DATA}
    for name, version in sorted(card.versions.items()):
        purl = f"pkg:pypi/{name}@{version.replace('+', '%2B')}"
        kind = "platform" if name == "python" else "library"
        part = {"type": kind, "name": name, "version": version, "bom-ref": purl}
        yield part if name == "python" else part | {"purl": purl}


def _component(kind: str, name: str, digest: str) -> dict[str, Any]:
    hashes = [{"alg": "SHA-256", "content": digest.partition(":")[2]}]
    return {"type": kind, "name": name, "bom-ref": digest, "hashes": hashes}
