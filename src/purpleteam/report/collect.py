"""A run folder, read once and asked by name: which records say what about which model."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Any, Self, TypeVar

from purpleteam.core.records import Artefact, CheckResult, Failure, Measurement, Note, Record
from purpleteam.core.runfolder import RunFolder
from purpleteam.core.schema import DATASET, GALLERY, MODEL, ROLES, TRAINING, Role, migrate
from purpleteam.core.statistics import Counts
from purpleteam.core.verification import Verification, verify
from purpleteam.report.swept import GROUPS, Swept, read_table

R = TypeVar("R", bound=Record)

DIGITS = 12  # of a number that is compared: what was computed may differ in its last bit
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
        self.swept = Swept(0, {})
        """What the cells of a sweep measured."""
        self.records = tuple({record.id: record for record in migrate(records, info)}.values())
        self.measurements = self.of(Measurement)
        asked = info.get("asked")
        self.asked: Mapping[str, Any] = asked if isinstance(asked, Mapping) else {}

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a run folder, damaged or not; a RunError where not one record can be read.

        Of a sweep of many cells only what the page shows is read, and nothing is verified.
        """
        run = RunFolder.open(path)
        swept = read_table(path) if "sweep" in run.info["asked"] else Swept(0, {})
        if swept.whole:
            evidence = cls(path, run.info, run.readable(), verify(path))
        else:
            evidence = cls(path, run.info, run.some(swept.shown, most=GROUPS))
        evidence.swept = swept
        return evidence

    def of(self, kind: type[R]) -> list[R]:
        return [record for record in self.records if isinstance(record, kind)]

    def notes(self, *names: str) -> list[Note]:
        return [note for name in names for note in self.of(Note) if note.name == name]

    def checks(self, *rooms: str) -> list[CheckResult]:
        return [record for record in self.of(CheckResult) if record.check.split(".")[0] in rooms]

    def galleries(self, *kinds: str) -> list[Note]:
        return [note for note in self.notes(GALLERY) if note.facts.get("kind") in kinds]

    def failures(self, stage: str | None = None) -> list[Failure]:
        return [record for record in self.of(Failure) if stage in (None, record.stage)]

    def find(self, name: str, model: str | None = None, **how: Any) -> list[Measurement]:
        return [
            record
            for record in self.measurements
            if record.name == name and model in (None, model_name(record)) and done(record, how)
        ]

    def best(self, name: str, model: str, **how: Any) -> Measurement | None:
        """Return the most telling of the measurements found: on test, on most images, first."""
        records = self.find(name, model, **how)
        tests = [record for record in records if record.subject.get("split") == "test"]
        return max(tests or records, key=lambda record: record.value.n, default=None)

    @cached_property
    def _roles(self) -> dict[tuple[str, str], tuple[Role, bool]]:
        """The part, and whether it is one of the lab, by digest and name."""
        parts = [note.facts for note in self.notes(MODEL) if note.facts.get("role") in ROLES]
        return {
            (str(part.get("model")), str(part.get("model_name"))): (part["role"], "lab" in part)
            for part in parts
        }

    def role(self, model: str) -> Role:
        """Return the part that the model of that name plays; `brought` where no record says."""
        played = [role for (_, name), (role, _) in self._roles.items() if name == model]
        return min(played, key=ROLES.index, default="brought")

    @cached_property
    def models(self) -> list[str]:
        """All that were measured or trained, in the order of their parts."""
        names = [model_name(record) for record in self.measurements]
        names += [str(note.facts.get("model_name", "")) for note in self.notes(TRAINING)]
        present = dict.fromkeys(name for name in names if name)
        return sorted(present, key=lambda name: ROLES.index(self.role(name)))

    def models_of(self, *roles: Role, lab: bool | None = None) -> list[str]:
        """Return the models that play one of those parts, in order; if asked, of the lab or not."""
        of_lab = {name for (_, name), (_, planted) in self._roles.items() if planted}
        playing = [name for name in self.models if self.role(name) in roles]
        return [name for name in playing if lab in (None, name in of_lab)]

    def models_with(self, *names: str) -> list[str]:
        measured = {model_name(record) for record in self.measurements if record.name in names}
        return [name for name in self.models if name in measured]

    @cached_property
    def at_hand(self) -> str:
        """The model that the run is about: brought or trained, else the first that was measured."""
        return next(iter([*self.models_of("brought", "baseline"), *self.models]), "")

    @property
    def brought(self) -> str:
        """What the user named as the model at hand; empty where it was trained here."""
        models = self.asked.get("models")
        use = models.get("use") if isinstance(models, Mapping) else None
        named = use or self.asked.get("model") or self._options.get("model") or ""
        return str(named) if self.role(self.at_hand) == "brought" else ""

    def file_of(self, model: str) -> str:
        """Return the path in the run of a model's weights, or its name where none was stored."""
        digests = {digest for digest, name in self._roles if name == model}
        paths = (file.path for file in self.of(Artefact) if file.digest in digests)
        return next((path for path in paths if path.endswith(".safetensors")), model)

    @property
    def _options(self) -> Mapping[str, Any]:
        """The options of the verb that made the run; none where it was no verb."""
        options = self.asked.get("options")
        return options if isinstance(options, Mapping) else {}

    @property
    def typed(self) -> tuple[str, str]:
        """How a command names the model at hand, with what was said of it, and the images."""
        names = (str(note.facts.get("name")) for note in self.notes(DATASET))
        dataset = self.asked.get("dataset") or next(names, "DATASET")
        model, said = self.brought or self.file_of(self.at_hand) or "MODEL", self.asked
        if self.brought and isinstance(asked := self.asked.get("models"), Mapping):
            said = asked
        said = {**self._options, **said}
        for option in ("weights", "arch", "normalise", "classes"):
            if self.brought and isinstance(value := said.get(option), str):
                model += f" --{option} {quote(value)}"
        return model, str(dataset)

    def white_box(self, model: str | None = None, norm: str | None = None) -> list[Measurement]:
        """Return the robust accuracies under attacks that know the model itself."""
        return [
            record
            for record in self.find("robust_accuracy", model)
            if record.how.get("knowledge", "white-box") == "white-box"
            and norm in (None, record.how.get("norm", "linf"))
        ]

    def weakest(
        self, model: str, epsilon: float | None = None, norm: str = "linf"
    ) -> Measurement | None:
        """Return the lowest white-box robust accuracy at a radius: the attack that counts.

        Of one attack's evaluations that on most images counts, of equal attacks the longest.
        """
        widest: dict[tuple[str, float], Measurement] = {}
        for record in self.white_box(model, norm):
            if epsilon is None or epsilon_of(record) == round(epsilon, DIGITS):
                attack = (str(record.how.get("attack")), epsilon_of(record))
                before = widest.setdefault(attack, record)
                if before.value.n < record.value.n:
                    widest[attack] = record
        longest = sorted(widest.values(), key=lambda record: -float(record.how.get("steps") or 0))
        return min(longest, key=value_of, default=None)

    @cached_property
    def headline_epsilon(self) -> float | None:
        """The linf radius at which most models were attacked; the largest of equals."""
        records = [record for record in self.white_box(norm="linf") if epsilon_of(record) > 0]
        # points of a curve count only where there is nothing else
        records = [record for record in records if not record.how.get("curve")] or records
        models: dict[float, set[str]] = {}
        for record in records:
            models.setdefault(epsilon_of(record), set()).add(model_name(record))
        return max(models, key=lambda epsilon: (len(models[epsilon]), epsilon), default=None)

    def around(self, backdoor: Measurement) -> tuple[Measurement | None, Measurement | None]:
        """Return what an attack success rate never stands without: clean accuracy, base rate."""
        clean, base = (about(self.find(name), backdoor) for name in ("clean_accuracy", "base_rate"))
        if base is None:  # recorded as a number about the clean model
            how = {key: backdoor.how.get(key) for key in ("target_label", "trigger", "poisoned")}
            same = (rate for rate in self.find("base_rate", **how) if rate.seed == backdoor.seed)
            base = next(same, None)
        return clean, base

    def name_of(self, digest: Any) -> str:
        same = (record for record in self.measurements if record.subject.get("model") == digest)
        return next(map(model_name, same), "")


