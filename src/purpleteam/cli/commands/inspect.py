"""scan and threats: what the code, the files and the whole system look like to an attacker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from purpleteam.cli.options import Debug, Json, Out
from purpleteam.cli.screen import answer, table

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
    debug: Debug = False,
) -> None:
    """Scan code and model files; say what was skipped. --out FILE writes SARIF."""
    from purpleteam.scan import scan as look
    from purpleteam.scan import severity_at_least, to_sarif

    if fail_on != "never":
        severity_at_least("note", fail_on)  # refuses an unknown severity before the work
    found = look(paths)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
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
        raise typer.Exit(2)


def threats(
    model: Annotated[
        Path | None, typer.Option("--model", help="A model file, or a folder of them.")
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
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run every check with its negative control, and derive the status of each threat."""
    from dataclasses import asdict
    from datetime import date

    from purpleteam.core.checks import CHECKS
    from purpleteam.pipeline.checks import load_checks
    from purpleteam.threats import derive, load_system, summary, verdicts
    from purpleteam.threats import missing as gaps_of

    load_checks()
    system = load_system()
    if missing:
        gaps = asdict(gaps_of(system, known_checks=CHECKS))
        lines = [f"{key}: {', '.join(map(str, value)) or 'none'}" for key, value in gaps.items()]
        answer({"missing": gaps}, lines, as_json=as_json)
        return
    results = _run_checks(model, run, url, code, data)
    statuses = derive(system, verdicts(results), date.today())
    values = {
        "threats": [_threat(one) for one in statuses],
        "checks": [one.to_json() for one in results],
        "summary": asdict(summary(statuses)),
    }
    rows = [(one.verdict, one.check, one.message or one.proves) for one in results]
    rows += [
        (one.status, one.threat, one.title) for one in statuses if one.status != "not_applicable"
    ]
    answer(values, table(rows), as_json=as_json)
    if any(one.verdict in ("fail", "error", "broken") for one in results):
        raise typer.Exit(1)


def _run_checks(
    model: Path | None, run: Path | None, url: str | None, code: Path | None, data: Path | None
) -> list[Any]:
    from importlib import resources

    from purpleteam.core.checks import CHECKS, Target, run_check
    from purpleteam.core.errors import UsageError
    from purpleteam.core.runfolder import RunFolder

    for name, path in (("--model", model), ("--code", code), ("--data", data)):
        if path is not None and not path.exists():
            raise UsageError(f"{name} {str(path)!r} does not exist")
    if run is not None:
        RunFolder.open(run)
        model = model or run / "models"
    target = Target(
        code=code or Path(str(resources.files("purpleteam"))),
        data=data,
        model=model,
        url=url,
        served_digest=_served_digest(model, run),
        run=run,
    )
    return [run_check(CHECKS[name](), target) for name in CHECKS]


def _served_digest(model: Path | None, run: Path | None) -> str | None:
    """Return the digest that the app must report: the named model's, or that of the run."""
    from purpleteam.core.cards import find_stored
    from purpleteam.core.runfolder import RunFolder

    if run is not None:
        served = RunFolder.open(run).info["asked"].get("models", {}).get("served")
        return find_stored(served).card.digest if served else None
    return find_stored(str(model)).card.digest if model is not None and model.is_file() else None


def _threat(one: Any) -> dict[str, Any]:
    fields = one.to_json()
    return {"record": fields.pop("id"), **fields, "id": one.threat}
