"""Two earlier reports in their own layouts, with what they said beside what is derived here.

Report A marks a table of elements and STRIDE letters; report B gives a level, threats and
mitigations for each letter, and rates likelihood and impact in an appendix. Each statement leads
to the threats that name it as their origin, and so to their status.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from purpleteam.core.records import Severity, ThreatStatus
from purpleteam.threats.model import SeedItem, SystemModel
from purpleteam.threats.risk import level, worst
from purpleteam.threats.stride import LETTERS, STRIDE, Letter
from purpleteam.threats.tables import worst_status

__all__ = [
    "CategoryRow",
    "RiskRow",
    "SeedLine",
    "SeedRow",
    "seed_a_matrix",
    "seed_b_appendix",
    "seed_b_categories",
    "seed_lines",
]


@dataclass(frozen=True, kw_only=True)
class SeedLine:
    """One statement of a report beside ours."""

    id: str
    kind: str
    stride: Letter | None
    says: str
    said_level: str
    answer: str
    note: str
    ours: tuple[str, ...]
    """Our threats, mitigations, parts or reasons that answer it."""
    inherent: Severity | None
    residual: Severity | None
    status: str
    """The worst state of those threats; of a mitigation, whether it is verified."""


@dataclass(frozen=True, kw_only=True)
class SeedRow:
    """One element of report A with a statement for each of the six letters."""

    element: str
    cells: tuple[SeedLine, ...]


@dataclass(frozen=True, kw_only=True)
class CategoryRow:
    """One letter of report B: its levels, threats and mitigations, beside ours."""

    stride: Letter
    name: str
    table: str
    analysis: str
    threats: tuple[SeedLine, ...]
    mitigations: tuple[SeedLine, ...]
    inherent: Severity | None
    residual: Severity | None
    states: dict[str, int]
    """How many of our threats for it are in which state."""


@dataclass(frozen=True, kw_only=True)
class RiskRow:
    """One line of report B's appendix, and the level that its own two ratings give."""

    stride: Letter
    name: str
    likelihood: str
    impact: str
    said: str
    computed: Severity
    agrees: bool
    inherent: Severity | None
    residual: Severity | None


def seed_lines(
    system: SystemModel, seed: str, statuses: Sequence[ThreatStatus] = ()
) -> tuple[SeedLine, ...]:
    """Return every statement of report `A` or `B` beside ours, in the order of the file."""
    return tuple(_line(system, one, statuses) for one in system.seed_items if one.seed == seed)


def seed_a_matrix(
    system: SystemModel, statuses: Sequence[ThreatStatus] = ()
) -> tuple[SeedRow, ...]:
    """Return report A's table: its elements down, the six letters across."""
    cells = [one for one in system.seed_items if one.seed == "A" and one.element and one.stride]
    elements = dict.fromkeys(one.element for one in cells)
    return tuple(
        SeedRow(
            element=element,
            cells=tuple(
                _line(system, one, statuses)
                for letter in LETTERS
                for one in cells
                if (one.element, one.stride) == (element, letter)
            ),
        )
        for element in elements
    )


def seed_b_categories(
    system: SystemModel, statuses: Sequence[ThreatStatus] = ()
) -> tuple[CategoryRow, ...]:
    """Return report B's first table: a row for each letter."""
    lines = seed_lines(system, "B", statuses)
    rows = []
    for said in system.seed_levels:
        threats = tuple(one for one in lines if (one.kind, one.stride) == ("threat", said.stride))
        names = dict.fromkeys(name for one in threats for name in one.ours)
        rows.append(
            CategoryRow(
                stride=said.stride,
                name=STRIDE[said.stride],
                table=said.table,
                analysis=said.analysis,
                threats=threats,
                mitigations=tuple(
                    one for one in lines if (one.kind, one.stride) == ("mitigation", said.stride)
                ),
                inherent=worst(one.inherent for one in threats if one.inherent),
                residual=worst(one.residual for one in threats if one.residual),
                states=dict(Counter(one.status for one in statuses if one.threat in names)),
            )
        )
    return tuple(rows)


def seed_b_appendix(
    system: SystemModel, statuses: Sequence[ThreatStatus] = ()
) -> tuple[RiskRow, ...]:
    """Return report B's appendix, each level beside the one that the matrix gives."""
    ours = {one.stride: one for one in seed_b_categories(system, statuses)}
    rows = []
    for said in system.seed_levels:
        computed = level(said.likelihood, said.impact)
        rows.append(
            RiskRow(
                stride=said.stride,
                name=STRIDE[said.stride],
                likelihood=said.likelihood,
                impact=said.impact,
                said=said.appendix,
                computed=computed,
                agrees=said.appendix.lower() == computed,
                inherent=ours[said.stride].inherent,
                residual=ours[said.stride].residual,
            )
        )
    return tuple(rows)


def _line(system: SystemModel, item: SeedItem, statuses: Iterable[ThreatStatus]) -> SeedLine:
    ours = tuple(name for name, origins in system.origins.items() if item.id in origins)
    threats = [one for one in system.threats if one.id in ours]
    here = [one for one in statuses if item.id in one.origin]
    states = _mitigation_states(ours, statuses)
    return SeedLine(
        id=item.id,
        kind=item.kind,
        stride=item.stride,
        says=item.says,
        said_level=item.level,
        answer=item.answer,
        note=item.note,
        ours=ours,
        inherent=worst(one.inherent.level for one in threats),
        residual=worst(one.residual for one in here if one.status != "not_applicable"),
        status=worst_status(here) or states,
    )


def _mitigation_states(ours: Iterable[str], statuses: Iterable[ThreatStatus]) -> str:
    """Return `verified` only where every mitigation that answers the statement is."""
    found = {
        facts["status"]
        for one in statuses
        for name, facts in one.mitigations.items()
        if name in ours
    }
    return next((state for state in ("failed", "unverified", "verified") if state in found), "")
