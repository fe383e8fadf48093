"""The words of a run: note names, the parts that models play, and the fields of each record.

Producers and the report take these from here. Each TypedDict names the fields that a mapping of
a record may have; a record may leave out what does not apply. `misfits` tells what does not
follow; a test asks it of a whole run. More fields are a new entry here, not a surprise there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypedDict, get_args

from purpleteam.core.records import Measurement, Note, Record

SCHEMA = 2
"""Version of run.json and of the lines of records.jsonl that is written.

0: run.json names none. 1: models are told apart by their names alone. 2: each model's part is a
note of its own, and metrics are those of `core.metrics`.
"""

Role = Literal[
    "baseline",
    "brought",
    "hardened",
    "repaired",
    "poisoned",
    "clean_twin",
    "partitions",
    "served",
]
"""What a model is in a run: trained undefended; the user's own; after a training defence; after a
repair; trained on poison; trained as it was without; a vote of partitions; what the app serves."""
ROLES: tuple[Role, ...] = get_args(Role)
"""In the order of tables: the model under test first, the shipped one that is served last."""

DATASET, TRAINING, MODEL, MODEL_NOTES = "dataset", "training", "model", "model-notes"
MODEL_SCAN, TRAINING_SET_SCAN = "model-scan", "training-set-scan"
NO_SEARCH, NO_REPAIR, NOT_TESTED = "no-search", "no-repair", "not-tested"
GALLERY, SCAN, SERVED, SYSTEM_MODEL = "gallery", "scan", "served", "system-model"


class Subject(TypedDict, total=False):
    """What a number is about: digests (`sha256:...`) and names."""

    model: str
    model_name: str
    models: list[str]
    """Digests, where a number is about several trainings."""
    dataset: str
    dataset_name: str
    split: str
    selection: str
    """`all`, or `first N`."""
    training_set: str
    clean_model: str
    """The clean twin that a backdoored model is compared with."""
    before: str
    """The model that a repaired one was made from."""
    normalisation: Mapping[str, Any]


class AttackHow(TypedDict, total=False):
    """How robust accuracy was measured; the attack's other fields are in `detail.attacks`."""

    attack: str
    norm: str
    epsilon: float
    steps: int | None
    restarts: int | None
    step_size: float | None
    knowledge: str
    """`white-box`, `score-based`, `decision-based`, `transfer`."""
    curve: bool
    """One point of a curve over epsilon."""
    made_as: str
    made_against: str
    source_model: str


class BackdoorHow(TypedDict, total=False):
    """What was planted: as the poison describes itself."""

    poison: str
    trigger: Any
    target_label: int
    poisoned: int
    poison_rate: float
    relabel: bool
    lab: bool
    seeds: list[int]
    training_set: str
    triggers_tried: int


class DetectionHow(TypedDict, total=False):
    """Which detector ranked or flagged training images, and what was planted in them."""

    detector: str
    lab: bool
    poison: str
    poisoned: int
    target_label: int
    looked_at: list[str]


class RepairHow(TypedDict, total=False):
    """Which repair was done, and what was planted before."""

    repair: Any
    lab: bool
    poison: str
    poisoned: int
    target_label: int
    planted_again: int


class TrainingHow(TypedDict, total=False):
    """The recipe, with its name and every field of it."""

    recipe: Mapping[str, Any]


class CertificateHow(TypedDict, total=False):
    """By which method, within which bound, a certificate holds."""

    method: str
    norm: str
    epsilon: float
    layout: Mapping[str, Any]
    learner: Any
    lab: bool


EvaluationHow = TypedDict(
    "EvaluationHow",
    {
        "class": int,
        "case": str,
        "size": int,
        "offset": int,
        "preprocessing": str,
        "over": str,
        "attack": str,
        "trigger": Any,
    },
    total=False,
)
"""Of clean metrics: the class they are about, or how an image was drawn again."""


class DatasetFacts(TypedDict, total=False):
    """The images as they were loaded; `splits` has n, digest and per_class of each."""

    name: str
    digest: str
    height: int
    width: int
    channels: int
    classes: list[str]
    splits: Mapping[str, Mapping[str, Any]]
    origin: Mapping[str, Any]


