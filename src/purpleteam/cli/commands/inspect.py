"""scan and threats: what the code, the files and the whole system look like to an attacker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from purpleteam.cli.options import Debug, Json, Out, Quiet
from purpleteam.cli.outputs import file_to_write
from purpleteam.cli.screen import answer, progress, table, write_answer
from purpleteam.core.errors import PurpleError, UsageError

if TYPE_CHECKING:
    from purpleteam.core.checks import Target
    from purpleteam.core.progress import Progress
    from purpleteam.core.records import CheckResult

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command()(scan)
    app.command()(threats)


def scan(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...")],
    fail_on: Annotated[
        str, typer.Option("--fail-on", help="Exit 1 at this severity or worse; never: do not.")
    ] = "medium",
    out: Out = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Scan code and model files; say what was skipped. --out FILE writes SARIF."""
    from purpleteam.scan import scan as look
    from purpleteam.scan import severity_at_least, to_sarif

    if fail_on != "never":
        severity_at_least("note", fail_on)  # refuses an unknown severity before the work
    out = file_to_write(out)
    found = look([_from_here(path) for path in paths])
    if out is not None:
        out.write_text(json.dumps(to_sarif(found), indent=2) + "\n", encoding="utf-8")
    rows = [
        (
            one.severity,
            one.rule,
            f"{one.place.get('path')}:{one.place.get('line', '')}",
            one.message,
        )
        for one in found.findings
    ]
    lines = table(rows) if rows else ["no finding"]
    lines += [f"error: {error}" for error in found.errors]
    counts = (
        f"{len(found.scanned)} scanned, {len(found.skipped)} skipped, {len(found.errors)} errors"
    )
    answer(found.to_json(), [*lines, counts], as_json=as_json)
    if fail_on != "never" and found.worst(fail_on):
        raise typer.Exit(1)
    if found.errors:
        raise PurpleError(f"the scan is not whole: {found.errors[0]}")


def _from_here(path: Path) -> Path:
    """Return a path below the current folder relative to it, as reviewers' tools expect it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_absolute() and path.is_relative_to(here) else path


def threats(
    model: Annotated[
        str | None, typer.Option("--model", help="A model, a file, or a folder of them.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option("--run", help="A run folder: its records and files.")
    ] = None,
    url: Annotated[str | None, typer.Option("--url", help="A running app on this machine.")] = None,
    code: Annotated[
        Path | None, typer.Option("--code", help="Source code; the package itself by default.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder of the four IDX files.")
    ] = None,
    missing: Annotated[
        bool, typer.Option("--missing", help="Only what no threat, mitigation or check covers.")
    ] = False,
    out: Out = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Run every check with its negative control, and derive the status of each threat."""
    from dataclasses import asdict
    from datetime import date

    from purpleteam.core.checks import CHECKS
    from purpleteam.pipeline.checks import load_checks
    from purpleteam.threats import derive, load_system, summary
    from purpleteam.threats import missing as gaps_of

    out = file_to_write(out)
    load_checks()
    system = load_system()
    if missing:
        gaps = asdict(gaps_of(system, known_checks=CHECKS))
        lines = [f"{key}: {', '.join(map(str, value)) or 'none'}" for key, value in gaps.items()]
        answer({"missing": gaps}, lines, as_json=as_json)
        return
    with progress(quiet or as_json) as bar:
        results = _run_checks(_target(model, run, url, code, data), bar)
    statuses = derive(system, results, date.today())
    values = {
        "threats": [_threat(one) for one in statuses],
        "checks": [one.to_json() for one in results],
        "summary": asdict(summary(statuses)),
    }
    if out is not None:
        write_answer(out, values)
    rows: list[tuple[str, str, str]] = [
        (one.verdict, one.check, one.message or one.proves) for one in results
    ]
    rows += [
        (one.status, one.threat, one.title) for one in statuses if one.status != "not_applicable"
    ]
    answer(values, table(rows), as_json=as_json)
    if any(one.verdict in ("fail", "error", "broken") for one in results):
        raise typer.Exit(1)


def _target(
    model: str | None, run: Path | None, url: str | None, code: Path | None, data: Path | None
) -> Target:
    """Return what the checks look at; what is not there is refused before they run."""
    from importlib import resources

    from purpleteam.core.checks import Target
    from purpleteam.core.runfolder import RunFolder

    for name, path in (("--code", code), ("--data", data)):
        if path is not None and not path.exists():
            raise UsageError(f"{name} {str(path)!r} does not exist")
    weights = None if model is None else _model_files(model)
    if run is not None:
        RunFolder.open(run)
        weights = weights or run / "models"
    if url is not None:
        _reach(url)
    code = code or Path(str(resources.files("purpleteam")))
    return Target(code=code, data=data, model=weights, url=url, run=run)


def _model_files(model: str) -> Path:
    from purpleteam.core.cards import find_stored

    path = Path(model)
    return path if model and path.exists() else find_stored(model).weights


def _reach(url: str) -> None:
    """Refuse an address at which nothing answers: its checks would only say so one by one."""
    import socket
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        place = (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
    except ValueError as error:
        raise UsageError(f"--url {url!r} is no address: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"--url {url!r} is no address such as http://127.0.0.1:8000")
    try:
        socket.create_connection(place, timeout=5).close()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"--url {url!r} does not answer: {reason}") from None


def _run_checks(target: Target, bar: Progress) -> list[CheckResult]:
    from purpleteam.core.checks import CHECKS, run_check

    results = []
    with bar.task("checks", len(CHECKS)) as task:
        for name in CHECKS:
            results.append(run_check(CHECKS[name](), target))
            task.advance()
    return results


def _threat(one: Any) -> dict[str, Any]:
    fields = one.to_json()
    return {"record": fields.pop("id"), **fields, "id": one.threat}
