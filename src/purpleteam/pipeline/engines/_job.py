"""One job: the call of a verb or a cell of a run, in whatever process it runs."""

import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from inspect import signature
from pathlib import Path
from typing import Any

from purpleteam.core.digest import sha256_bytes, sha256_file
from purpleteam.core.errors import failure_of
from purpleteam.core.factory import file_of
from purpleteam.core.records import Artefact, Note, Record
from purpleteam.core.runfolder import Missing
from purpleteam.core.scratch import scratch
from purpleteam.data.images import Dataset
from purpleteam.pipeline.cells import do_cell
from purpleteam.pipeline.engines import CELL, OPEN, Job, Outcome
from purpleteam.pipeline.plan import MAKERS
from purpleteam.verbs import VERBS
from purpleteam.verbs._subject import Subject, code_of, loaded_from, open_dataset, open_subject
from purpleteam.verbs.verb import ASKED

DESCRIBED = ("weights", "arch", "normalise", "classes", "device")


def do(job: Job) -> Outcome:
    """Do a job; what fails is told."""
    started = time.perf_counter()
    try:
        with _here():
            if job.verb == OPEN:
                return Outcome(key=job.key, records=[digests_of(**job.options)])
            files = dict[str, bytes]()
            records = do_cell(job.options) if job.verb == CELL else _called(job, files)
        told = [record.to_json() for record in records]
    except Missing as missing:
        return Outcome(key=job.key, needs=missing.key, seconds=_since(started))
    except (Exception, SystemExit) as error:  # a net of the user's may exit
        return Outcome(key=job.key, error=failure_of(error), seconds=_since(started))
    return Outcome(key=job.key, records=told, files=files, seconds=_since(started))


def _called(job: Job, files: dict[str, bytes]) -> list[Record]:
    """Call the verb; return its records, and which call made them. What it wrote is in `files`."""
    with tempfile.TemporaryDirectory(prefix="purple-cell-", dir=scratch()) as folder:
        out = {"out": Path(folder) / (job.makes or job.verb)} if job.verb in MAKERS else {}
        result = VERBS[job.verb].call(**_ready(job), **out)
        for path in sorted(Path(folder).rglob("*")) if job.makes else ():
            if path.is_file():
                files[path.relative_to(folder).as_posix()] = path.read_bytes()
    facts: dict[str, Any] = {"verb": job.verb, "options": dict(job.options)}
    facts |= {"makes": job.makes} if job.makes else {}
    facts |= {"uses": list(job.uses)} if job.uses else {}
    kept = [
        Artefact(path=name, digest=sha256_bytes(content), made_by=f"purple {job.verb}")
        for name, content in files.items()
    ]
    records = [*result.records, *kept]
    return [*records, Note(name=ASKED, facts=facts | {"records": [one.id for one in records]})]


def digests_of(verb: str, options: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the digests of what a call is about: images, model, and code that is trained."""
    if "images" in options:
        subject = subject_of(verb, options)
        model = subject.model
        found = {"data": subject.dataset.digest, "model": None if model is None else model.digest}
    else:  # which another cell makes
        named, described = options.get("model"), dict[str, Any]()
        described |= {name: options[name] for name in DESCRIBED if name in options}
        digest = None if named is None else loaded_from(named, described).digest  # type: ignore[arg-type]
        found = {"data": None, "model": digest}
    if (searched := options.get("training_set")) is not None:
        found["training_set"] = _dataset(searched).digest
    code = file_of(options.get("arch") or "")
    return found | ({"code": sha256_file(code)} if code and code.is_file() else {})


def subject_of(verb: str, options: Mapping[str, Any]) -> Subject:
    """Return the images and the model that a call is about, opened once in a process."""
    takes = signature(VERBS[verb].call).parameters
    given = {name: options.get(name, takes[name].default) for name in takes}
    if verb in MAKERS and given.get("arch") is not None:
        given["arch"] = code_of(given["arch"], given.get("model"))  # else it is what is trained
    described = {name: given[name] for name in DESCRIBED if given.get(name) is not None}
    with _here():
        return _subject(given["images"], given.get("model"), tuple(sorted(described.items())))


@contextmanager
def _here() -> Iterator[None]:
    """Come back to the current folder: a net of the user's may go to another."""
    before = Path.cwd()
    try:
        yield
    finally:
        os.chdir(before)


def forget() -> None:
    """Open images and models anew: their files may be others now."""
    _dataset.cache_clear()
    _subject.cache_clear()


def _ready(job: Job) -> dict[str, Any]:
    """Return the options of a call, with the images and the model opened."""
    made = {name: f"{job.root}/{job.options[name]}" for name in job.uses}
    options = {**job.options, **made}
    if job.verb in MAKERS:  # which open a model themselves, as it is named
        return options | {"images": _dataset(options.get("images", "digits"))}
    subject = subject_of(job.verb, options)
    given = {name: value for name, value in options.items() if name not in DESCRIBED}
    given["images"] = subject.dataset
    if subject.model is not None:
        given["model"] = subject.model
    takes = signature(VERBS[job.verb].call).parameters
    return given | ({"device": subject.device} if "device" in takes else {})


@lru_cache(maxsize=2)
def _dataset(images: str) -> Dataset:
    return open_dataset(images)


@lru_cache(maxsize=4)
def _subject(images: str, model: str | None, described: tuple[tuple[str, Any], ...]) -> Subject:
    return replace(open_subject(_dataset(images), model=model, **dict(described)), run=None)


def _since(started: float) -> float:
    return round(time.perf_counter() - started, 4)