def model_name(measurement: Measurement) -> str:
    """Return the name of the model that a measurement is about."""
    return str(measurement.subject.get("model_name", "") or "")


def done(record: Measurement, how: Mapping[str, Any]) -> bool:
    """Say whether something was measured in that way."""
    return all(_rounded(record.how.get(key)) == _rounded(value) for key, value in how.items())


def about(records: Iterable[Measurement], record: Measurement, **how: Any) -> Measurement | None:
    """Return the first of `records` that is about the same model, done in that way."""
    model = record.subject.get("model")
    same = (other for other in records if other.subject.get("model") == model)
    return next((other for other in same if done(other, how)), None)


def items(facts: Mapping[str, Any], *names: str) -> list[Mapping[str, Any]]:
    """Return the list of mappings under the first of those names that holds one."""
    for name in names or tuple(facts):
        listed = facts.get(name)
        if isinstance(listed, Iterable) and not isinstance(listed, str | Mapping):
            return [record for record in listed if isinstance(record, Mapping)]
    return []


def epsilon_of(measurement: Measurement) -> float:
    """Return the radius of an attack, or -1 where it has none.

    One that was computed may be off in its last bit: 0.3 / 3 is asked for where 0.1 is meant.
    """
    epsilon = measurement.how.get("epsilon")
    return round(float(epsilon), DIGITS) if isinstance(epsilon, int | float) else -1.0


def _rounded(value: Any) -> Any:
    return round(value, DIGITS) if isinstance(value, float) else value


def value_of(measurement: Measurement) -> float:
    """Return the number of a measurement; of a table of counts their sum."""
    value = measurement.value
    return float(value.n if isinstance(value, Counts) else value.value)
