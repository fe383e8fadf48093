"""scan: what code, model files and secrets look like to an attacker."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Unpack

from purpleteam.core.errors import UsageError
from purpleteam.core.records import Note, Record
from purpleteam.core.runfolder import RunFolder
from purpleteam.core.schema import SCAN
from purpleteam.verbs.options import Leaving
from purpleteam.verbs.result import Result, table
from purpleteam.verbs.verb import Option, verb

if TYPE_CHECKING:
    from purpleteam.scan.against import Comparison
    from purpleteam.scan.scanner import Scanner, ScanResult

UNREAD = "unread"  # what nobody could read is not clean: its findings are of medium severity
COUNTED = ("scanned", "skipped", "silenced", "errors")
WORDS = {"not_fixed": "old (not fixed)", "not_scanned": "not scanned"}


@dataclass(frozen=True, kw_only=True, repr=False)
class Scanned(Result):
    """Findings, and what was not looked at."""

    stage = "scan"

    scanned: ScanResult
    comparison: Comparison | None = None
    """What became of the findings of an older scan, where there was one."""
    fail_on: str = UNREAD
    only_new: bool = False

    @property
    def exit_code(self) -> int:
        """1 on a finding (with `only_new`, a new one) at or above `fail_on`, 2 on half a scan."""
        least = "medium" if self.fail_on == UNREAD else self.fail_on
        worst = () if least == "never" else self.scanned.worst(least)
        if self.only_new and self.comparison is not None:
            worst = tuple(f for f in worst if self.comparison.states[f.id] == "new")
        if worst:
            return 1
        return 2 if self.scanned.errors else 0

    @property
    def problem(self) -> str | None:
        """What to say where the scan is not whole."""
        errors = self.scanned.errors
        return f"the scan is not whole: {errors[0]}" if self.exit_code == 2 else None

    def lines(self) -> list[str]:
        from purpleteam.scan.sarif import printable

        result = self.scanned
        rows = [(f.severity, f.rule, _spot(f.place), f.message) for f in result.findings]
        shown = [tuple(map(printable, row)) for row in rows]
        errors = [f"error: {printable(error)}" for error in result.errors]
        last = ", ".join(f"{len(getattr(result, name))} {name}" for name in COUNTED)
        since = self._since()
        last += f"; against the baseline: {since.pop()}" if since else ""
        return [*(table(shown) or ["no finding"]), *since, *errors, last]

    def _since(self) -> list[str]:
        """Return what became of the findings of the baseline, and how many of each."""
        from purpleteam.scan.sarif import printable

        if self.comparison is None:
            return []
        lists = self.comparison.lists().items()
        words = {name: WORDS.get(name, name) for name, _ in lists}
        rows = [
            (words[name], row.rule, printable(_spot(row.to_json())))
            for name, listed in lists
            for row in listed
        ]
        return [*table(rows), ", ".join(f"{len(listed)} {words[name]}" for name, listed in lists)]


def _spot(place: Mapping[str, Any]) -> str:
    """Return a place as file:line, or file:cell:line of a notebook."""
    cell = f"cell {place['cell']}:" if "cell" in place else ""
    return f"{place.get('path')}:{cell}{place.get('line', '')}"


@verb()
def scan(
    paths: Annotated[Any, Option(name="PATH...", kind=list[Path], help="Files and folders.")],
    *,
    fail_on: Annotated[
        str,
        "Exit 1 at this severity or worse; unread: at medium, as what could not be read is; "
        "never: do not.",
    ] = UNREAD,
    sarif: Annotated[Path | str | None, "Write SARIF 2.1.0 here too."] = None,
    against: Annotated[
        Path | str | None, "SARIF of an older scan: say what is fixed, not fixed, silenced, new."
    ] = None,
    semgrep: Annotated[
        str | None, "Run Semgrep too, by this name or path, over the same rules; no network."
    ] = None,
    second_opinion: Annotated[
        bool, "Ask picklescan and hayward too; what they call bad and we do not is a finding."
    ] = False,
    only_new: Annotated[bool, "With --against: only what is new decides the exit code."] = False,
    audit: Annotated[
        bool, "Ask the index for holes of every pinned version too (pip-audit, network)."
    ] = False,
    no_inline_allow: Annotated[bool, "Let no comment in a file silence a finding."] = False,
    **given: Unpack[Leaving],
) -> Scanned:
    """Scan code and model files; say what was skipped. --out FILE writes SARIF."""
    from purpleteam.scan.against import compare, read_baseline
    from purpleteam.scan.engine import scan as look
    from purpleteam.scan.sarif import to_sarif
    from purpleteam.scan.scanner import SCANNERS, severity_at_least
    from purpleteam.verbs.outputs import file_to_write

    if only_new and against is None:
        raise UsageError("--only-new needs what is old: add --against BASELINE.sarif")
    if fail_on not in ("never", UNREAD):
        severity_at_least("note", fail_on)  # refuses an unknown severity before the work
    files = [path for path in map(file_to_write, (given["out"], sarif)) if path is not None]
    run, baseline = given["run"], None if against is None else read_baseline(Path(against))
    asked = [Path(path) for path in (paths if isinstance(paths, list | tuple) else [paths])]
    if not asked:
        raise UsageError("nothing to scan: give a file or a folder")
    here, targets = Path.cwd(), []
    for path in asked:  # below the current folder relative to it, as reviewers' tools expect it
        whole = Path(os.path.normpath(here / path))
        inside = isinstance(run, RunFolder) and path.is_relative_to(run.path.resolve())
        below = whole.is_relative_to(here) and not inside
        targets.append(whole.relative_to(here) if below else path)
    if isinstance(run, RunFolder):
        from purpleteam.report.render import templates

        templates()  # while other processes look at code
    engines: list[str | Scanner] = [*SCANNERS]
    if semgrep is not None:
        from purpleteam.scan.semgrep import semgrep as second_engine

        engines.append(second_engine(semgrep))
    if audit:
        from purpleteam.scan.packages.audit import audit as pip_audit

        engines.append(pip_audit)
    if second_opinion:
        from purpleteam.scan.second_opinion import second_opinion as others

        engines.append(others())
    result = look(targets, engines, inline_allow=not no_inline_allow)
    since = None if baseline is None else compare(baseline, result)
    names = [path.name for path in targets]
    states = None if since is None else since.states
    log = json.dumps(to_sarif(result, names, states), indent=2) + "\n"
    for target in files:
        target.write_text(log, encoding="utf-8")
    values = result.to_json()
    facts = {"findings": len(result.findings), "paths": [path.name for path in asked]}
    note = Note(name=SCAN, facts=values | facts)
    records: list[Record] = [*result.findings, note]
    if isinstance(run, RunFolder):
        kept = run.path / "exports" / "scan.sarif"
        kept.write_text(log, encoding="utf-8")
        records.append(run.artefact(kept, note.id))
    if since is not None:
        lists = since.lists().items()
        values["against"] = {name: [row.to_json() for row in listed] for name, listed in lists}
    return Scanned(
        scanned=result,
        comparison=since,
        fail_on=fail_on,
        only_new=only_new,
        values=values,
        records=tuple(records),
    )
