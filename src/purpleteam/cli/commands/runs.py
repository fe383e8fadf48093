"""demo, run, report, replay, ls, doctor: whole runs and what they left."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from purpleteam.cli.options import Debug, Device, Json, Out, Quiet, SeedOrNone, Threads
from purpleteam.cli.outputs import file_to_write
from purpleteam.cli.screen import answer, progress, table

if TYPE_CHECKING:
    from purpleteam.pipeline.config import RunConfig

__all__ = ["add_to"]

Config = Annotated[Path | None, typer.Option("--config", help="A TOML file over the profile.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="One value, a.b=c; repeatable.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue a run that was stopped.")]


def add_to(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    for verb in (demo, run, report, replay):
        app.command()(verb)
    app.command("ls")(list_all)
    app.command()(doctor)


def demo(
    out: Out = None,
    resume: Resume = False,
    seed: SeedOrNone = None,
    threads: Threads = None,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """The whole story on embedded real digits, offline."""
    given = _given(seed=seed, threads=threads, device=None if device == "auto" else device)
    asked = _resolved("demo", None, given)
    _run(asked, out or _folder("demo", resume), resume, None, as_json=as_json, quiet=quiet)


def run(
    profile: Annotated[
        str | None,
        typer.Option("--profile", help="demo, quick, mnist or backdoors; demo by default."),
    ] = None,
    config: Config = None,
    settings: Settings = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="Instead of the profile's.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Bring the model under test instead of training one."),
    ] = None,
    weights: Annotated[str | None, typer.Option("--weights", help="For module:factory.")] = None,
    out: Out = None,
    resume: Resume = False,
    seed: SeedOrNone = None,
    threads: Threads = None,
    device: Device = "auto",
    results: Annotated[
        Path | None, typer.Option("--results", help="Also write the records as one JSON file.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Every stage from data to report, into one folder; can be stopped and resumed."""
    given = _given(
        seed=seed, threads=threads, dataset=dataset, device=None if device == "auto" else device
    )
    models = _given(use=model, weights=weights)
    given += [*(f"models.{one}" for one in models)]
    profile = profile or (None if config else "demo")
    asked = _resolved(profile, config, [*(settings or []), *given])
    folder = out or _folder(profile or (config.stem if config else "run"), resume)
    _run(asked, folder, resume, file_to_write(results), as_json=as_json, quiet=quiet)


def report(
    path: Annotated[Path, typer.Argument(metavar="RUN")],
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Render a run folder again: HTML and Markdown, without re-running anything."""
    from purpleteam.report import render

    files = render(path)
    values = {"run": str(path), "report": str(files.html), "markdown": str(files.markdown)}
    answer(values, [str(files.html)], as_json=as_json)


def replay(
    path: Annotated[Path, typer.Argument(metavar="RUN")],
    record: Annotated[str, typer.Argument(metavar="RECORD")],
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Do the work behind one record again, and say whether it agrees."""
    from purpleteam.pipeline.replay import replay as do_again

    with progress(quiet or as_json) as bar:
        found = do_again(path, record, progress=bar)
    verdict = "agrees" if found.agrees else "DISAGREES"
    lines = [
        f"{record} {verdict}",
        f"before: {_shown(found.before)}",
        f"after:  {_shown(found.after)}",
    ]
    answer(found.to_json(), lines, as_json=as_json)
    if not found.agrees:
        raise typer.Exit(1)


def list_all(as_json: Json = False, quiet: Quiet = False, debug: Debug = False) -> None:
    """What there is: zoo models, runs, profiles, and parts by name."""
    from purpleteam.core.cards import zoo_names
    from purpleteam.pipeline.config import profile_names

    values: dict[str, Any] = {
        "models": zoo_names(),
        "datasets": ["mnist", "digits"],
        "profiles": profile_names(),
        "runs": sorted(str(path.parent) for path in Path("runs").glob("*/run.json")),
    }
    try:
        from purpleteam.attacks.evasion import ATTACKS
        from purpleteam.attacks.poison import POISONS
        from purpleteam.defences import DEFENCES
        from purpleteam.defences.detection.model import MODEL_DETECTORS
        from purpleteam.defences.detection.training_set import TRAINING_SET_DETECTORS
        from purpleteam.defences.repair import REPAIRS
        from purpleteam.models import ARCHITECTURES, RECIPES
    except ModuleNotFoundError:
        values["parts"] = "pip install 'purpleteam[lab]' for attacks, defences and training"
    else:
        values |= {
            "architectures": list(ARCHITECTURES),
            "recipes": list(RECIPES),
            "attacks": list(ATTACKS),
            "poisons": list(POISONS),
            "defences": list(DEFENCES),
            "training_set_detectors": list(TRAINING_SET_DETECTORS),
            "model_detectors": list(MODEL_DETECTORS),
            "repairs": list(REPAIRS),
        }
    lines = table([(key, ", ".join(v) if isinstance(v, list) else v) for key, v in values.items()])
    answer(values, lines, as_json=as_json)


def doctor(as_json: Json = False, quiet: Quiet = False, debug: Debug = False) -> None:
    """What is installed, what is missing, and how to get it."""
    from purpleteam.cli.doctor import examine

    found = examine()
    rows = [("ok" if one["ok"] else "missing", one["what"], one["detail"]) for one in found]
    answer({"checks": found}, table(rows), as_json=as_json)


def _resolved(profile: str | None, config: Path | None, settings: list[str]) -> RunConfig:
    from purpleteam.pipeline.config import resolve

    return resolve(profile, config, settings)


def _run(
    asked: RunConfig,
    folder: Path,
    resume: bool,
    results: Path | None,
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    from purpleteam.models.address import without_secrets
    from purpleteam.pipeline.run import run as run_all

    with progress(quiet or as_json) as bar:
        typed = ("purple", *map(without_secrets, sys.argv[1:]))
        result = run_all(asked, folder, resume=resume, command=typed, progress=bar)
    if results is not None:
        from purpleteam.pipeline.results import write_results

        write_results(folder, results)
    stages = [(name, f"{took:.1f} s") for name, took in result.stages.items()]
    lines = [*table(stages), f"report: {result.report}"]
    answer(result.to_json(), lines, as_json=as_json)


def _folder(name: str, resume: bool) -> Path:
    """Return runs/<name>, or the next free runs/<name>-2, ...; with resume the newest there is."""
    number = 1
    path = latest = Path("runs") / name
    while (path / "run.json").exists():
        latest, number = path, number + 1
        path = Path("runs") / f"{name}-{number}"
    return latest if resume else path


def _given(**options: object) -> list[str]:
    import json

    return [f"{key}={json.dumps(value)}" for key, value in options.items() if value is not None]


def _shown(metric: Any) -> str:
    if metric is None:
        return "nothing of the kind"
    value = metric.get("value", metric.get("verdict", metric.get("digest", metric.get("status"))))
    return str(value)
