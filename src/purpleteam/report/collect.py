"""A run folder, read once and asked by name: which records say what about which model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from purpleteam.core.records import (
    CheckResult,
    Failure,
    Finding,
    Measurement,
    Note,
    Record,
    ThreatStatus,
)
from purpleteam.core.runfolder import RunFolder
from purpleteam.core.statistics import Counts
from purpleteam.core.verification import Verification, verify

R = TypeVar("R", bound=Record)

MODEL_ORDER = (
    "standard",
    "baseline",
    "clean-twin",
    "clean-twin-kept",
    "poisoned-kept",
    "poisoned-relabelled",
    "seed-a-defence",
    "seed-b-defence",
    "hardened-fast",
    "hardened",
)
"""The models of the built-in story in the order in which it is told; others follow."""


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
        self.records = tuple({record.id: record for record in records}.values())

    @classmethod
    def read(cls, path: Path) -> Evidence:
        """Read a run folder, damaged or not: what is wrong with it is in `verification`.

        Raises:
            RunError: the folder is no run, or not one of its records can be read.
        """
        run = RunFolder.open(path)
        return cls(path, run.info, run.readable(), verify(path))

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
            one
            for one in self.measurements
            if one.name == name
            and (model is None or model_name(one) == model)
            and all(one.how.get(key) == value for key, value in how.items())
        ]

    def one(self, name: str, model: str, **how: Any) -> Measurement | None:
        """Return the most telling of the measurements found: on test, on most images, first."""
        found = self.find(name, model, **how)
        return max(
            found, key=lambda one: (one.subject.get("split") == "test", one.value.n), default=None
        )

    def weakest(self, model: str, epsilon: float, norm: str = "linf") -> Measurement | None:
        """Return the lowest white-box robust accuracy: the attack that counts.

        Of several evaluations by one attack the one on most images stands for it.
        """
        widest: dict[str, Measurement] = {}
        for one in self.white_box(model, norm):
            if one.how.get("epsilon") == epsilon:
                attack = str(one.how.get("attack"))
                before = widest.get(attack)
                if before is None or one.value.n > before.value.n:
                    widest[attack] = one
        return min(widest.values(), key=_strength, default=None)

    def white_box(self, model: str | None = None, norm: str | None = None) -> list[Measurement]:
        """Return the robust accuracies of attacks on the model itself."""
        return [
            one
            for one in self.find("robust_accuracy", model)
            if one.how.get("knowledge", "white-box") == "white-box"
            and (norm is None or one.how.get("norm", "linf") == norm)
        ]

    def editions(self, model: str, *names: str) -> list[tuple[int | None, list[Measurement]]]:
        """Return, for each digest of that name, its seed and those measurements of it.

        Several seeds of one recipe are several models; the seed is None where there is but one.
        """
        found: dict[Any, list[Measurement]] = {}
        for name in names:
            for one in self.find(name, model):
                found.setdefault(one.subject.get("model"), []).append(one)
        seeds = {
            digest: next((one.seed for one in same if one.seed is not None), None)
            for digest, same in found.items()
        }
        return [(seeds[key] if len(found) > 1 else None, same) for key, same in found.items()]

    def around(self, backdoor: Measurement) -> tuple[Measurement | None, Measurement | None]:
        """Return what an attack success rate never stands without: clean accuracy, base rate."""
        model = backdoor.subject.get("model")
        clean, base = (
            next((one for one in self.find(name) if one.subject.get("model") == model), None)
            for name in ("clean_accuracy", "base_rate")
        )
        if base is None:  # recorded as a number about the clean model
            same = ("target_label", "trigger", "poisoned")
            base = next(
                (
                    one
                    for one in self.find("base_rate")
                    if one.seed == backdoor.seed
                    and all(one.how.get(key) == backdoor.how.get(key) for key in same)
                ),
                None,
            )
        return clean, base

    def name_of(self, digest: Any) -> str:
        """Return the name of the model with that digest; nothing where no number is about it."""
        return next(
            (model_name(one) for one in self.measurements if one.subject.get("model") == digest), ""
        )

    @cached_property
    def models(self) -> list[str]:
        """Names of all models that were measured or trained, in the order of the story."""
        names = [model_name(one) for one in self.measurements]
        names += [str(note.facts.get("model_name", "")) for note in self.notes("training")]
        present = list(dict.fromkeys(name for name in names if name))
        known = [name for name in MODEL_ORDER if name in present]
        return known + [name for name in present if name not in MODEL_ORDER]

    def models_with(self, *names: str) -> list[str]:
        """Return the models of which at least one of those measurements was taken."""
        measured = {model_name(one) for one in self.measurements if one.name in names}
        return [name for name in self.models if name in measured]

    def claims(self) -> list[tuple[Measurement, Measurement]]:
        """Return, a model at a time, what transferred images claim and what an attack on it shows.

        Both at one radius: the headline's where there is such a pair, else the model's largest.
        Images that left their radius (cast to bytes unclipped) are no fair claim about a model,
        but for the one whose seed tested it so.
        """
        pairs = []
        for model in self.models_with("transfer_accuracy"):
            both = [
                (claimed, true)
                for claimed in self.find("transfer_accuracy", model)
                if (true := self.weakest(model, _epsilon(claimed))) is not None
                and (_within_radius(claimed) or _own_claim(claimed))
            ]
            if both:
                pairs.append(max(both, key=self._prominence))
        return pairs

    def _prominence(self, pair: tuple[Measurement, Measurement]) -> tuple[bool, float, float]:
        epsilon = _epsilon(pair[0])
        return epsilon == self.headline_epsilon, epsilon, _value(pair[0])

    @cached_property
    def headline_epsilon(self) -> float | None:
        """The linf radius at which most models were attacked; the largest of equals.

        Points of a curve count only where there is nothing else.
        """
        found = [one for one in self.white_box(norm="linf") if _epsilon(one) > 0]
        found = [one for one in found if not one.how.get("curve")] or found
        models: dict[float, set[str]] = {}
        for one in found:
            models.setdefault(_epsilon(one), set()).add(model_name(one))
        return max(models, key=lambda epsilon: (len(models[epsilon]), epsilon), default=None)

    def failures(self, *stages: str) -> list[Failure]:
        """Return what was asked for and is not done, of those stages or of all."""
        return [one for one in self.of(Failure) if not stages or one.stage in stages]

    def notes(self, name: str) -> list[Note]:
        """Return the notes of that name."""
        return [note for note in self.of(Note) if note.name == name]

    def checks(self, *rooms: str) -> list[CheckResult]:
        """Return the checks whose id starts with the name of one of the rooms."""
        return [one for one in self.of(CheckResult) if one.check.split(".")[0] in rooms]

    def findings(self) -> list[Finding]:
        """Return the findings, the gravest first."""
        order = ("critical", "high", "medium", "low", "note")
        found = self.of(Finding)
        return sorted(
            found, key=lambda one: order.index(one.severity) if one.severity in order else 9
        )

    def threats(self) -> list[ThreatStatus]:
        """Return the threats in order of their id."""
        return sorted(self.of(ThreatStatus), key=lambda one: one.threat)

    def galleries(self, *kinds: str) -> list[Note]:
        """Return the gallery notes of those kinds."""
        return [note for note in self.notes("gallery") if note.facts.get("kind") in kinds]


def model_name(measurement: Measurement) -> str:
    """Return the name of the model that a measurement is about."""
    return str(measurement.subject.get("model_name", "") or "")


def team(model: str) -> str:
    """Return the chapter that a model belongs to by its name: poison, lab, defence or plain."""
    if model.startswith(("backdoored", "backdoors", "partitions")):
        return "lab"
    if model.startswith(("poisoned", "clean-twin")):
        return "poison"
    return "defence" if model.startswith("hardened") or model.endswith("-defence") else "plain"


def items(facts: Mapping[str, Any], *names: str) -> list[Mapping[str, Any]]:
    """Return the list of mappings under the first of those names that holds one."""
    for name in names or tuple(facts):
        found = facts.get(name)
        if isinstance(found, Iterable) and not isinstance(found, str | Mapping):
            return [one for one in found if isinstance(one, Mapping)]
    return []


def _epsilon(measurement: Measurement) -> float:
    epsilon = measurement.how.get("epsilon")
    return float(epsilon) if isinstance(epsilon, int | float) else -1.0


def _strength(measurement: Measurement) -> tuple[float, float]:
    """Lowest accuracy first; of equals the attack with more steps is named."""
    return _value(measurement), -float(measurement.how.get("steps") or 0)


def _value(measurement: Measurement) -> float:
    value = measurement.value
    return float(value.n if isinstance(value, Counts) else value.value)


def _within_radius(claimed: Measurement) -> bool:
    """Say whether the transferred images lie within their radius, but for rounding to bytes."""
    largest = claimed.detail.get("largest_linf", 0.0)
    return float(largest) <= _epsilon(claimed) + 1 / 255


def _own_claim(claimed: Measurement) -> bool:
    """Say whether the model is the defence of the seed that made such images."""
    maker = str(claimed.how.get("made_as", "")).replace("_", "-")
    return bool(maker) and model_name(claimed).startswith(maker)