class TrainingFacts(TypedDict, total=False):
    """A training as it went; `epochs` has epoch, loss and validation_accuracy of each."""

    model_name: str
    model: str
    seed: int
    recipe: Mapping[str, Any]
    best_epoch: int
    epochs: list[Mapping[str, Any]]


class ModelFacts(TypedDict, total=False):
    """A model's part in the run."""

    model: str
    model_name: str
    role: Role
    lab: bool
    """It was trained to plant a backdoor, or to have a clean model beside one."""


class ScanFacts(TypedDict, total=False):
    """What `purple scan` read: paths and counts, with the files that it skipped or failed on."""

    paths: list[str]
    findings: int
    scanned: Any
    skipped: Any
    errors: Any


class SearchFacts(TypedDict, total=False):
    """What a search for a backdoor says of a model or of a training set.

    `own`: nothing was planted here. `backdoored` is None where that is not established.
    """

    model_name: str
    model: str
    subject: str
    own: bool
    seed: int
    backdoored: bool | None
    target_label: int | None
    score: float | None
    threshold: float | None
    reasons: list[str]
    planted: Mapping[str, Any]


class RefusedFacts(TypedDict, total=False):
    """A search or a repair that could not be done, and why."""

    model_name: str
    model: str
    seed: int
    why: str


class ModelNotesFacts(TypedDict, total=False):
    """What was seen of a model on the way."""

    model_name: str
    model: str
    notes: list[str]


class GalleryFacts(TypedDict, total=False):
    """Pictures: `images` has path and caption of each, `kind` says which chapter shows them."""

    title: str
    kind: str
    images: list[Mapping[str, Any]]
    of: str
    """The measurement whose images they are."""
    note: str


class ServedFacts(TypedDict, total=False):
    """The app that was asked."""

    model_name: str
    model: str
    url: str
    limits: Mapping[str, Any]
    body_bytes: int
    answers: str
    unread: int


class NotTestedFacts(TypedDict, total=False):
    """What could not be tested: `items` has what and why of each."""

    items: list[Any]


OPEN = {SCAN, SYSTEM_MODEL, MODEL_SCAN, TRAINING_SET_SCAN}
"""Notes that hold the whole answer of a tool, whose further fields are the tool's own."""
FACTS: dict[str, type] = {
    DATASET: DatasetFacts,
    TRAINING: TrainingFacts,
    MODEL: ModelFacts,
    MODEL_NOTES: ModelNotesFacts,
    SCAN: ScanFacts,
    GALLERY: GalleryFacts,
    SERVED: ServedFacts,
    MODEL_SCAN: SearchFacts,
    TRAINING_SET_SCAN: SearchFacts,
    NO_SEARCH: RefusedFacts,
    NO_REPAIR: RefusedFacts,
    NOT_TESTED: NotTestedFacts,
}
"""The facts of each kind of note. Of a system model the room `threats` says what it holds."""
FAMILIES: tuple[type, ...] = (
    AttackHow,
    BackdoorHow,
    DetectionHow,
    RepairHow,
    TrainingHow,
    CertificateHow,
    EvaluationHow,
)


def model_note(model: str, model_name: str, role: Role, *, lab: bool = False) -> Note:
    """Return the record of the part that the model with the digest `model` plays."""
    facts: ModelFacts = {"model": model, "model_name": model_name, "role": role}
    if lab:
        facts["lab"] = True
    return Note(name=MODEL, facts=facts)


def misfits(record: Record) -> list[str]:
    """Return the fields of a record's mappings that no entry above names."""
    if isinstance(record, Measurement):
        wrong = [f"subject.{key}" for key in record.subject.keys() - _keys(Subject)]
        free = {"trigger", "poison"} & record.how.keys()  # a poison's own fields stand beside these
        known = set().union(*map(_keys, FAMILIES))
        return wrong + ([] if free else [f"how.{key}" for key in record.how.keys() - known])
    if isinstance(record, Note) and record.name in FACTS and record.name not in OPEN:
        return [f"facts.{key}" for key in record.facts.keys() - _keys(FACTS[record.name])]
    return []


def _keys(kind: type) -> set[str]:
    return set(kind.__annotations__)
