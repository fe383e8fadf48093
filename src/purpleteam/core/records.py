"""What a run found, one frozen fact each: the lines of records.jsonl.

A record's id is a hash of its content without cost and command, which differ from run to run.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, ClassVar, Literal

from purpleteam.core.digest import short_id
from purpleteam.core.errors import RunError, unknown
from purpleteam.core.metrics import METRICS
from purpleteam.core.statistics import Value, value_from_json

Severity = Literal["note", "low", "medium", "high", "critical"]
Verdict = Literal["pass", "fail", "error", "skipped", "broken", "stale"]

NO_METRIC = ("cost", "command")  # they differ from run to run: no part of a record's identity


_KINDS: dict[str, type["Record"]] = {}


@dataclass(frozen=True, kw_only=True)
class Record:
    """What all records share: an id made of the content, and a JSON form."""

    kind: ClassVar[str]
    letter: ClassVar[str]  # what its ids begin with
    cost: Mapping[str, float] = field(default_factory=dict)  # seconds, forward, backward, queries
    command: tuple[str, ...] = ()  # the command line that made this record

    def __init_subclass__(cls, kind: str, letter: str) -> None:
        cls.kind, cls.letter = kind, letter
        _KINDS[kind] = cls

    @cached_property
    def id(self) -> str:
        """A short content hash such as `m-3f2a09c1d2`."""
        return short_id(self.letter, self.metric())

    def metric(self) -> dict[str, Any]:
        """Return the record as JSON without what differs from run to run."""
        told = {name: fact for name, fact in vars(self).items() if name not in (*NO_METRIC, "id")}
        return {**plain(told), "kind": self.kind}

    def to_json(self) -> dict[str, Any]:
        """Return the whole record as JSON, id and kind first."""
        return {"id": self.id, "kind": self.kind, **plain(vars(self))}


def plain(value: Any) -> Any:
    """Return a value as JSON has it: mappings and sequences of it, and what has `to_json`."""
    if hasattr(value, "to_json"):
        return value.to_json()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


class NameInFile(str):
    """A metric's name as a file has it: of a plug-in, perhaps, that is not loaded here."""

    __slots__ = ()


@dataclass(frozen=True, kw_only=True)
class Measurement(Record, kind="measurement", letter="m"):
    """A number with its interval: the metric `name` of `subject`, measured as `how` says.

    A name that is none of METRICS is a UsageError, but where it was read from a file.
    """

    name: str
    value: Value
    subject: Mapping[str, Any]  # digests and names of what it is about: model, dataset, split
    how: Mapping[str, Any] = field(default_factory=dict)  # attack, norm, epsilon, trigger, ...
    detail: Mapping[str, Any] = field(default_factory=dict)  # soundness, rates per source, ...
    seed: int | None = None

    def __post_init__(self) -> None:
        """Refuse a name that is no metric."""
        if not isinstance(self.name, NameInFile):
            METRICS[self.name]


@dataclass(frozen=True, kw_only=True)
class Finding(Record, kind="finding", letter="f"):
    """What a scanner says about one place."""

    tool: str
    rule: str
    severity: Severity
    confidence: str
    message: str
    place: Mapping[str, Any]  # `path`, and `line` where there is one
    cwe: str | None = None
    fix: str | None = None


@dataclass(frozen=True, kw_only=True)
class CheckResult(Record, kind="check", letter="c"):
    """The verdict of one executed check; only `pass` counts."""

    check: str
    proves: str
    verdict: Verdict
    measured: Any = None
    threshold: Any = None
    message: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)  # digests by path or address
    negative_control: Mapping[str, bool] = field(default_factory=dict)
    """`ran` and `failed_as_required`: the check on an example that it must fail."""


@dataclass(frozen=True, kw_only=True)
class Artefact(Record, kind="artefact", letter="a"):
    """A file in the run folder, its digest, and what made it."""

    path: str
    digest: str
    made_by: str


@dataclass(frozen=True, kw_only=True)
class ThreatStatus(Record, kind="threat", letter="t"):
    """A threat of the system with the status that its checks' verdicts give it."""

    threat: str
    element: str
    stride: str
    title: str
    inherent: Severity
    residual: Severity
    status: Literal["mitigated", "partly", "open", "accepted", "not_applicable"]
    mitigations: Mapping[str, Any]
    origin: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Note(Record, kind="note", letter="n"):
    """Facts of a stage that are no number: what it did, on what, and what it left out."""

    name: str
    facts: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Failure(Record, kind="failure", letter="x"):
    """A piece of work that was asked for and is not done; `--resume` tries it again."""

    stage: str
    what: str  # the piece of the stage, such as `harden pgd`
    reason: str  # what went wrong, in one line
    needs: str = ""  # the piece of work that failed before, without which this one cannot be done


def notes_of(records: Iterable[Record], name: str) -> list[Note]:
    """Return the notes of that name."""
    return [record for record in records if isinstance(record, Note) and record.name == name]


def record_from_json(line: Mapping[str, Any]) -> Record:
    """Return the record that `to_json` wrote; another kind or other fields are a RunError."""
    cls = _KINDS.get(str(line.get("kind")))
    if cls is None:
        raise RunError(unknown("record kind", line.get("kind"), _KINDS))
    wanted = {part.name for part in fields(cls)}
    values = {key: value for key, value in line.items() if key in wanted}
    for name in ("command", "origin"):
        if name in values:
            values[name] = tuple(values[name])
    try:
        if cls is Measurement:
            values["value"] = value_from_json(values["value"])
            if values["name"] not in METRICS:
                values["name"] = NameInFile(values["name"])
        return cls(**values)
    except (KeyError, TypeError) as error:
        raise RunError(f"{cls.kind} record {line.get('id')!r} is not whole: {error}") from None
