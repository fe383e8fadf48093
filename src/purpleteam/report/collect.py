"""A run folder, read once and asked by name: which records say what about which model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from purpleteam.core.records import (
    Artefact,
    CheckResult,
    Failure,
    Finding,
    Measurement,
    Note,
    Record,
    ThreatStatus,
)
from purpleteam.core.runfolder import RunFolder
from purpleteam.core.schema import DATASET, GALLERY, MODEL, ROLES, TRAINING, Role, migrate
from purpleteam.core.statistics import Counts
from purpleteam.core.verification import Verification, verify

R = TypeVar("R", bound=Record)

SEVERITIES = ("critical", "high", "medium", "low", "note")
UNDEFENDED: tuple[Role, ...] = ("brought", "baseline", "served")
"""Models that nothing was done to, for or against."""


class Evidence:
    """Everything that a run recorded, and the questions that the chapters ask of it."""

    def __init__(
        self,
        root: Path,
        info: Mapping[str, Any],
        records: Sequence[Record],
        verification: Verification | None = None,
    ) -> None:
        self.root = root
        self.info = info
        self.verification = verification
        self.records = tuple({record.id: record for record in migrate(records, info)}.values())

    @classmethod
    def read(cls, path: Path) -> Evidence:
        """Read a run folder, damaged or not: what is wrong with it is in `verification`.

        Raises:
            RunError: the folder is no run, or not one of its records can be read.
        """
        run = RunFolder.open(path)
        return cls(path, run.info, run.readable(), verify(path))

    @property
    def asked(self) -> Mapping[str, Any]:
        """What the run was asked."""
        asked = self.info.get("asked")
        return asked if isinstance(asked, Mapping) else {}

    def of(self, kind: type[R]) -> list[R]:
        """Return the records of one kind, in the order in which they were written."""
        return [record for record in self.records if isinstance(record, kind)]

    @cached_property
    def measurements(self) -> list[Measurement]:
        """Every measurement, in order."""
        return self.of(Measurement)

    def find(self, name: str, model: str | None = None, **how: Any) -> list[Measurement]:
        """Return the measurements of that name, about that model, done in that way."""
        return [
            record
            for record in self.measurements
            if record.name == name
            and (model is None or model_name(record) == model)
            and all(record.how.get(key) == value for key, value in how.items())
        ]

    def best(self, name: str, model: str, **how: Any) -> Measurement | None:
        """Return the most telling of the measurements found: on test, on most images, first."""

        def telling(record: Measurement) -> tuple[bool, int]:
            return record.subject.get("split") == "test", record.value.n

        return max(self.find(name, model, **how), key=telling, default=None)

    @cached_property
    def _roles(self) -> dict[tuple[str, str], tuple[Role, bool]]:
        """The part, and whether it is one of the lab, by digest and name."""
        noted = [note.facts for note in self.notes(MODEL) if note.facts.get("role") in ROLES]
        return {
            (str(part.get("model")), str(part.get("model_name"))): (part["role"], "lab" in part)
            for part in noted
        }

    def role(self, model: str) -> Role:
        """Return the part that the model of that name plays; `brought` where no record says."""
        played = [role for (_, name), (role, _) in self._roles.items() if name == model]
        return min(played, key=ROLES.index, default="brought")

    def in_lab(self, model: str) -> bool:
        """Say whether a model was trained to plant a backdoor, or as the clean one beside it."""
        return any(lab for (_, name), (_, lab) in self._roles.items() if name == model)

    def models_of(self, *roles: Role, lab: bool | None = None) -> list[str]:
        """Return the models that play one of those parts, in order; of the lab or not, if asked."""
        return [
            name
            for name in self.models
            if self.role(name) in roles and (lab is None or self.in_lab(name) == lab)
        ]

    @cached_property
    def at_hand(self) -> str:
        """The model that the run is about: brought or trained, else the first that was measured."""
        return next(iter(self.models_of("brought", "baseline")), next(iter(self.models), ""))

    def weakest(
        self, model: str, epsilon: float | None = None, norm: str = "linf"
    ) -> Measurement | None:
        """Return the lowest white-box robust accuracy at a radius: the attack that counts.

        Of several evaluations by one attack the one on most images stands for it.
        """
        widest: dict[tuple[str, float], Measurement] = {}
        for record in self.white_box(model, norm):
            if epsilon is None or record.how.get("epsilon") == epsilon:
                attack = (str(record.how.get("attack")), epsilon_of(record))
                before = widest.get(attack)
                if before is None or record.value.n > before.value.n:
                    widest[attack] = record
        return min(widest.values(), key=_strength, default=None)

    def white_box(self, model: str | None = None, norm: str | None = None) -> list[Measurement]:
        """Return the robust accuracies of attacks on the model itself."""
        return [
            record
            for record in self.find("robust_accuracy", model)
            if record.how.get("knowledge", "white-box") == "white-box"
            and (norm is None or record.how.get("norm", "linf") == norm)
        ]

    def editions(self, model: str, *names: str) -> list[tuple[int | None, list[Measurement]]]:
        """Return, for each digest of that name, its seed and those measurements of it.

        Several trainings of one recipe are several models; the seed is None where there is one.
        """
        editions: dict[Any, list[Measurement]] = {}
        for name in names:
            for record in self.find(name, model):
                editions.setdefault(record.subject.get("model"), []).append(record)
        seeds = {
            digest: next((record.seed for record in same if record.seed is not None), None)
            for digest, same in editions.items()
        }
        return [(seeds[key] if len(editions) > 1 else None, same) for key, same in editions.items()]

    def around(self, backdoor: Measurement) -> tuple[Measurement | None, Measurement | None]:
        """Return what an attack success rate never stands without: clean accuracy, base rate."""
        clean, base = (about(self.find(name), backdoor) for name in ("clean_accuracy", "base_rate"))
        if base is None:  # recorded as a number about the clean model
            keys = ("target_label", "trigger", "poisoned")
            same = {key: backdoor.how.get(key) for key in keys}
            rates = (record for record in self.find("base_rate") if record.seed == backdoor.seed)
            base = next(
                (
                    record
                    for record in rates
                    if all(record.how.get(k) == v for k, v in same.items())
                ),
                None,
            )
        return clean, base

    def name_of(self, digest: Any) -> str:
        """Return the name of the model with that digest; nothing where no number is about it."""
        return next(
            (
                model_name(record)
                for record in self.measurements
                if record.subject.get("model") == digest
            ),
            "",
        )

    def file_of(self, model: str) -> str:
        """Return the path in the run of a model's weights, or its name where none was stored."""
        digests = {digest for digest, name in self._roles if name == model}
        return next(
            (
                record.path
                for record in self.of(Artefact)
                if record.digest in digests and record.path.endswith(".safetensors")
            ),
            model,
        )

    @property
    def typed(self) -> tuple[str, str]:
        """How a command names the model at hand and the images of this run."""
        names = (str(note.facts.get("name")) for note in self.notes(DATASET))
        dataset = self.asked.get("dataset") or next(names, "DATASET")
        return self.brought or self.file_of(self.at_hand) or "MODEL", str(dataset)

    @property
    def brought(self) -> str:
        """What the user named as the model at hand; empty where it was trained here."""
        models = self.asked.get("models")
        use = models.get("use") if isinstance(models, Mapping) else None
        named = use or self.asked.get("model") or ""
        return str(named) if self.role(self.at_hand) == "brought" else ""

    @cached_property
    def models(self) -> list[str]:
        """Names of all models that were measured or trained, in the order of their parts."""
        names = [model_name(record) for record in self.measurements]
        names += [str(note.facts.get("model_name", "")) for note in self.notes(TRAINING)]
        present = list(dict.fromkeys(name for name in names if name))
        return sorted(present, key=lambda name: ROLES.index(self.role(name)))

    def models_with(self, *names: str) -> list[str]:
        """Return the models of which at least one of those measurements was taken."""
        measured = {model_name(record) for record in self.measurements if record.name in names}
        return [name for name in self.models if name in measured]

    @cached_property
    def headline_epsilon(self) -> float | None:
        """The linf radius at which most models were attacked; the largest of equals.

        Points of a curve count only where there is nothing else.
        """
        records = [record for record in self.white_box(norm="linf") if epsilon_of(record) > 0]
        records = [record for record in records if not record.how.get("curve")] or records
        models: dict[float, set[str]] = {}
        for record in records:
            models.setdefault(epsilon_of(record), set()).add(model_name(record))
        return max(models, key=lambda epsilon: (len(models[epsilon]), epsilon), default=None)

    def failures(self, *stages: str) -> list[Failure]:
        """Return what was asked for and is not done, of those stages or of all."""
        return [record for record in self.of(Failure) if not stages or record.stage in stages]

    def notes(self, *names: str) -> list[Note]:
        """Return the notes of those names, a name at a time."""
        return [note for name in names for note in self.of(Note) if note.name == name]

    def checks(self, *rooms: str) -> list[CheckResult]:
        """Return the checks whose id starts with the name of one of the rooms."""
        return [record for record in self.of(CheckResult) if record.check.split(".")[0] in rooms]

    def findings(self) -> list[Finding]:
        """Return the findings, the gravest first."""
        return sorted(
            self.of(Finding),
            key=lambda record: (
                SEVERITIES.index(record.severity) if record.severity in SEVERITIES else 9
            ),
        )

    def threats(self) -> list[ThreatStatus]:
        """Return the threats in order of their id."""
        return sorted(self.of(ThreatStatus), key=lambda record: record.threat)

    def galleries(self, *kinds: str) -> list[Note]:
        """Return the gallery notes of those kinds."""
        return [note for note in self.notes(GALLERY) if note.facts.get("kind") in kinds]


