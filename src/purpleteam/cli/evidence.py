"""report, replay, verify: what a run left is shown, measured again, and looked at for damage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from purpleteam.cli.options import Debug, Json, Quiet, Seed
from purpleteam.cli.screen import answer, progress
from purpleteam.core.errors import RunError
from purpleteam.verbs.result import table

if TYPE_CHECKING:
    from purpleteam.core.verification import Part, Verification
    from purpleteam.pipeline.replay import Replay


def add_to(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    for verb in (report, replay, verify):
        app.command()(verb)


def report(
    path: Annotated[Path, typer.Argument(metavar="RUN")],
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Render a run folder again, without re-running; a run that is not whole is told on the page.

    Exit code 1 where records or files are not as the run left them.
    """
    from purpleteam.report import render

    files = render(path)
    values = {"run": str(path), "report": str(files.html), "markdown": str(files.markdown)}
    found = files.verification
    if found is None or found.verdict == "pass":
        answer(values, [str(files.html)], as_json=as_json)
        return
    lines = [str(files.html), *(f"{one.name}: {one.message}" for one in found.of(found.verdict))]
    answer(values | {"verification": found.to_json()}, lines, as_json=as_json)
    if found.verdict == "fail":
        raise typer.Exit(1)


def replay(
    path: Annotated[Path, typer.Argument(metavar="RUN")],
    record: Annotated[str, typer.Argument(metavar="RECORD")],
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Do the work behind one record again, and say whether it agrees."""
    from purpleteam.core.verification import verify_records
    from purpleteam.pipeline.replay import replay as do_again

    known = verify_records(path)
    with progress(quiet or as_json) as bar:
        found = do_again(path, record, progress=bar)
    verdict = "agrees" if found.agrees else "DISAGREES"
    lines = [
        f"{record} {verdict}",
        f"before: {_shown(found.before)}",
        f"after:  {_shown(found.after)}",
        *(f"but the run is not whole: {one.message}" for one in known.of("fail")),
    ]
    answer(found.to_json() | {"verification": known.to_json()}, lines, as_json=as_json)
    if not found.agrees or known.verdict == "fail":
        raise typer.Exit(1)


def verify(
    path: Annotated[Path, typer.Argument(metavar="RUN")],
    numbers: Annotated[
        int, typer.Option("--replay", min=0, help="So many of the numbers are measured again.")
    ] = 0,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Say whether a run is as it was left: chain, end, status, records, files, pages, numbers.

    Exit codes: 0 it is; 1 something was changed, lost or added, or a number disagrees; 2 too
    little to tell: the run has not ended, names no end, or a number cannot be measured again.
    """
    from purpleteam.core.verification import PROVES
    from purpleteam.core.verification import verify as look

    found = look(path)
    parts = [*found.parts, *_pages(path, found)]
    replays = []
    if numbers and all(one.name != "chain" or one.verdict == "pass" for one in parts):
        from purpleteam.pipeline.replay import replay_some

        with progress(quiet or as_json) as bar:
            replays = replay_some(path, numbers, seed=seed, progress=bar)
    parts += _numbers(numbers, replays)
    found = replace(found, parts=tuple(parts))
    lines = table([(one.verdict, one.name, one.message) for one in parts])
    rows = [(_word(one), one.record, one.before["name"], _outcome(one)) for one in replays]
    lines += [*table(rows), f"{path}: {found.verdict}. {PROVES}"]
    values = {"run": str(path), **found.to_json(), "replayed": [one.to_json() for one in replays]}
    answer(values, lines, as_json=as_json)
    raise typer.Exit({"pass": 0, "fail": 1, "unknown": 2}[found.verdict])


def _pages(path: Path, found: Verification) -> list[Part]:
    """Say whether report.html and report.md are what the folder renders to."""
    from purpleteam import __version__
    from purpleteam.core.runfolder import RunFolder
    from purpleteam.core.verification import Part
    from purpleteam.report import differing

    try:
        other = differing(path)
    except RunError as error:
        return [Part("pages", "fail", str(error))]
    if not other:
        return [Part("pages", "pass", "the report is what the records render to")]
    made_by = RunFolder.open(path).info.get("versions", {}).get("purpleteam")
    told = f"{' and '.join(other)}: not what the records render to; purple report writes it anew"
    if made_by != __version__:
        return [Part("pages", "unknown", f"{told} (the run is of version {made_by})")]
    return [Part("pages", "fail", told, tuple(other))]


def _numbers(asked: int, replays: Sequence[Replay]) -> list[Part]:
    """Say how many of the numbers that were measured again agree."""
    from purpleteam.core.verification import Part

    if not asked:
        return []
    wrong = tuple(one.record for one in replays if one.agrees is False)
    agree = sum(one.agrees is True for one in replays)
    told = f"{agree} of {len(replays)} that were measured again agree"
    if wrong:
        return [Part("numbers", "fail", f"{told}; not {', '.join(wrong)}", wrong)]
    return [Part("numbers", "pass" if replays and agree == len(replays) else "unknown", told)]


def _word(found: Replay) -> str:
    return {True: "agrees", False: "DISAGREES", None: "cannot be replayed"}[found.agrees]


def _outcome(found: Replay) -> str:
    again = "" if found.agrees else f" as recorded, now {_shown(found.after)}"
    return found.reason or f"{_shown(found.before)}{again}"


def _shown(metric: Any) -> str:
    if metric is None:
        return "nothing of the kind"
    value = metric.get("value", metric.get("verdict", metric.get("digest", metric.get("status"))))
    if isinstance(value, dict) and "low" in value:
        return f"{value['value']!r} ({value['low']:.4g} to {value['high']:.4g}, n={value['n']})"
    return str(value)
