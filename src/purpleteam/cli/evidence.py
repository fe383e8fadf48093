"""report, replay, verify: what a run left is shown, measured again, and looked at for damage."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from purpleteam.cli.build import Answer
from purpleteam.core.errors import RunError
from purpleteam.core.progress import Progress
from purpleteam.core.verification import PROVES, Part, verify_records
from purpleteam.core.verification import verify as look
from purpleteam.verbs.options import Seed
from purpleteam.verbs.result import table
from purpleteam.verbs.verb import Option

if TYPE_CHECKING:
    from purpleteam.pipeline.replay import Replay

RunPath = Annotated[Path, Option(name="RUN", kind=Path, help="")]


def report(path: RunPath) -> Answer:
    """Render a run folder again, without re-running; a run that is not whole is told on the page.

    Exit code 1 where records or files are not as the run left them.
    """
    from purpleteam.report import render

    files = render(path)
    values: dict[str, Any] = {
        "run": str(path),
        "report": str(files.html),
        "markdown": str(files.markdown),
    }
    lines, found = [str(files.html)], files.verification
    if found is None or found.verdict == "pass":
        return Answer(values=values, shown=lines)
    values["verification"] = found.to_json()
    lines += [f"{part.name}: {part.message}" for part in found.of(found.verdict)]
    return Answer(values=values, shown=lines, exit_code=int(found.verdict == "fail"))


def replay(
    path: RunPath, record: Annotated[str, Option(name="RECORD", help="")], *, progress: Progress
) -> Answer:
    """Do the work behind one record again, and say whether it agrees."""
    from purpleteam.pipeline.replay import replay as do_again

    known = verify_records(path)
    found = do_again(path, record, progress=progress)
    lines = [
        f"{record} {'agrees' if found.agrees else 'DISAGREES'}",
        f"before: {_shown(found.before)}",
        f"after:  {_shown(found.after)}",
        *(f"but the run is not whole: {part.message}" for part in known.of("fail")),
    ]
    return Answer(
        values=found.to_json() | {"verification": known.to_json()},
        shown=lines,
        exit_code=int(not found.agrees or known.verdict == "fail"),
    )


def verify(
    path: RunPath,
    numbers: Annotated[
        int,
        Option(
            name="--replay", kind=int, least=0, help="So many of the numbers are measured again."
        ),
    ] = 0,
    seed: Seed = 0,
    *,
    progress: Progress,
) -> Answer:
    """Say whether a run is as it was left: chain, end, status, records, files, pages, numbers.

    Exit codes: 0 it is; 1 something was changed, lost or added, or a number disagrees; 2 too
    little to tell: the run has not ended, names no end, or a number cannot be measured again.
    """
    found = look(path)
    parts = [*found.parts, _pages(path)]
    replays: list[Replay] = []
    if numbers:
        if all(part.name != "chain" or part.verdict == "pass" for part in parts):
            from purpleteam.pipeline.replay import replay_some

            replays = replay_some(path, numbers, seed=seed, progress=progress)
        wrong = tuple(number.record for number in replays if number.agrees is False)
        agree = sum(number.agrees is True for number in replays)
        told = f"{agree} of {len(replays)} that were measured again agree"
        if wrong:
            parts.append(Part("numbers", "fail", f"{told}; not {', '.join(wrong)}", wrong))
        else:
            all_agree = replays and agree == len(replays)
            parts.append(Part("numbers", "pass" if all_agree else "unknown", told))
    found = replace(found, parts=tuple(parts))
    words = {True: "agrees", False: "DISAGREES", None: "cannot be replayed"}
    rows = []
    for number in replays:
        again = "" if number.agrees else f" as recorded, now {_shown(number.after)}"
        outcome = number.reason or f"{_shown(number.before)}{again}"
        rows.append((words[number.agrees], number.record, number.before["name"], outcome))
    lines = table([(part.verdict, part.name, part.message) for part in parts])
    lines += [*table(rows), f"{path}: {found.verdict}. {PROVES}"]
    values = {"run": str(path), **found.to_json(), "replayed": [one.to_json() for one in replays]}
    code = {"pass": 0, "fail": 1, "unknown": 2}[found.verdict]
    return Answer(values=values, shown=lines, exit_code=code)


def _pages(path: Path) -> Part:
    """Say whether report.html and report.md are what the folder renders to."""
    from purpleteam import __version__
    from purpleteam.core.runfolder import RunFolder
    from purpleteam.report import differing

    try:
        other = differing(path)
    except RunError as error:
        return Part("pages", "fail", str(error))
    if not other:
        return Part("pages", "pass", "the report is what the records render to")
    made_by = RunFolder.open(path).info.get("versions", {}).get("purpleteam")
    told = f"{' and '.join(other)}: not what the records render to; purple report writes it anew"
    if made_by != __version__:
        return Part("pages", "unknown", f"{told} (the run is of version {made_by})")
    return Part("pages", "fail", told, tuple(other))


def _shown(metric: Any) -> str:
    if metric is None:
        return "nothing of the kind"
    value = metric.get("value", metric.get("verdict", metric.get("digest", metric.get("status"))))
    if isinstance(value, dict) and "low" in value:
        return f"{value['value']!r} ({value['low']:.4g} to {value['high']:.4g}, n={value['n']})"
    return str(value)
