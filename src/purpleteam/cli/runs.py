"""demo, run, serve, and what a run left: report, replay, verify."""

import json
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from purpleteam.cli.build import Answer, How
from purpleteam.cli.screen import answer, say
from purpleteam.core.errors import RunError, UsageError
from purpleteam.core.progress import Progress
from purpleteam.core.provenance import PROVES as SIGNED
from purpleteam.core.provenance import Signed, find_subject, verify_signed, verify_subject
from purpleteam.core.records import Failure
from purpleteam.core.verification import PROVES, Part, Verification, verify_records
from purpleteam.core.verification import verify as look
from purpleteam.verbs import options
from purpleteam.verbs.options import Device, Threads
from purpleteam.verbs.outputs import file_to_write
from purpleteam.verbs.result import table
from purpleteam.verbs.verb import Option

if TYPE_CHECKING:
    from purpleteam.pipeline.replay import Replay

RunPath = Annotated[Path, Option(name="RUN", kind=Path, help="")]
Out = Annotated[Path | None, options.OUT]
Resume = Annotated[bool, "Continue a run that was stopped."]
Sign = Annotated[Path | None, "Sign models and run with this private key; see purple keygen."]
Overrides = Annotated[
    list[str] | None, Option(name="--set", kind=list[str], help="One value, a.b=c; repeatable.")
]
EXIT_CODES = {"pass": 0, "fail": 1, "unknown": 2}  # of what `verify` says
Seed = Annotated[int | None, Option(kind=int, least=0, most=options.MAX_SEED, help=options.SEED)]
EngineName = Annotated[str, "Who does the cells: inline, or ray; see purple ls."]
Workers = Annotated[
    int | None,
    Option(kind=int, least=1, most=1024, help="That do cells at once; by default as asked, or 1."),
]
Address = Annotated[str | None, "Of a Ray cluster: auto, or HOST:PORT; else one here."]
Gpus = Annotated[
    float, Option(kind=float, least=0, help="Of a Ray cluster, for each cell: 1, or a part, 0.5.")
]


def demo(
    *,
    out: Out = None,
    resume: Resume = False,
    sign: Sign = None,
    seed: Seed = None,
    threads: Threads = None,
    device: Device = "auto",
    how: How,
    progress: Progress,
) -> Answer:
    """Every stage from data to report on embedded real digits, offline."""
    given: dict[str, Any] = {"resume": resume, "seed": seed, "threads": threads, "device": device}
    return run(profile="demo", out=out, sign=sign, **given, how=how, progress=progress)


