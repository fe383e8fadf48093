"""A sweep: the product of what its file lists, each cell the call of a verb, done once.

A cell is named by all that its result depends on: verb, options, digests of images and model. Its
records wait as a draft, written whole or not at all, until all cells before it are there: so the
records of a sweep are the same, whoever did the cells and in whatever order.
"""

from __future__ import annotations

import csv
import io
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_origin

from purpleteam.core.config import from_file, number
from purpleteam.core.errors import ConfigError, RunError, unknown
from purpleteam.core.progress import SILENT, Progress
from purpleteam.core.records import Failure, Measurement, Note, Record, notes_of, record_from_json
from purpleteam.core.runfolder import Drafts, RunFolder, key_of
from purpleteam.pipeline.engines import ENGINES, Engine, Job, Outcome
from purpleteam.pipeline.engines._job import subject_of
from purpleteam.report import render
from purpleteam.verbs import VERBS, Option
from purpleteam.verbs.verb import ASKED, option_of

STAGE = "sweep"
SWEPT = ("attack", "certify", "detect", "evaluate")
OWN = ("out", "run", "progress", "threads", "command")
"""Options that a sweep gives each cell itself."""
MOST = 1_000_000
KNOWN = ("name", "threads", "cells")
AXES = ("model", "images", "attack", "recipe", "method", "norm", "epsilon", "seed")
"""The order in which the columns of a table stand; others follow."""


@dataclass(frozen=True)
class Cell:
    """One call of a verb."""

    verb: str
    options: Mapping[str, Any]
    what: str
    """Verb and axes in a line, for people."""
    block: int = 0


@dataclass(frozen=True)
class Plan:
    """What a sweep's file asks for."""

    name: str
    threads: int
    cells: tuple[Cell, ...]
    asked: Mapping[str, Any]
    """The file's content."""


@dataclass(frozen=True, kw_only=True)
class Swept:
    """Where the sweep is, and what became of its cells."""

    run: Path
    report: Path
    table: Path
    cells: int
    done: int
    before: int
    """Cells that were there already."""
    failures: tuple[Failure, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        told = {name: str(getattr(self, name)) for name in ("run", "report", "table")}
        failed = [{"what": one.what, "reason": one.reason} for one in self.failures]
        counts = {name: getattr(self, name) for name in ("cells", "done", "before")}
        return told | counts | {"failures": failed, "seconds": round(self.seconds, 2)}


def read_plan(path: Path) -> Plan:
    """Return the cells that a YAML or TOML file asks for.

    Raises:
        ConfigError: it cannot be read, or asks for what no verb takes.
    """
    content = from_file(path) if path.suffix == ".toml" else _yaml(path)
    where = str(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{where}: a sweep is a mapping with 'cells', not {content!r}")
    for key in content:
        if key not in KNOWN:
            raise ConfigError(f"{where}: {unknown('key', key, KNOWN)}")
    blocks, threads = content.get("cells"), content.get("threads", 1)
    if not isinstance(blocks, list) or not blocks:
        example = "such as [{verb: attack, model: [standard], epsilon: [0.1, 0.2]}]"
        raise ConfigError(f"{where}: 'cells' must list what is called, {example}")
    if type(threads) is not int or not 1 <= threads <= 256:
        raise ConfigError(f"{where}: threads = {threads!r}: must be from 1 to 256")
    cells: dict[str, Cell] = {}
    for place, block in enumerate(blocks):
        for cell in _product(block, f"{where}: cells[{place}]", place, threads):
            cells.setdefault(key_of(cell.verb, cell.options), cell)
            if len(cells) > MOST:
                raise ConfigError(f"{where}: more than {MOST} cells: split the sweep")
    name = content.get("name", path.stem)
    return Plan(str(name), threads, tuple(cells.values()), content)


def _yaml(path: Path) -> Any:
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"sweep {str(path)!r} does not exist") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"sweep {str(path)!r} cannot be read: {reason}") from None


