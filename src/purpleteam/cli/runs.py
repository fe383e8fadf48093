"""demo, run, ls, doctor: whole runs, and what there is."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from purpleteam.cli.build import number_of
from purpleteam.cli.options import Debug, Device, Json, Out, Quiet, SeedOrNone, Threads
from purpleteam.cli.screen import answer, progress, say
from purpleteam.core.errors import RunError
from purpleteam.verbs.outputs import file_to_write
from purpleteam.verbs.result import table

if TYPE_CHECKING:
    from purpleteam.core.records import Failure
    from purpleteam.pipeline.config import RunConfig

Config = Annotated[Path | None, typer.Option("--config", help="A TOML file over the profile.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="One value, a.b=c; repeatable.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue a run that was stopped.")]


def add_to(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command()(demo)
    app.command()(run)
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
    """Every stage from data to report on embedded real digits, offline."""
    given = _given(seed=seed, threads=threads, device=None if device == "auto" else device)
    asked = _resolved("demo", None, given)
    folder = out or _folder("demo", resume)
    _run(asked, folder, resume, None, as_json=as_json, quiet=quiet, debug=debug)


def run(
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            help="See purple ls; with --model alone model, which trains nothing, else demo.",
        ),
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
    normalise: Annotated[
        str | None, typer.Option("--normalise", help="What the model wants of images in [0, 1].")
    ] = None,
    classes: Annotated[
        str | None, typer.Option("--classes", help="Class names in the order of its outputs.")
    ] = None,
    epsilon: Annotated[
        float | None,
        typer.Option(
            "--epsilon", parser=number_of, metavar="<number>", help="Radius in linf, such as 8/255."
        ),
    ] = None,
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
    """Every stage from data to report, into one folder; can be stopped and resumed.

    Exit code 2 where a piece of it failed: the report says what is missing, --resume tries again.
    """
    given = _given(
        seed=seed, threads=threads, dataset=dataset, device=None if device == "auto" else device
    )
    models = _given(use=model, weights=weights, normalise=normalise, classes=classes)
    given += [f"models.{setting}" for setting in models]
    given += [f"evasion.{setting}" for setting in _given(epsilon=epsilon)]
    profile = profile or (None if config else "demo" if model is None else "model")
    asked = _resolved(profile, config, [*(settings or []), *given])
    folder = out or _folder(profile or (config.stem if config else "run"), resume)
    file = file_to_write(results)
    _run(asked, folder, resume, file, as_json=as_json, quiet=quiet, debug=debug)


def list_all(as_json: Json = False, quiet: Quiet = False, debug: Debug = False) -> None:
    """What there is: zoo models, runs, profiles, and parts by name."""
    from purpleteam.core.cards import zoo_names
    from purpleteam.data import DATASETS
    from purpleteam.pipeline.config import profile_names

    runs = sorted(str(path.parent) for path in Path("runs").glob("*/run.json"))
    states = {run: _state(Path(run)) for run in runs}
    values: dict[str, Any] = {
        "models": zoo_names(),
        "datasets": list(DATASETS),
        "profiles": profile_names(),
        "runs": runs,
        "verification": states,
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
    rows = [
        (key, ", ".join(value) if isinstance(value, list) else value)
        for key, value in values.items()
        if key not in ("runs", "verification")
    ]
    rows += [("run", f"{run}: {state['message']}") for run, state in states.items()]
    answer(values, table(rows), as_json=as_json)


def doctor(as_json: Json = False, quiet: Quiet = False, debug: Debug = False) -> None:
    """What is installed, what is missing, and how to get it."""
    from purpleteam.cli.doctor import examine

    found = examine()
    rows = [("ok" if one["ok"] else "missing", one["what"], one["detail"]) for one in found]
    answer({"checks": found}, table(rows), as_json=as_json)


def _state(path: Path) -> dict[str, str]:
    """Return what a run's records say of it, in a line."""
    from purpleteam.core.verification import verify_records

    try:
        found = verify_records(path)
    except RunError as error:
        return {"verdict": "unknown", "status": "unknown", "message": str(error)}
    wrong = found.of(found.verdict)[0].message if found.verdict != "pass" else ""
    told = {"pass": "records whole", "fail": f"NOT WHOLE: {wrong}", "unknown": wrong}
    message = f"{found.status}, {told[found.verdict]}"
    return {"verdict": found.verdict, "status": found.status, "message": message}


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
    debug: bool,
) -> None:
    from purpleteam.core.address import without_secrets
    from purpleteam.pipeline.run import run as run_all

    def told(failure: Failure, error: BaseException) -> None:
        say(f"failed: {failure.stage}: {failure.what}: {failure.reason}")
        if debug:
            say("".join(traceback.format_exception(error)))

    def ended(stage: str, seconds: float) -> None:
        if not quiet and not as_json:
            say(f"{stage}: {seconds:.1f} s")

    with progress(quiet or as_json) as bar:
        typed = ("purple", *map(without_secrets, sys.argv[1:]))
        result = run_all(
            asked, folder, resume=resume, command=typed, progress=bar, told=told, ended=ended
        )
    if results is not None:
        from purpleteam.pipeline.results import write_results

        write_results(folder, results)
    stages = [(name, f"{took:.1f} s") for name, took in result.stages.items()]
    lines = [*table(stages), f"report: {result.report}"]
    if result.failures:
        count = len(result.failures)
        lines.append(f"{count} pieces of work failed; --resume --out {folder} tries them again")
    answer(result.to_json(), lines, as_json=as_json)
    if result.failures:
        raise typer.Exit(2)


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
