"""scan: what code, model files and secrets look like to an attacker."""

from __future__ import annotations

import json
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
    from purpleteam.scan import ScanResult

UNREAD = "unread"  # what nobody could read is not clean: its findings are of medium severity


@dataclass(frozen=True, kw_only=True, repr=False)
class Scanned(Result):
    """Findings, and what was not looked at."""

    stage = "scan"

    scanned: ScanResult
    fail_on: str = UNREAD

    @property
    def exit_code(self) -> int:
        """1 on a finding at or above `fail_on`, 2 where the scan is not whole."""
        least = "medium" if self.fail_on == UNREAD else self.fail_on
        if least != "never" and self.scanned.worst(least):
            return 1
        return 2 if self.scanned.errors else 0

    @property
    def problem(self) -> str | None:
        """What to say where the scan is not whole."""
        errors = self.scanned.errors
        return f"the scan is not whole: {errors[0]}" if self.exit_code == 2 else None

    def lines(self) -> list[str]:
        result = self.scanned
        rows = [
            (f.severity, f.rule, f"{f.place.get('path')}:{f.place.get('line', '')}", f.message)
            for f in result.findings
        ]
        errors = [f"error: {error}" for error in result.errors]
        seen, skipped = len(result.scanned), len(result.skipped)
        last = f"{seen} scanned, {skipped} skipped, {len(errors)} errors"
        return [*(table(rows) or ["no finding"]), *errors, last]


@verb()
def scan(
    paths: Annotated[Any, Option(name="PATH...", kind=list[Path], help="Files and folders.")],
    *,
    fail_on: Annotated[
        str,
        "Exit 1 at this severity or worse; unread: at medium, as what could not be read is; "
        "never: do not.",
    ] = UNREAD,
    **given: Unpack[Leaving],
) -> Scanned:
    """Scan code and model files; say what was skipped. --out FILE writes SARIF."""
    from purpleteam.scan.engine import scan as look
    from purpleteam.scan.sarif import to_sarif
    from purpleteam.scan.scanner import severity_at_least
    from purpleteam.verbs.outputs import file_to_write

    if fail_on not in ("never", UNREAD):
        severity_at_least("note", fail_on)  # refuses an unknown severity before the work
    target, run = file_to_write(given["out"]), given["run"]
    asked = [Path(path) for path in (paths if isinstance(paths, list | tuple) else [paths])]
    if not asked:
        raise UsageError("nothing to scan: give a file or a folder")
    here, targets = Path.cwd(), []
    for path in asked:  # below the current folder relative to it, as reviewers' tools expect it
        inside = isinstance(run, RunFolder) and path.is_relative_to(run.path.resolve())
        below = path.is_absolute() and path.is_relative_to(here) and not inside
        targets.append(path.relative_to(here) if below else path)
    result = look(targets)
    sarif = json.dumps(to_sarif(result), indent=2) + "\n"
    if target is not None:
        target.write_text(sarif, encoding="utf-8")
    facts = result.to_json()
    facts |= {"findings": len(result.findings), "paths": [path.name for path in asked]}
    note = Note(name=SCAN, facts=facts)
    records: list[Record] = [*result.findings, note]
    if isinstance(run, RunFolder):
        kept = run.path / "exports" / "scan.sarif"
        kept.write_text(sarif, encoding="utf-8")
        records.append(run.artefact(kept, note.id))
    return Scanned(scanned=result, fail_on=fail_on, values=result.to_json(), records=tuple(records))
