"""A system as data: its parts, what can go wrong with each, and what is done about it.

zones          what trusts each other; a flow between two zones crosses a trust boundary
elements       external parties, processes and stores;  flows: what moves between them
threats        one (part, STRIDE letter) each, with likelihood, impact and mitigations
mitigations    a sentence, what it takes off the risk, and the checks that prove it
not_applicable cells with the reason why nothing can go wrong there
accepted       threats that somebody lives with, until a date
seed_items     what two earlier reports said, in our words, for `origin` to point at
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import Literal

from purpleteam.threats.risk import Effect, Rating, Risk
from purpleteam.threats.stride import Cell, Kind, Letter

__all__ = [
    "Acceptance",
    "Checks",
    "Element",
    "Flow",
    "Mitigation",
    "NotApplicable",
    "SeedItem",
    "SeedLevel",
    "SystemModel",
    "Threat",
    "Zone",
]


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
    origin: tuple[str, ...] = ()
    at: tuple[int, int] | None = None
    """Column and row in the diagram; without it the element goes below its zone's others."""


@dataclass(frozen=True, kw_only=True)
class Flow:
    """Something that moves from one element to another."""

    id: str
    name: str
    source: str
    target: str
    description: str
    origin: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Threat:
    """What can go wrong with one part in one way."""

    id: str
    element: str
    """Id of an element or of a flow."""
    stride: Letter
    title: str
    description: str
    inherent: Risk
    mitigations: tuple[str, ...] = ()
    origin: tuple[str, ...] = ()
    """Seed items that say, or deny, the same."""
    refs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Ids in public catalogues: `atlas`, `cwe`, `owasp_ml`, `nist`."""


@dataclass(frozen=True, kw_only=True)
class Checks:
    """Ids of executed checks: `all` of them must pass, or `any` one. None at all proves nothing."""

    all: tuple[str, ...] = ()
    any: tuple[str, ...] = ()

    @property
    def ids(self) -> tuple[str, ...]:
        """Every check that is named."""
        return (*self.all, *self.any)


@dataclass(frozen=True, kw_only=True)
class Mitigation:
    """What is done about threats; it counts only while its checks pass."""

    id: str
    statement: str
    effect: Effect
    why: str
    """Why it takes that much off, or what stands in the way of a check."""
    checks: Checks
    origin: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class NotApplicable:
    """STRIDE cells of one part where nothing can go wrong, and why."""

    element: str
    stride: tuple[Letter, ...]
    reason: str
    origin: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """A threat that somebody decided to live with; void after `until`."""

    threat: str
    reason: str
    by: str
    until: date


@dataclass(frozen=True, kw_only=True)
class SeedItem:
    """One statement of an earlier report, in our words."""

    id: str
    seed: Literal["A", "B"]
    kind: Literal["part", "interaction", "threat", "denied", "blank", "mitigation", "finding"]
    """`denied`: the report says there is no such threat; `blank`: it says nothing there."""
    says: str
    element: str = ""
    """The part as that report calls it."""
    stride: Letter | None = None
    level: str = ""
    """The level that the report states."""
    answer: str = ""
    """The mitigation that the report claims."""
    note: str = ""
    """What we make of it, where the two do not agree."""


@dataclass(frozen=True, kw_only=True)
class SeedLevel:
    """The three places where seed B rates a STRIDE category."""

    stride: Letter
    table: str
    analysis: str
    likelihood: Rating
    impact: Rating
    appendix: str


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
    seed_items: tuple[SeedItem, ...] = ()
    seed_levels: tuple[SeedLevel, ...] = ()
    catalogue: Mapping[str, str] = field(default_factory=dict)
    """Names of the public ids that threats refer to."""

    @property
    def parts(self) -> tuple[Element | Flow, ...]:
        """All that can hold a threat: elements, then flows."""
        return (*self.elements, *self.flows)

    @cached_property
    def kinds(self) -> dict[str, Kind]:
        """The kind of every part, elements first, in the order of the file."""
        kinds: dict[str, Kind] = {one.id: one.kind for one in self.elements}
        return kinds | {one.id: "flow" for one in self.flows}

    @cached_property
    def names(self) -> dict[str, str]:
        """The name of every part."""
        return {one.id: one.name for one in self.parts}

    @cached_property
    def mitigation(self) -> dict[str, Mitigation]:
        """Every mitigation by its id."""
        return {one.id: one for one in self.mitigations}

    @cached_property
    def origins(self) -> dict[str, tuple[str, ...]]:
        """What each part, threat, mitigation and reason says that it comes from."""
        named: tuple[Element | Flow | Threat | Mitigation, ...]
        named = (*self.parts, *self.threats, *self.mitigations)
        found = {one.id: one.origin for one in named}
        for reason in self.not_applicable:
            found[f"{reason.element}/{''.join(reason.stride)}"] = reason.origin
        return found

    def threats_at(self, cell: Cell) -> tuple[Threat, ...]:
        """Return the threats in a cell."""
        return tuple(one for one in self.threats if (one.element, one.stride) == cell)

    def reason_at(self, cell: Cell) -> NotApplicable | None:
        """Return the reason why nothing can go wrong in a cell, where one is given."""
        element, letter = cell
        reasons = (one for one in self.not_applicable if one.element == element)
        return next((one for one in reasons if letter in one.stride), None)

    def crosses(self, flow: Flow) -> tuple[str, str] | None:
        """Return the two zones between which a flow crosses a trust boundary."""
        zone = {one.id: one.zone for one in self.elements}
        ends = zone[flow.source], zone[flow.target]
        return None if ends[0] == ends[1] else ends