def _product(block: Any, where: str, place: int, threads: int) -> Iterator[Cell]:
    """Yield the cells of a block: one for each choice of an item from each list."""
    if not isinstance(block, dict) or not isinstance(block.get("verb"), str):
        raise ConfigError(f"{where}: each entry needs 'verb'; known: {', '.join(SWEPT)}")
    verb = block["verb"]
    if verb not in SWEPT:
        raise ConfigError(f"{where}: {unknown('verb', verb, SWEPT)}")
    call = VERBS[verb].call
    options = {
        key: option
        for key, hint in call.__annotations__.items()
        if key not in OWN and (option := option_of(hint)) is not None
    }
    names = {_typed(key, option): key for key, option in options.items()}
    axes: dict[str, list[Any]] = {}
    for name, value in block.items():
        if name == "verb":
            continue
        key = names.get(name, name)
        if key not in options:
            raise ConfigError(f"{where}: {unknown('option', name, names)}")
        items = value if isinstance(value, list) else [value]
        if not items:
            raise ConfigError(f"{where}: {name} is an empty list: there would be no cell")
        axes[key] = [_value(options[key], item, f"{where}: {name}") for item in items]
    varied = [key for key, items in axes.items() if len(items) > 1]
    for chosen in itertools.product(*axes.values()):
        given = dict(zip(axes, chosen, strict=True))
        told = (f"{key}={_short(given[key])}" for key in varied)
        yield Cell(verb, given | {"threads": threads}, " ".join((verb, *told)), place)


def _typed(key: str, option: Option) -> str:
    """Return what an option is called in a file: as on the command line, without its dashes."""
    return (option.name or key).removeprefix("--").replace("-", "_")


def _value(option: Option, item: Any, where: str) -> Any:
    """Return an item as the verb takes it; of an option that is repeatable, in a list."""
    kind = option.kind or str
    if get_origin(kind) is list:
        inner = replace(option, kind=get_args(kind)[0])
        return [_value(inner, one, where) for one in (item if isinstance(item, list) else [item])]
    if isinstance(item, dict | list) or item is None:
        raise ConfigError(f"{where} = {item!r}: must be a {getattr(kind, '__name__', kind)}")
    if kind is float:
        return number(str(item))
    if kind in (int, bool):
        if type(item) is not kind:
            wanted = "true or false" if kind is bool else "a whole number"
            raise ConfigError(f"{where} = {item!r}: must be {wanted}")
        if option.least is not None and item < option.least:
            raise ConfigError(f"{where} = {item!r}: must be at least {option.least}")
        if option.most is not None and item > option.most:
            raise ConfigError(f"{where} = {item!r}: must be at most {option.most}")
        return item
    return str(item)


def _short(value: Any) -> str:
    return ",".join(map(_short, value)) if isinstance(value, list) else f"{value}"


def run_sweep(
    plan: Plan,
    out: Path,
    *,
    engine: str = "inline",
    workers: int | None = None,
    address: str | None = None,
    command: tuple[str, ...] = (),
    progress: Progress = SILENT,
    told: Callable[[str], None] = lambda _: None,
) -> Swept:
    """Do the cells that are not in the folder `out` yet, and write its table and its report.

    `told` gets a line on what the sweep will take, and one for each cell that failed.

    Raises:
        RunError: the folder holds another run.
        ConfigError: images or a model that the file names cannot be opened.
    """
    started = time.perf_counter()
    folder = _folder(plan, out)
    drafts = Drafts(out)
    jobs = {job.key: (cell, job) for cell, job in _jobs(plan)}
    missing = [job for key, (_, job) in jobs.items() if not drafts.has(key)]
    before = len(jobs) - len(missing)
    failed: dict[str, str] = {}
    if missing:
        doing = ENGINES[engine](workers=workers, threads=plan.threads, address=address)
        try:
            with progress.task(f"{len(jobs)} cells", len(jobs)) as task:
                task.advance(before)
                for outcome in _probed(doing, missing, jobs, workers or 1, told):
                    if outcome.error:
                        failed[outcome.key] = outcome.error
                        told(f"failed: {jobs[outcome.key][0].what}: {outcome.error}")
                    else:
                        records = map(record_from_json, outcome.records)
                        cost = {"seconds": outcome.seconds}
                        made = [replace(one, command=command) for one in records]
                        made[-1] = replace(made[-1], cost=cost)
                        drafts.leave(outcome.key, made)
                    task.advance(1)
        except BaseException:
            folder.finish("stopped")
            raise
        finally:
            doing.close()
    taken = folder.take_over(STAGE, jobs)
    failures = tuple(
        Failure(stage=STAGE, what=cell.what, reason=failed.get(key, "not done"), command=command)
        for key, (cell, _) in jobs.items()
        if key not in taken
    )
    for failure in failures:
        folder.failed(failure)
    table = out / "exports" / "sweep.csv"
    table.write_text(table_of(folder, taken.values()), encoding="utf-8", newline="")
    folder.made_again(STAGE, "table", [folder.artefact(table, "purple sweep")])
    folder.finish("incomplete" if failures else "finished")
    return Swept(
        run=out,
        report=render(out).html,
        table=table,
        cells=len(jobs),
        done=len(jobs) - len(failures),
        before=before,
        failures=failures,
        seconds=time.perf_counter() - started,
    )