def model_name(measurement: Measurement) -> str:
    """Return the name of the model that a measurement is about."""
    return str(measurement.subject.get("model_name", "") or "")


def about(records: Iterable[Measurement], record: Measurement, **how: object) -> Measurement | None:
    """Return the first of `records` that is about the same model, done in that way."""
    model = record.subject.get("model")
    same = (other for other in records if other.subject.get("model") == model)
    return next((o for o in same if all(o.how.get(k) == v for k, v in how.items())), None)


def items(facts: Mapping[str, Any], *names: str) -> list[Mapping[str, Any]]:
    """Return the list of mappings under the first of those names that holds one."""
    for name in names or tuple(facts):
        listed = facts.get(name)
        if isinstance(listed, Iterable) and not isinstance(listed, str | Mapping):
            return [record for record in listed if isinstance(record, Mapping)]
    return []


def epsilon_of(measurement: Measurement) -> float:
    """Return the radius of an attack, or -1 where it has none."""
    epsilon = measurement.how.get("epsilon")
    return float(epsilon) if isinstance(epsilon, int | float) else -1.0


def value_of(measurement: Measurement) -> float:
    """Return the number of a measurement; of a table of counts their sum."""
    value = measurement.value
    return float(value.n if isinstance(value, Counts) else value.value)


def _strength(measurement: Measurement) -> tuple[float, float]:
    """Lowest accuracy first; of equals the attack with more steps is named."""
    return value_of(measurement), -float(measurement.how.get("steps") or 0)
