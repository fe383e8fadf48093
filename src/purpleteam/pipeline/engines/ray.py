"""On a Ray cluster: one that is there, or one of this machine alone.

The files that jobs name travel once, as bytes in Ray's object store: no filesystem is shared, and
only who asked writes. A worker that dies is replaced, and its job begun again.
"""

import atexit
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from purpleteam.core.cards import zoo_names
from purpleteam.core.errors import MissingExtra, UsageError, reason_of
from purpleteam.core.plugins import asked_plugins, load_plugin
from purpleteam.pipeline.engines import ENGINES, TRIES, Engine, Job, Outcome
from purpleteam.pipeline.engines._job import do

WAITING = 4
"""Jobs that wait at each worker: more would be lost with it, fewer leave it idle."""
NAMED = ("model", "images", "training_set", "weights", "arch")
"""Options that may name files."""


class Cluster:
    """Workers of a Ray cluster."""

    def __init__(self, workers: int | None, threads: int, address: str | None) -> None:
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
        try:
            import ray
        except ImportError:
            raise MissingExtra("Ray", "ray") from None
        self.ray: Any = ray
        here: dict[str, Any] = {} if address else {"num_cpus": workers, "include_dashboard": False}
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", **here)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UsageError(f"--address {address!r}: {reason_of(error)}") from error
        self.most = workers or max(1, int(ray.cluster_resources().get("CPU", 1)) // threads)
        env = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        self.task = ray.remote(_do).options(
            num_cpus=threads, max_retries=TRIES - 1, runtime_env={"env_vars": env}
        )
        self.put: dict[str, Any] = {}  # what is in the object store, by its digest

    def run(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """Keep every worker busy, with a few jobs waiting; yield what ends first."""
        left, running = iter(jobs), dict[Any, Job]()
        plugins = list(asked_plugins())
        while True:
            for job in left:
                files = self._files(job)
                running[self.task.remote(asdict(job), plugins, *files)] = job
                if len(running) >= WAITING * self.most:
                    break
            if not running:
                return
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

    def _files(self, job: Job) -> list[Any]:
        """Return names and contents of the files that a job names, each put once."""
        found: list[Any] = []
        for path in files_of(job.options):
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            if digest not in self.put:
                self.put[digest] = self.ray.put(content)
            found += [path.as_posix(), self.put[digest]]
        return found


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


def _do(job: dict[str, Any], plugins: list[str], *files: Any) -> dict[str, Any]:
    """Do a job in a worker, in a folder that holds the files it names."""
    os.chdir(_folder())
    for name, content in zip(files[::2], files[1::2], strict=True):
        path = Path(name)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    for name in plugins:
        load_plugin(name)
    return asdict(do(Job(**job)))


@lru_cache(maxsize=1)
def _folder() -> str:
    """Return the folder of this worker; code that is in it can be imported."""
    path = tempfile.mkdtemp(prefix="purple-ray-")
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    with suppress(ValueError):
        sys.path.remove("")
    sys.path.insert(0, path)
    return path


@ENGINES.register("ray")
def ray(*, workers: int | None, threads: int, address: str | None) -> Engine:
    """Return workers of the cluster at an address, or of one that is started on this machine."""
    return Cluster(workers, threads, address)
