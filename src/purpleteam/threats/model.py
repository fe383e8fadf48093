"""A system as data: its parts, what can go wrong with each, and what is done about it.

STRIDE per element (Shostack 2014) names six ways to go wrong, and the kind of a part says which
of them must be answered. A risk is rated by the OWASP matrix, from low times low, a note, to high
times high, critical; no level is ever typed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import ClassVar, Literal, get_args

from purpleteam.core.records import Severity
from purpleteam.core.schema import Letter

Kind = Literal["external", "process", "store", "flow"]
Rating = Literal["low", "medium", "high"]
Cell = tuple[str, Letter]  # A part's id and a letter, written `weights/T`

LETTERS: tuple[Letter, ...] = get_args(Letter)
REQUIRED: dict[Kind, tuple[Letter, ...]] = {
    "external": ("S", "R"),
    "process": LETTERS,
    "store": ("T", "R", "I", "D"),
    "flow": ("T", "I", "D"),
}
"""The letters that a part of each kind must answer, by a threat or by a reason for none."""
RATINGS: tuple[Rating, ...] = get_args(Rating)
LEVELS: tuple[Severity, ...] = get_args(Severity)

_Data = Literal["data", "download", "public-data", "private-data", "training"]
_Model = Literal["model", "brought", "public-model", "private-model", "run", "code", "served"]
Condition = Literal[_Data, _Model]
"""What can be there; the head of system.yaml says what each word means."""
_Models = Literal["model", "hardened", "files", "deployed"]
Subject = Literal["data", "pinned", "training", _Models, "code", "package"]
SUBJECTS: dict[Subject, str] = {
    "data": "the images in the folder that they came from",
    "pinned": "images whose digests the source code pins",
    "training": "the training images",
    "model": "the model under test",
    "hardened": "a hardened model",
    "files": "all model files in use",
    "deployed": "the model in use",
    "code": "the scanned code",
    "package": "Purpleteam's own code",
}
"""What a check can have looked at, each a set of digests."""


def level(likelihood: Rating, impact: Rating) -> Severity:
    """Return the level that the matrix gives."""
    return LEVELS[RATINGS.index(likelihood) + RATINGS.index(impact)]


def worst(levels: Iterable[Severity]) -> Severity | None:
    """Return the highest of the levels; None where there is none."""
    return max(levels, key=LEVELS.index, default=None)


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What a mitigation takes off, in steps of a rating, once it is verified."""

    likelihood: Literal[-1, 0] = 0
    impact: Literal[-1, 0] = 0


@dataclass(frozen=True, kw_only=True)
class Risk:
    """How likely a threat is and how bad, with the reason."""

    likelihood: Rating
    impact: Rating
    why: str

    @property
    def level(self) -> Severity:
        return level(self.likelihood, self.impact)

    def after(self, effects: Iterable[Effect]) -> Severity:
        """Return the level that remains; no rating falls below low."""
        likelihood, impact = RATINGS.index(self.likelihood), RATINGS.index(self.impact)
        for effect in effects:
            likelihood += effect.likelihood
            impact += effect.impact
        return LEVELS[max(0, likelihood) + max(0, impact)]


@dataclass(frozen=True, kw_only=True)
class Zone:
    """A part of the world that trusts itself; its edge is a trust boundary."""

    id: str
    name: str
    description: str


@dataclass(frozen=True, kw_only=True)
class Element:
    """An external party, a process or a store."""

    id: str
    kind: Literal["external", "process", "store"]
    name: str
    zone: str
    description: str
    when: tuple[Condition, ...] = ()
    """It is there where one of these is; always, where none is named."""
    at: tuple[int, int] | None = None
    """Column and row in the diagram; without it the element goes below its zone's others."""


@dataclass(frozen=True, kw_only=True)
class Flow:
    """Something that moves from one element to another; it is there where both are."""

    id: str
    name: str
    source: str
    target: str
    description: str
    when: tuple[Condition, ...] = ()
    kind: ClassVar[Kind] = "flow"


@dataclass(frozen=True, kw_only=True)
class Threat:
    """What can go wrong with one part in one way."""

    id: str
    element: str  # id of an element or of a flow
    stride: Letter
    title: str
    description: str
    inherent: Risk
    mitigations: tuple[str, ...] = ()
    when: tuple[Condition, ...] = ()
    refs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Ids in public catalogues: `atlas`, `cwe`, `owasp_ml`, `nist`."""


@dataclass(frozen=True, kw_only=True)
class Checks:
    """Ids of executed checks: `all` of them must pass, or `any` one. None at all proves nothing."""

    all: tuple[str, ...] = ()
    any: tuple[str, ...] = ()

    @property
    def ids(self) -> tuple[str, ...]:
        return (*self.all, *self.any)


@dataclass(frozen=True, kw_only=True)
class Mitigation:
    """What is done about threats; it counts only while its checks pass."""

    id: str
    statement: str
    effect: Effect
    why: str  # why it takes that much off, or what stands in the way of a check
    checks: Checks
    about: tuple[Subject, ...] = ()
    """What its checks must have looked at: every digest of each must be among their inputs."""


@dataclass(frozen=True, kw_only=True)
class NotApplicable:
    """STRIDE cells of one part where nothing can go wrong, and why."""

    element: str
    stride: tuple[Letter, ...]
    reason: str
    when: tuple[Condition, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """A threat that somebody decided to live with; void after `until`."""

    threat: str
    reason: str
    by: str
    until: date
    when: tuple[Condition, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SystemModel:
    """A whole system; `load_system` reads and checks one."""

    name: str
    description: str
    zones: tuple[Zone, ...]
    elements: tuple[Element, ...]
    flows: tuple[Flow, ...]
    threats: tuple[Threat, ...]
    mitigations: tuple[Mitigation, ...]
    not_applicable: tuple[NotApplicable, ...] = ()
    accepted: tuple[Acceptance, ...] = ()
    catalogue: Mapping[str, str] = field(default_factory=dict)
    """Names of the public ids that threats refer to."""

    @property
    def parts(self) -> tuple[Element | Flow, ...]:
        return (*self.elements, *self.flows)

    @cached_property
    def kinds(self) -> dict[str, Kind]:
        return {part.id: part.kind for part in self.parts}

    @cached_property
    def names(self) -> dict[str, str]:
        return {part.id: part.name for part in self.parts}

    @cached_property
    def mitigation(self) -> dict[str, Mitigation]:
        return {mitigation.id: mitigation for mitigation in self.mitigations}

    def threats_at(self, cell: Cell) -> tuple[Threat, ...]:
        return tuple(threat for threat in self.threats if (threat.element, threat.stride) == cell)

    def crosses(self, flow: Flow) -> tuple[str, str] | None:
        """Return the two zones between which a flow crosses a trust boundary."""
        zone = {element.id: element.zone for element in self.elements}
        ends = zone[flow.source], zone[flow.target]
        return None if ends[0] == ends[1] else ends
