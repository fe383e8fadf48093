"""The words of a run: note names, the parts that models play, and the fields of each record.

`misfits` tells what does not follow; `migrate` reads earlier runs.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from purpleteam.core.records import Measurement, Note, Record, notes_of

SCHEMA = 2
"""Version of run.json and of the lines of records.jsonl that is written.

0: run.json names none. 1: models are told apart by their names alone. 2: each model's part is a
note of its own, and metrics are those of `core.metrics`.
"""

Role = Literal[
    "baseline", "brought", "hardened", "repaired", "poisoned", "clean_twin", "partitions", "served"
]
"""What a model is in a run: trained undefended; the user's own; after a training defence; after a
repair; trained on poison; trained as it was without; a vote of partitions; what the app serves."""
ROLES: tuple[Role, ...] = get_args(Role)  # in the order of tables

Letter = Literal["S", "T", "R", "I", "D", "E"]
STRIDE: Mapping[str, str] = {
    "S": "Spoofing",
    "T": "Tampering",
    "R": "Repudiation",
    "I": "Information disclosure",
    "D": "Denial of service",
    "E": "Elevation of privilege",
}

DATASET, TRAINING, MODEL, MODEL_NOTES = "dataset", "training", "model", "model-notes"
MODEL_SCAN, TRAINING_SET_SCAN = "model-scan", "training-set-scan"
NO_SEARCH, NO_REPAIR, NOT_TESTED = "no-search", "no-repair", "not-tested"
GALLERY, SCAN, SERVED, SYSTEM_MODEL = "gallery", "scan", "served", "system-model"
SWEEP_TABLE = "exports/sweep.csv"
"""A line for each number that the cells of a sweep measured."""

FIELDS: Mapping[str, frozenset[str]] = {
    name: frozenset(fields.split())
    for name, fields in {
        # What a number is about. Digests are `sha256:...`. Of several trainings `models`, of a
        # backdoored model `clean_model` (its clean twin), of a repaired one `before`. `selection`
        # is `all` or `first N`.
        "subject": "model model_name models clean_model before normalisation "
        "dataset dataset_name split selection training_set",
        # How it was measured. Robust accuracy: `knowledge` is white-box, score-based,
        # decision-based or transfer; `curve` marks one point of a curve over epsilon. An attack's
        # other fields are in `detail.attacks`.
        "how": "attack norm epsilon steps restarts step_size knowledge curve made_as made_against "
        # Backdoors, as the poison describes itself; `lab`: a model was trained to plant one.
        "source_model poison trigger target_label poisoned poison_rate relabel lab seeds "
        "training_set triggers_tried detector looked_at repair planted_again "
        # Trainings and certificates: by which recipe or method, within which bound.
        "recipe method layout learner sigma selection_samples estimation_samples "
        # What is claimed of a certificate, in the words of ISO/IEC 24029-2.
        "failure_probability complete deterministic arithmetic "
        # What the model gives away: `strategy` chooses the questions; `answers`: scores or labels.
        "false_positive_rate shadows strategy queries answers prior canaries delta "
        # Clean metrics: the class they are about, or how an image was drawn again.
        "class case size offset preprocessing over",
        # Notes, by name. `splits` has n, digest and per_class of each.
        DATASET: "name digest height width channels classes splits origin",
        # `epochs` has epoch, loss, validation_accuracy, attacked and certified of each.
        TRAINING: "model_name model seed recipe best_epoch epochs",
        # `lab`: it was trained to plant a backdoor, or to have a clean model beside one.
        MODEL: "model model_name role lab",
        MODEL_NOTES: "model_name model notes",
        # `images` has path and caption of each, `kind` says which chapter shows them, `of` names
        # the measurement whose images they are.
        GALLERY: "title kind images of note",
        SERVED: "model_name model identity url limits body_bytes answers unread",
        NO_SEARCH: "model_name model seed why",
        NO_REPAIR: "model_name model seed why",
        # `items` has what and why of each.
        NOT_TESTED: "items",
    }.items()
}
"""The fields that a mapping may have. The other notes hold the whole answer of a tool, whose fields
are its own: SCAN the paths, findings and files that were skipped; MODEL_SCAN and TRAINING_SET_SCAN
whether a backdoor was found (`backdoored`, None where that is not established; `own`: none was
planted here); SYSTEM_MODEL what the room `threats` says."""


def model_note(model: str, model_name: str, role: Role, *, lab: bool = False) -> Note:
    """Return the record of the part that the model with the digest `model` plays."""
    facts = {"model": model, "model_name": model_name, "role": role}
    return Note(name=MODEL, facts={**facts, "lab": True} if lab else facts)


def misfits(record: Record) -> list[str]:
    """Return the fields of a record's mappings that no entry above names."""
    mappings: dict[str, Mapping[str, Any]] = {}
    if isinstance(record, Measurement):
        mappings["subject"] = record.subject
        if not {"trigger", "poison"} & record.how.keys():
            mappings["how"] = record.how
    elif isinstance(record, Note) and record.name in FIELDS:
        mappings[record.name] = record.facts
    return [
        f"{name}.{key}" for name, told in mappings.items() for key in told.keys() - FIELDS[name]
    ]


def migrate(records: Sequence[Record], info: Mapping[str, Any]) -> list[Record]:
    """Return the records of a run with what its version did not write yet; files stay as they are.

    Up to version 1 a model's part was told by its name alone, as `purple run` gave it.
    """
    if info.get("schema", 0) >= SCHEMA:
        return list(records)
    named = [record.subject for record in records if isinstance(record, Measurement)]
    named += [note.facts for note in notes_of(records, TRAINING)]
    noted = {_model(note.facts) for note in notes_of(records, MODEL)}
    served = {str(note.facts.get("model")) for note in notes_of(records, SERVED)}
    asked: Any = info.get("asked")
    models = asked.get("models") if isinstance(asked, Mapping) else None
    models = models if isinstance(models, Mapping) else {}
    made = list(records)
    for digest, name in dict.fromkeys(_model(facts) for facts in named if facts.get("model_name")):
        if (digest, name) not in noted:
            role, lab = _role(name, models, served=digest in served)
            made.append(model_note(digest, name, role, lab=lab))
    return made


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
    return ("served" if models.get("served") == name or served else "brought"), False