def run(
    *,
    profile: Annotated[
        str | None,
        "See purple ls; with --model alone model, which trains nothing, with --dataset images, "
        "else demo.",
    ] = None,
    config: Annotated[Path | None, "A TOML file over the profile."] = None,
    settings: Overrides = None,
    dataset: Annotated[str | None, "Instead of the profile's."] = None,
    model: Annotated[str | None, "Bring the model under test instead of training one."] = None,
    weights: Annotated[str | None, "For module:factory."] = None,
    normalise: Annotated[str | None, "What the model wants of images in [0, 1]."] = None,
    classes: Annotated[str | None, "Class names in the order of its outputs."] = None,
    epsilon: Annotated[float | None, "Radius in linf, such as 8/255."] = None,
    out: Out = None,
    resume: Resume = False,
    sign: Sign = None,
    seed: Seed = None,
    threads: Threads = None,
    device: Device = "auto",
    engine: EngineName = "inline",
    workers: Workers = None,
    address: Address = None,
    gpus: Gpus = 0.0,
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
    usual = "model" if model is not None else "demo" if dataset is None else "images"
    profile = profile or (None if config else usual)
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
    doing |= {"engine": engine, "workers": workers, "address": address, "gpus": gpus}
    done = run_all(asked, folder, resume=resume, key=sign, told=told, ended=ended, **doing)
    if file is not None:
        write_results(folder, file)
    lines = table([(name, f"{took:.1f} s") for name, took in done.stages.items()])
    lines.append(f"report: {done.report}")
    if count := len(done.failures):
        lines.append(f"{count} pieces of work failed; --resume --out {folder} tries them again")
    if signed := done.signed:
        lines.append(f"signed by {signed.signer}, {signed.signed_at}, key {signed.key}")
    elif sign is not None:
        lines.append("not signed: a run is signed when it is whole")
    return Answer(values=done.to_json(), shown=lines, exit_code=2 if count else 0)


def serve(
    *,
    model: Annotated[str, options.MODEL] = "standard",
    host: Annotated[str | None, "Address to listen on; 127.0.0.1 by default."] = None,
    port: Annotated[
        int | None,
        Option(kind=int, least=0, most=65535, help="8000 by default; 0 takes a free one."),
    ] = None,
    expose_confidences: Annotated[bool, "Answer with all probabilities too."] = False,
    keys: Annotated[Path | None, "File of API keys (purple keys); each question needs one."] = None,
    allow_remote: Annotated[bool, "Let anybody in from other machines, without a key."] = False,
    allowed_hosts: Annotated[
        list[str] | None,
        Option(
            name="--allowed-host", kind=list[str], help="A further name of the app; repeatable."
        ),
    ] = None,
    strip: Annotated[Path | None, "A STRIP of this model: triggered images get no label."] = None,
    workers: Annotated[
        int | None,
        Option(kind=int, least=0, most=64, help="Processes to serve in, watched; 0: one, alone."),
    ] = None,
    tls_certificate: Annotated[Path | None, "Serve over TLS: a certificate chain in PEM."] = None,
    tls_key: Annotated[Path | None, "The certificate's key in PEM."] = None,
    digest: Annotated[
        str | None, "Serve no model but this: the identity that /version tells, sha256:..."
    ] = None,
    require_signature: Annotated[
        Path | None, "Serve no model but one that this public key signed; see purple sign."
    ] = None,
    config: Annotated[Path | None, "A TOML file of settings."] = None,
    settings: Overrides = None,
    how: How,
) -> None:
    """Serve a stored model in the hardened drawing app; stop with Ctrl+C."""
    from purpleteam.serve.main import serve as start
    from purpleteam.serve.settings import resolve

    def ready(url: str) -> None:
        if how.as_json:
            answer({"url": url, "model": model}, [], as_json=True)
        elif not how.quiet:
            say(f"serving {model} at {url}")

    def tell(line: str) -> None:
        if line.startswith("WARNING") or not (how.quiet or how.as_json):
            say(line)

    given = {
        "host": host,
        "port": port,
        "expose_confidences": expose_confidences or None,
        "keys": keys,
        "allow_remote": allow_remote or None,
        "allowed_hosts": allowed_hosts,
        "strip": strip,
        "workers": None if workers is None else {"count": workers},
        "digest": digest,
        "require_signature": require_signature,
    }
    tls = {"certificate": tls_certificate, "key": tls_key}
    options_given: dict[str, Any] = {
        name: value for name, value in given.items() if value is not None
    }
    options_given["tls"] = {name: path for name, path in tls.items() if path is not None}
    start(model, resolve(config, options_given, settings or ()), ready, tell)


def report(path: RunPath) -> Answer:
    """Render a run folder again, without re-running; a run that is not whole is told on the page.

    Exit code 1 where records or files are not as the run left them.
    """
    from purpleteam.report import render

    files = render(path)
    values: dict[str, Any] = {"run": str(path), "report": str(files.html)}
    values["markdown"] = str(files.markdown)
    lines, verification = [str(files.html)], files.verification
    if verification is None or verification.verdict == "pass":
        return Answer(values=values, shown=lines)
    values["verification"] = verification.to_json()
    lines += [f"{part.name}: {part.message}" for part in verification.of(verification.verdict)]
    return Answer(values=values, shown=lines, exit_code=int(verification.verdict == "fail"))


def replay(
    path: RunPath, record: Annotated[str, Option(name="RECORD", help="")], *, progress: Progress
) -> Answer:
    """Do the work behind one record again, and say whether it agrees."""
    from purpleteam.pipeline.replay import replay as do_again

    known = verify_records(path)
    replayed = do_again(path, record, progress=progress)
    lines = [
        f"{record} {'agrees' if replayed.agrees else 'DISAGREES'}",
        f"before: {_shown(replayed.before)}",
        f"after:  {_shown(replayed.after)}",
        *(f"but the run is not whole: {part.message}" for part in known.of("fail")),
    ]
    values = replayed.to_json() | {"verification": known.to_json()}
    code = int(not replayed.agrees or known.verdict == "fail")
    return Answer(values=values, shown=lines, exit_code=code)


def verify(
    path: Annotated[str | None, Option(name="PATH", help="")] = None,
    numbers: Annotated[
        int, Option(name="--replay", least=0, help="This many of the numbers are measured again.")
    ] = 0,
    seed: options.Seed = 0,
    log: Annotated[Path | None, "Instead of a run: the audit log of a served app."] = None,
    checkpoints: Annotated[
        list[str] | None,
        Option(
            name="--checkpoint",
            kind=list[str],
            help="A file of checkpoints that was kept elsewhere; repeatable.",
        ),
    ] = None,
    log_key: Annotated[
        str | None, "The log's public key, or a file of it, kept elsewhere; else FILE.pub."
    ] = None,
    prove: Annotated[
        int | None, Option(least=1, help="Prove that this line, from 1, is in the log.")
    ] = None,
    key: Annotated[
        Path | None, "The public key that must have signed it, kept elsewhere; see purple sign."
    ] = None,
    signature: Annotated[
        Path | None, "The signature's file; by default where sign puts it."
    ] = None,
    *,
    progress: Progress,
) -> Answer:
    """Say whether a run is as it was left: chain, end, status, records, files, pages, numbers.

    Of what was signed, a run, a stored model, a folder or a file: by whom, since when, whether it
    is as it was signed, and what that does not cover.

    Of an audit log: whether all lines are as they were signed, none changed, lost or moved.

    Exit codes: 0 it is; 1 something was changed, lost or added, or a number disagrees; 2 too
    little to tell: the run has not ended, names no end, or a number cannot be measured again;
    nobody signed it, or it is not known whose key did; nothing of the log was signed yet.
    """
    if (path is None) == (log is None):
        takes = "verify takes a run folder or --log FILE, one of them"
        raise UsageError(f"{takes}; or what was signed: a model, a folder, a file")
    if path is None or log is not None:
        return _verify_log(log or Path(), checkpoints or [], log_key, prove)
    subject = find_subject(path)
    if subject.kind != "run":
        if numbers:
            raise UsageError(f"--replay measures numbers of a run again, and {path!r} is none")
        return _verified(path, *verify_signed(path, key, signature))
    verification = look(subject.root)
    parts = [*verification.parts, _pages(subject.root)]
    signed = verify_subject(subject, key, signature)
    if key or signature or subject.signature.exists():
        parts += signed.parts
    replays: list[Replay] = []
    if numbers:
        if all(part.name != "chain" or part.verdict == "pass" for part in parts):
            from purpleteam.pipeline.replay import replay_some

            replays = replay_some(subject.root, numbers, seed=seed, progress=progress)
        wrong = tuple(number.record for number in replays if number.agrees is False)
        agree = sum(number.agrees is True for number in replays)
        told = f"{agree} of {len(replays)} that were measured again agree"
        if wrong:
            parts.append(Part("numbers", "fail", f"{told}; not {', '.join(wrong)}", wrong))
        else:
            all_agree = replays and agree == len(replays)
            parts.append(Part("numbers", "pass" if all_agree else "unknown", told))
    proves = PROVES if signed.statement is None else f"{PROVES} {SIGNED}"
    verification = replace(verification, parts=tuple(parts), proves=proves)
    words, rows = {True: "agrees", False: "DISAGREES", None: "cannot be replayed"}, []
    for number in replays:
        again = "" if number.agrees else f" as recorded, now {_shown(number.after)}"
        outcome = number.reason or f"{_shown(number.before)}{again}"
        rows.append((words[number.agrees], number.record, number.before["name"], outcome))
    return _verified(path, verification, signed, table(rows), [one.to_json() for one in replays])


def _verified(
    path: str,
    verification: Verification,
    signed: Signed,
    rows: Sequence[str] = (),
    replays: Sequence[dict[str, Any]] = (),
) -> Answer:
    lines = table([(part.verdict, part.name, part.message) for part in verification.parts])
    lines += [*rows, *(f"not covered: {open_}" for open_ in signed.not_covered)]
    lines.append(f"{path}: {verification.verdict}. {verification.proves}")
    values = {"run": path, **verification.to_json(), **signed.to_json(), "replayed": [*replays]}
    return Answer(values=values, shown=lines, exit_code=EXIT_CODES[verification.verdict])


def _verify_log(
    path: Path, checkpoints: list[str], log_key: str | None, number: int | None
) -> Answer:
    from purpleteam.serve.audit.verify import PROVES as LOG_PROVES
    from purpleteam.serve.audit.verify import prove, public_key, verify_log

    key = None if log_key is None else public_key(log_key)
    verification = verify_log(path, checkpoints=map(Path, checkpoints), key=key)
    values: dict[str, Any] = {"log": str(path), **verification.to_json()}
    lines = table([(part.verdict, part.name, part.message) for part in verification.parts])
    lines.append(f"{path}: {verification.verdict}. {LOG_PROVES}")
    if number is not None and verification.verdict == "pass":
        values["proof"] = prove(path, number, verification.checkpoint)
        lines += ["", *values["proof"].splitlines()]
    elif verification.checkpoint:
        lines += ["", "The checkpoint to keep elsewhere:", *verification.checkpoint.splitlines()]
    return Answer(values=values, shown=lines, exit_code=EXIT_CODES[verification.verdict])


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
