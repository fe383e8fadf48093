"""One job: the call of a verb, in whatever process it runs."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from inspect import signature
from pathlib import Path
from typing import Any

from purpleteam.core.errors import failure_of
from purpleteam.core.records import Note
from purpleteam.data.images import Dataset
from purpleteam.pipeline.engines import Job, Outcome
from purpleteam.verbs import VERBS
from purpleteam.verbs._subject import Subject, open_dataset, open_subject
from purpleteam.verbs.verb import ASKED

DESCRIBED = ("weights", "arch", "normalise", "classes", "device")


def do(job: Job) -> Outcome:
    """Call the verb; return its records, and which call made them. What fails is told."""
    started = time.perf_counter()
    try:
        with _here():
            result = VERBS[job.verb].call(**_ready(job))
        facts = {"verb": job.verb, "options": dict(job.options)}
        made = [record.id for record in result.records]
        note = Note(name=ASKED, facts=facts | {"records": made})
        told = [record.to_json() for record in (*result.records, note)]
    except (Exception, SystemExit) as error:  # a net of the user's may exit
        return Outcome(key=job.key, error=failure_of(error), seconds=_since(started))
    return Outcome(key=job.key, records=told, seconds=_since(started))


def subject_of(verb: str, options: Mapping[str, Any]) -> Subject:
    """Return the images and the model that a call is about, opened once in a process."""
    takes = signature(VERBS[verb].call).parameters
    given = {name: options.get(name, takes[name].default) for name in takes}
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
    subject = subject_of(job.verb, job.options)
    given = {name: value for name, value in job.options.items() if name not in DESCRIBED}
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
