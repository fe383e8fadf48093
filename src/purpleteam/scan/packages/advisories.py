"""A snapshot of published advisories on the packages that matter: works without a network.

It names what its sources said on its date, and no more: a package that it lists was looked up, one
that it does not list is unknown, and from 90 days on all is (`Snapshot.stale`).
"""

import json
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cache
from importlib import resources

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from purpleteam.core.records import Severity

LASTS = 90
"""Days after which a snapshot proves nothing."""


@dataclass(frozen=True, kw_only=True)
class Advisory:
    """One published hole of one package."""

    id: str
    """As its source calls it: CVE, GHSA, PYSEC."""
    affected: tuple[SpecifierSet, ...]
    """A version within any of them has the hole."""
    fixed: str | None
    """The first version without it; None: not known of any."""
    severity: Severity
    means: str
    """What it lets somebody do."""

    def hits(self, version: str) -> bool:
        return any(one.contains(version, prereleases=True) for one in self.affected)

    def __str__(self) -> str:
        cure = f"fixed in {self.fixed}" if self.fixed else "no fixed version is known"
        return f"{self.id}: {self.means} ({cure})"


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Advisories by package, as of a day."""

    day: date
    packages: dict[str, tuple[Advisory, ...]]
    """By name (PEP 503); an empty tuple: looked up, and nothing found."""
    since: dict[str, str] = field(default_factory=dict)
    """Packages of which something is known from a version on only."""

    @property
    def age(self) -> int:
        """Days since it was taken."""
        return (datetime.now(UTC).date() - self.day).days

    @property
    def stale(self) -> str:
        """Why it proves nothing any more, or an empty text."""
        told = f"the advisories are of {self.day}, {self.age} days old"
        return "" if 0 <= self.age <= LASTS else f"unverified: {told}"

    def knows(self, name: str, version: str) -> bool:
        """Return whether the snapshot can tell of a version."""
        return name in self.packages and Version(version) >= Version(self.since.get(name, "0"))

    def on(self, name: str, version: str) -> list[Advisory]:
        """Return the advisories on one version of a package."""
        return [one for one in self.packages.get(name, ()) if one.hits(version)]


@cache
def snapshot() -> Snapshot:
    """Return the snapshot that came with this version."""
    text = resources.files(__package__).joinpath("advisories.json").read_text(encoding="utf-8")
    data = json.loads(text)
    packages = {
        name: tuple(
            Advisory(
                id=row["id"],
                affected=tuple(SpecifierSet(one) for one in row["affected"]),
                fixed=row["fixed"],
                severity=row["severity"],
                means=row["means"],
            )
            for row in rows
        )
        for name, rows in data["packages"].items()
    }
    packages |= {name: packages[other] for name, other in data["same"].items()}
    day = date.fromisoformat(data["date"])
    return Snapshot(day=day, packages=packages, since=data["since"])
