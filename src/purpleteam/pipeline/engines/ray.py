"""On a Ray cluster: one that is there, or one of this machine alone.

The files that jobs name travel once, as bytes in Ray's object store: no filesystem is shared, and
only who asked writes. A worker that dies is replaced, and its job begun again.
"""

import faulthandler
import os
import signal
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from purpleteam.core.cards import zoo_names
from purpleteam.core.errors import MissingExtra, UsageError, reason_of
from purpleteam.core.plugins import asked_plugins, load_plugin
from purpleteam.core.scratch import clear, scratch
from purpleteam.pipeline.cells import files_made, files_read, named_in
from purpleteam.pipeline.engines import CELL, ENGINES, TRIES, Engine, Job, Outcome, write_file
from purpleteam.pipeline.engines._job import do

WAITING = 4
"""Jobs that wait at each worker: more would be lost with it, fewer leave it idle."""
NAMED = ("model", "images", "training_set", "weights", "arch")
"""Options that may name files."""


class Cluster:
    """Workers of a Ray cluster."""

    def __init__(self, workers: int | None, threads: int, address: str | None, gpus: float) -> None:
        if gpus > 1 and gpus % 1:
            raise UsageError(f"--gpus {gpus:g}: must be a whole number, or a part of one GPU")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
        try:
            import ray
        except ImportError:
            raise MissingExtra("Ray", "ray") from None
        self.ray: Any = ray
        here: dict[str, Any] = {} if address else {"num_cpus": workers, "include_dashboard": False}
        try:
            ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR", **here)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UsageError(f"--address {address!r}: {reason_of(error)}") from error
        there = ray.cluster_resources()
        self.most = workers or max(1, int(there.get("CPU", 1)) // threads)
        if gpus > (most := there.get("GPU", 0)):
            self.close()
            has = f"the cluster has {most:g}"
            raise UsageError(f"--gpus {gpus:g}: {has}; leave it out, and cells take none")
        env = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        self.task = ray.remote(_do).options(
            num_cpus=threads, num_gpus=gpus, max_retries=TRIES - 1, runtime_env={"env_vars": env}
        )
        self.put: dict[Any, Any] = {}  # what is in the object store, by names, times and sizes

    def run(self, jobs: deque[Job]) -> Iterator[Outcome]:
        """Keep every worker busy, with a few jobs waiting; yield what ends first."""
        running, plugins = dict[Any, Job](), list(asked_plugins())
        while jobs or running:
            while jobs and len(running) < WAITING * self.most:
                job = jobs.popleft()
                running[self.task.remote(asdict(job), plugins, self._files(job))] = job
            (ended,), _ = self.ray.wait(list(running), num_returns=1)
            job = running.pop(ended)
            try:
                outcome = Outcome(**self.ray.get(ended))
            except self.ray.exceptions.RayTaskError as error:  # such as of a plug-in: not retried
                outcome = Outcome(key=job.key, error=reason_of(error))
            except self.ray.exceptions.RayError as error:
                why = f"crashed {TRIES} times: {reason_of(error)}"
                outcome = Outcome(key=job.key, error=why)
            yield outcome

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        self.ray.shutdown()
        clear()

    def _files(self, job: Job) -> list[tuple[Any, Any]]:
        """Return the contents of the files that a job reads, each set of files put once."""
        found: list[tuple[Any, Any]] = []
        for paths in [*_read_by(job), *_made_for(job)]:
            named = {_inside(path, job.root): path for path in paths}
            stats = [(name, path.stat()) for name, path in named.items()]
            known = tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)
            if known not in self.put:
                content = {name: path.read_bytes() for name, path in named.items()}
                self.put[known] = self.ray.put(content)
            found.append((known, self.put[known]))
        return found