def _folder(plan: Plan, out: Path) -> RunFolder:
    """Return the folder of the sweep: a new one, or the one that holds a part of it."""
    asked = {"sweep": plan.asked, "threads": plan.threads, "name": plan.name}
    if not (out / "run.json").exists():
        if out.exists() and not (out.is_dir() and not any(out.iterdir())):
            raise RunError(f"{str(out)!r} is neither a sweep nor an empty folder")
        return RunFolder.create(out, asked)
    before = RunFolder.open(out).info["asked"]
    if "sweep" not in before:
        raise RunError(f"{str(out)!r} holds a run that is no sweep; choose another --out")
    folder = RunFolder.resume(out, before)
    folder.ask(asked)
    return folder


def _jobs(plan: Plan) -> Iterator[tuple[Cell, Job]]:
    """Yield each cell with its job, named by the digests of what it is about."""
    for cell in plan.cells:
        about = subject_of(cell.verb, cell.options)
        depends_on = {
            "what": cell.what,
            "verb": cell.verb,
            "options": cell.options,
            "data": about.dataset.digest,
            "model": about.model and about.model.digest,
        }
        yield cell, Job(key=key_of(STAGE, depends_on), verb=cell.verb, options=cell.options)


def _probed(
    engine: Engine,
    jobs: Sequence[Job],
    known: Mapping[str, tuple[Cell, Job]],
    workers: int,
    told: Callable[[str], None],
) -> Iterator[Outcome]:
    """Yield outcomes; those of the first cell of each block come first, and tell what all take."""
    first = {known[job.key][0].block: job for job in reversed(jobs)}
    took: dict[int, float] = {}
    for outcome in engine.run(list(first.values())):
        took[known[outcome.key][0].block] = outcome.seconds
        yield outcome
    begun = {job.key for job in first.values()}
    rest = [job for job in jobs if job.key not in begun]
    if rest:
        seconds = sum(took[known[job.key][0].block] for job in rest) / workers
        told(f"{len(rest)} cells to do, about {_span(seconds)} by the first of each kind")
    yield from engine.run(rest)


def _span(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.0f} h"


def table_of(folder: RunFolder, cells: Iterable[Sequence[Record]]) -> str:
    """Return the measurements of cells as CSV, a line each, in the order of the cells."""
    by_id = {record.id: record for record in folder.records()}
    calls = [note for records in cells for note in notes_of(records, ASKED)]
    rows = [row for note in calls for row in _rows(note, by_id)]
    axes = [key for key in AXES if any(key in row for row in rows)]
    axes += sorted({key for row in rows for key in row} - {*axes, *ENDS, "verb"})
    text = io.StringIO()
    writer = csv.DictWriter(text, ["verb", *axes, *ENDS], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


ENDS = ("metric", "class", "value", "low", "high", "n", "verdict", "record")


def _rows(note: Note, by_id: Mapping[str, Record]) -> Iterator[dict[str, Any]]:
    given = {key: _short(value) for key, value in note.facts["options"].items()}
    for record in map(by_id.get, note.facts["records"]):
        if not isinstance(record, Measurement):
            continue
        value = record.value.to_json()
        if not isinstance(value.get("value"), int | float):
            continue
        sound = record.detail.get("soundness", {})
        ends = {"metric": record.name, "class": record.how.get("class", "")}
        ends |= {"record": record.id, "verdict": sound.get("verdict", "")}
        ends |= {key: value.get(key, "") for key in ("value", "low", "high", "n")}
        yield {"verb": note.facts["verb"], **given, **ends}
