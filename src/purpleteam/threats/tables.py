"""The system as rows: which part holds which threat, what is missing, how many of what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from purpleteam.core.records import Severity, ThreatStatus
from purpleteam.threats.model import SystemModel
from purpleteam.threats.risk import LEVELS, worst
from purpleteam.threats.stride import LETTERS, Cell, Kind, Letter, required_letters

__all__ = [
    "Gaps",
    "MatrixCell",
    "MatrixRow",
    "Summary",
    "matrix",
    "missing",
    "summary",
    "unmodelled",
    "worst_status",
]

STATUSES = ("open", "partly", "accepted", "mitigated", "not_applicable")
"""Worst first."""


@dataclass(frozen=True, kw_only=True)
class MatrixCell:
    """One part and one letter: the threats there, or why there are none."""

    stride: Letter
    required: bool
    threats: tuple[str, ...] = ()
    reason: str = ""
    inherent: Severity | None = None
    residual: Severity | None = None
    status: str = ""


@dataclass(frozen=True, kw_only=True)
class MatrixRow:
    """One part with its six cells."""

    element: str
    name: str
    kind: Kind
    cells: tuple[MatrixCell, ...]


@dataclass(frozen=True, kw_only=True)
class Gaps:
    """What a system leaves unanswered; empty everywhere where nothing is missing."""

    cells: tuple[str, ...] = ()
    """Required STRIDE cells with neither a threat nor a reason, such as `weights/T`."""
    unchecked: tuple[str, ...] = ()
    """Mitigations without a check: plans."""
    unmitigated: tuple[str, ...] = ()
    """Threats that name no mitigation."""
    unknown_checks: tuple[str, ...] = ()
    """Checks that mitigations name and nobody has."""
    untraced: tuple[str, ...] = ()
    """Statements of the earlier reports that nothing here answers."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Counts of a derived list; levels are of threats alone, without not-applicable cells."""

    statuses: dict[str, int] = field(default_factory=dict)
    inherent: dict[str, int] = field(default_factory=dict)
    residual: dict[str, int] = field(default_factory=dict)
    mitigations: dict[str, int] = field(default_factory=dict)
    worst: Severity | None = None
    """The highest level that remains."""


def matrix(system: SystemModel, statuses: Sequence[ThreatStatus] = ()) -> tuple[MatrixRow, ...]:
    """Return the table of parts and letters, with what was derived where it was."""
    found = {one.threat: one for one in statuses}
    return tuple(
        MatrixRow(
            element=part,
            name=system.names[part],
            kind=kind,
            cells=tuple(_cell(system, (part, letter), kind, found) for letter in LETTERS),
        )
        for part, kind in system.kinds.items()
    )


def missing(system: SystemModel, known_checks: Iterable[str] | None = None) -> Gaps:
    """Return what is unanswered; `known_checks` are the ids that can run, where that is known."""
    known = None if known_checks is None else set(known_checks)
    named = sorted({check for one in system.mitigations for check in one.checks.ids})
    traced = {origin for origins in system.origins.values() for origin in origins}
    return Gaps(
        cells=tuple(
            f"{row.element}/{cell.stride}"
            for row in matrix(system)
            for cell in row.cells
            if cell.required and not cell.threats and not cell.reason
        ),
        unchecked=tuple(one.id for one in system.mitigations if not one.checks.ids),
        unmitigated=tuple(one.id for one in system.threats if not one.mitigations),
        unknown_checks=tuple(one for one in named if known is not None and one not in known),
        untraced=tuple(one.id for one in system.seed_items if one.id not in traced),
    )


def summary(statuses: Sequence[ThreatStatus]) -> Summary:
    """Return how many threats are in which state, and how bad what remains is."""
    threats = [one for one in statuses if one.status != "not_applicable"]
    states: dict[str, str] = {
        name: facts["status"] for one in statuses for name, facts in one.mitigations.items()
    }
    counted: Counter[str] = Counter(one.status for one in statuses)
    return Summary(
        statuses={name: counted[name] for name in STATUSES},
        inherent=_levels(one.inherent for one in threats),
        residual=_levels(one.residual for one in threats),
        mitigations={
            name: list(states.values()).count(name) for name in ("verified", "failed", "unverified")
        },
        worst=worst(one.residual for one in threats),
    )


def unmodelled(system: SystemModel, cwes: Iterable[str]) -> tuple[str, ...]:
    """Return the weaknesses that scanners found and no threat names: the model is behind."""
    named = {ref for threat in system.threats for ref in threat.refs.get("cwe", ())}
    return tuple(sorted(set(cwes) - named))


def worst_status(statuses: Iterable[ThreatStatus]) -> str:
    """Return the worst of several states, `open` first; empty where there is none."""
    return min((one.status for one in statuses), key=STATUSES.index, default="")


def _cell(
    system: SystemModel, cell: Cell, kind: Kind, found: dict[str, ThreatStatus]
) -> MatrixCell:
    threats = system.threats_at(cell)
    here = [found[one.id] for one in threats if one.id in found]
    reason = system.reason_at(cell)
    return MatrixCell(
        stride=cell[1],
        required=cell[1] in required_letters(kind),
        threats=tuple(one.id for one in threats),
        reason=reason.reason if reason else "",
        inherent=worst(one.inherent.level for one in threats),
        residual=worst(one.residual for one in here),
        status="not_applicable" if reason else worst_status(here),
    )


def _levels(levels: Iterable[Severity]) -> dict[str, int]:
    counted = Counter(levels)
    return {name: counted[name] for name in LEVELS}