def _read_by(job: Job) -> list[list[Path]]:
    """Return the files that a job reads, in sets of those that come together."""
    if job.verb != CELL:
        return [files_of(job.options)]
    if Path(job.options["run"]).is_absolute():
        remedy = "choose an --out below it: it has a place on other machines too"
        raise UsageError(f"{job.options['run']!r} lies outside the current folder; {remedy}")
    return [files_of(named_in(job.options["config"])), *files_read(job.options)]


def _made_for(job: Job) -> list[list[Path]]:
    """Return the files of a sweep's folder that a job uses: of a stored model, or of a data set."""
    places = [Path(job.root, job.options[name]) for name in job.uses]
    return [
        sorted(place.iterdir() if place.is_dir() else place.parent.glob(f"{place.name}.*"))
        for place in places
    ]


def _inside(path: Path, root: str) -> str:
    """Return where a file lies in the folder of a sweep, or in the current folder."""
    inside = path.is_absolute() and path.is_relative_to(root)
    return (path.relative_to(root) if inside else path).as_posix()


def files_of(options: Mapping[str, Any]) -> list[Path]:
    """Return the files that options name: a stored model's, a file, all of a folder.

    What ships with the package is on every machine, and so is what the plug-ins bring.
    """
    found: list[Path] = []
    for text in (options.get(name) for name in NAMED):
        if not isinstance(text, str) or text in zoo_names() or "://" in text:
            continue
        path = Path(text.partition(":")[0])
        if path.is_absolute() or ".." in path.parts:
            if path.exists() or path.with_name(f"{path.name}.safetensors").exists():
                remedy = "name it from the current folder, so that it has a place elsewhere too"
                raise UsageError(f"{text!r} lies outside the current folder; {remedy}")
            continue
        if path.is_dir():
            found += sorted(one for one in path.rglob("*") if one.is_file())
        elif path.is_file():
            found.append(path)
        stored = (path.with_name(f"{path.name}{end}") for end in (".safetensors", ".json", ".onnx"))
        found += [one for one in stored if one.is_file()]
    return list(dict.fromkeys(found))


def _do(job: dict[str, Any], plugins: list[str], files: list[tuple[Any, Any]]) -> dict[str, Any]:
    """Do a job in a worker, in a folder that holds the files it names."""
    import ray as cluster

    os.chdir(_folder())
    for known, content in files:
        if known not in _HERE:
            for name, data in cluster.get(content).items():
                write_file(Path(name), data)
            _HERE.add(known)
    for name in plugins:
        load_plugin(name)
    outcome = _timed(Job(**job | {"root": "."}))
    made = files_made(job["options"], outcome.records) if job["verb"] == CELL else {}
    return asdict(outcome) | {"files": {**outcome.files, **made}}


class Late(BaseException):
    """A job takes too long; no error, so that nothing but `_timed` handles it."""


def _timed(job: Job) -> Outcome:
    """Do a job in its time; code that cannot be interrupted is ended at twice that."""
    if job.seconds is None:
        return do(job)

    def late(*_: object) -> None:
        raise Late

    signal.signal(signal.SIGALRM, late)
    faulthandler.dump_traceback_later(2 * job.seconds, exit=True, file=2)
    signal.setitimer(signal.ITIMER_REAL, job.seconds)
    try:
        return do(job)
    except Late:
        why = f"took more than {job.seconds:g} s"
        return Outcome(key=job.key, error=why, seconds=job.seconds)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()


_HERE = set[Any]()  # the sets of files that this worker has


@lru_cache(maxsize=1)
def _folder() -> str:
    """Return the folder of this worker; code that is in it can be imported."""
    path = tempfile.mkdtemp(prefix="purple-ray-", dir=scratch())
    with suppress(ValueError):
        sys.path.remove("")
    sys.path.insert(0, path)
    return path


@ENGINES.register("ray")
def ray(*, workers: int | None, threads: int, address: str | None, gpus: float = 0.0) -> Engine:
    """Return workers of the cluster at an address, or of one that is started on this machine."""
    return Cluster(workers, threads, address, gpus)
