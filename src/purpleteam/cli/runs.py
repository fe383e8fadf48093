"""demo, run, serve: what goes on until it is done, or stopped."""

import json
import traceback
from pathlib import Path
from typing import Annotated, Any

from purpleteam.cli.build import Answer, How
from purpleteam.cli.screen import answer, say
from purpleteam.core.progress import Progress
from purpleteam.core.records import Failure
from purpleteam.verbs import options
from purpleteam.verbs.options import Device, Threads
from purpleteam.verbs.outputs import file_to_write
from purpleteam.verbs.result import table
from purpleteam.verbs.verb import Option

Out = Annotated[Path | None, options.OUT]
Resume = Annotated[bool, "Continue a run that was stopped."]
Seed = Annotated[int | None, Option(kind=int, least=0, most=options.MAX_SEED, help=options.SEED)]


def demo(
    *,
    out: Out = None,
    resume: Resume = False,
    seed: Seed = None,
    threads: Threads = None,
    device: Device = "auto",
    how: How,
    progress: Progress,
) -> Answer:
    """Every stage from data to report on embedded real digits, offline."""
    given: dict[str, Any] = {"resume": resume, "seed": seed, "threads": threads, "device": device}
    return run(profile="demo", out=out, **given, how=how, progress=progress)


def run(
    *,
    profile: Annotated[
        str | None, "See purple ls; with --model alone model, which trains nothing, else demo."
    ] = None,
    config: Annotated[Path | None, "A TOML file over the profile."] = None,
    settings: Annotated[
        list[str] | None, Option(name="--set", kind=list[str], help="One value, a.b=c; repeatable.")
    ] = None,
    dataset: Annotated[str | None, "Instead of the profile's."] = None,
    model: Annotated[str | None, "Bring the model under test instead of training one."] = None,
    weights: Annotated[str | None, "For module:factory."] = None,
    normalise: Annotated[str | None, "What the model wants of images in [0, 1]."] = None,
    classes: Annotated[str | None, "Class names in the order of its outputs."] = None,
    epsilon: Annotated[float | None, "Radius in linf, such as 8/255."] = None,
    out: Out = None,
    resume: Resume = False,
    seed: Seed = None,
    threads: Threads = None,
    device: Device = "auto",
    results: Annotated[Path | None, "Also write the records as one JSON file."] = None,
    how: How,
    progress: Progress,
) -> Answer:
    """Every stage from data to report, into one folder; can be stopped and resumed.

    Exit code 2 where a piece of it failed: the report says what is missing, --resume tries again.
    """
    from purpleteam.pipeline.config import resolve
    from purpleteam.pipeline.run import run as run_all
    from purpleteam.pipeline.run import write_results

    given = {
        "seed": seed,
        "threads": threads,
        "dataset": dataset,
        "device": None if device == "auto" else device,
        "models.use": model,
        "models.weights": weights,
        "models.normalise": normalise,
        "models.classes": classes,
        "evasion.epsilon": epsilon,
    }
    typed = [f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None]
    profile = profile or (None if config else "demo" if model is None else "model")
    asked = resolve(profile, config, [*(settings or []), *typed])
    name, number = profile or (config.stem if config else "run"), 1
    folder = newest = Path("runs") / name
    while (folder / "run.json").exists():
        newest, number = folder, number + 1
        folder = Path("runs") / f"{name}-{number}"
    folder = out or (newest if resume else folder)
    file = file_to_write(results)

    def told(failure: Failure, error: BaseException) -> None:
        say(f"failed: {failure.stage}: {failure.what}: {failure.reason}")
        if how.debug:
            say("".join(traceback.format_exception(error)))

    def ended(stage: str, seconds: float) -> None:
        if not how.quiet and not how.as_json:
            say(f"{stage}: {seconds:.1f} s")

    doing: dict[str, Any] = {"command": how.typed, "progress": progress}
    done = run_all(asked, folder, resume=resume, told=told, ended=ended, **doing)
    if file is not None:
        write_results(folder, file)
    lines = table([(name, f"{took:.1f} s") for name, took in done.stages.items()])
    lines.append(f"report: {done.report}")
    if count := len(done.failures):
        lines.append(f"{count} pieces of work failed; --resume --out {folder} tries them again")
    return Answer(values=done.to_json(), shown=lines, exit_code=2 if count else 0)


def serve(
    *,
    model: Annotated[str, options.MODEL] = "standard",
    host: Annotated[str, "Address to listen on."] = "127.0.0.1",
    port: Annotated[int, Option(kind=int, least=0, most=65535, help="0 takes a free one.")] = 8000,
    expose_confidences: Annotated[bool, "Answer with all probabilities too."] = False,
    allow_remote: Annotated[bool, "Let other machines in: no accounts, no encryption."] = False,
    allowed_hosts: Annotated[
        list[str] | None,
        Option(
            name="--allowed-host", kind=list[str], help="A further name of the app; repeatable."
        ),
    ] = None,
    strip: Annotated[Path | None, "A STRIP of this model: triggered images get no label."] = None,
    how: How,
) -> None:
    """Serve a stored model in the hardened drawing app; stop with Ctrl+C."""
    from purpleteam.serve.main import serve as start

    def ready(url: str) -> None:
        if how.as_json:
            answer({"url": url, "model": model}, [], as_json=True)
        elif not how.quiet:
            say(f"serving {model} at {url}")

    start(
        model,
        host,
        port,
        expose_confidences,
        on_ready=ready,
        allow_remote=allow_remote,
        allowed_hosts=allowed_hosts or (),
        strip=strip,
    )
