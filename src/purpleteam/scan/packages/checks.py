"""The executed checks of installed packages: those that this Python would import."""

from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import ClassVar

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from purpleteam.core.checks import CHECKS, Check, Outcome, Target
from purpleteam.core.digest import canonical_json, sha256_bytes
from purpleteam.core.errors import Absent
from purpleteam.scan.packages.advisories import snapshot

NOT_REACHED = {"CVE-2026-136426": "nothing of Purpleteam loads a pt2 archive"}
"""Holes that our code does not reach, and why; it is said with every result (as in a VEX)."""
DEVELOPING = "dev"


def required(folders: Sequence[str], *, extras: frozenset[str] | None = None) -> dict[str, str]:
    """Return the installed packages that Purpleteam needs, and what these need: name to version.

    Args:
        folders: where they are installed, as `sys.path` has them.
        extras: only what these add to Purpleteam alone; by default all but those of developers.
    """
    listed = reversed([*metadata.distributions(path=[*folders])])  # the first is imported
    found: dict[str, metadata.Distribution] = {canonicalize_name(one.name): one for one in listed}
    own = found.get("purpleteam")
    offered = set(own.metadata.get_all("Provides-Extra") or ()) - {DEVELOPING} if own else set()
    waiting = [("purpleteam", frozenset(extras if extras is not None else {"", *offered}))]
    needed: dict[str, str] = {}
    done = set()
    while waiting:
        name, wanted = waiting.pop()
        if name not in found or (name, wanted) in done:
            continue
        done.add((name, wanted))
        if name != "purpleteam":
            needed[name] = found[name].version
        only = name == "purpleteam" and extras is not None
        for text in found[name].requires or ():
            one = Requirement(text)
            marker = one.marker
            if only and (marker is None or marker.evaluate({"extra": ""})):
                continue  # what is needed without the extras too
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in wanted):
                waiting.append((canonicalize_name(one.name), frozenset({"", *one.extras})))
    return dict(sorted(needed.items()))


class PublishedHoles(Check):
    """Installed packages, compared with the snapshot of advisories; unverified is no pass."""

    needs = ("packages",)
    extras: ClassVar[frozenset[str] | None] = None

    def examine(self, target: Target) -> Outcome:
        known, versions = snapshot(), required(target.packages or (), extras=self.extras)
        unknown = [name for name, version in versions.items() if not known.knows(name, version)]
        holes: list[str] = []
        apart: list[str] = []  # that our code does not reach
        for name, version in versions.items():
            for one in known.on(name, version):
                (apart if one.id in NOT_REACHED else holes).append(f"{name} {version}: {one}")
        if not holes and (known.stale or unknown or not versions):
            raise Absent(known.stale or f"unverified: no word on {', '.join(unknown) or 'any'}")
        shown = holes + [
            f"not reached ({NOT_REACHED[row.split()[2][:-1]]}): {row}" for row in apart
        ]
        return Outcome(
            passed=not holes,
            measured={"packages": len(versions), "holes": len(holes), "not_reached": len(apart)}
            | {"unknown": len(unknown), "advisories_of": str(known.day), "days_old": known.age},
            threshold={"holes": 0, "unknown": 0},
            message="; ".join(shown[:5]),
            inputs={"installed packages": sha256_bytes(canonical_json(versions).encode())},
        )

    def bad_example(self, folder: Path) -> Target:
        needs = {"Requires-Dist": "jinja2; extra == 'serve'", "Provides-Extra": "serve"}
        for name, version, more in (("purpleteam", "0", needs), ("jinja2", "2.10", {})):
            _describe(folder, name, version, more)
        return Target(packages=(str(folder),))


def _describe(folder: Path, name: str, version: str, more: Mapping[str, str]) -> None:
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    rows = {"Metadata-Version": "2.1", "Name": name, "Version": version, **more}
    text = "".join(f"{key}: {value}\n" for key, value in rows.items())
    (info / "METADATA").write_text(text, encoding="utf-8")


@CHECKS.register("packages.served")
class Served(PublishedHoles):
    """No package that the app answers with has a hole of those that were published."""

    extras = frozenset({"serve"})


@CHECKS.register("packages.advisories")
class Advisories(PublishedHoles):
    """No package that Purpleteam runs on has a hole of those that were published."""
