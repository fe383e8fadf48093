"""A run that is killed at any moment and resumed says the same bytes as an undisturbed one."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from pathlib import Path

import pytest
from pipeline_tiny import resume

from purpleteam.core.runfolder import RunFolder

SPAWN = multiprocessing.get_context("forkserver")
PATIENCE = 120.0

Moment = Callable[[Path], bool]


def exists(pattern: str) -> Moment:
    return lambda run: any(run.glob(pattern))


def says(text: str) -> Moment:
    def check(run: Path) -> bool:
        path = run / "records.jsonl"
        return path.exists() and text in path.read_text("utf-8", "replace")

    return check


MOMENTS: dict[str, Moment] = {
    "the folder is there": exists("run.json"),
    "the first record is written": exists("records.jsonl"),
    "the baseline is in training": exists("models/.baseline.checkpoint.safetensors"),
    "its weights are stored, its card is not": exists("models/baseline.safetensors"),
    "its net is exported": exists("models/baseline.onnx"),
    "the first outcomes are written": exists("outcomes/*.npz"),
    "a curve is recorded": says('"curve":true'),
    "a picture is painted": exists("images/m-*.png"),
    "a poisoned model is in training": exists("models/.poisoned*checkpoint*"),
    "a second seed is in training": exists("models/.clean-1.checkpoint.safetensors"),
    "the means are recorded": says("attack_success_rate_mean"),
    "hardening is under way": exists("models/.hardened.checkpoint.safetensors"),
    "the hardened model is attacked": says('"model_name":"hardened"'),
    "the scan is written": exists("exports/scan.sarif"),
    "the app was asked": says("served_accuracy"),
}


PRELOADED = ("purpleteam.cli", "purpleteam.pipeline.run", "pipeline_warm")


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    """A process that has loaded everything and forks the runs that are killed."""
    SPAWN.set_forkserver_preload([*PRELOADED])
    with pytest.MonkeyPatch.context() as patch:
        here, given = str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")
        patch.setenv("PYTHONPATH", os.pathsep.join([here, given]))  # it has no other sys.path
        forkserver.ensure_running()
    yield
    forkserver._forkserver._stop()


def killed_when(moment: Moment, later: float, config: Path, out: Path) -> bool:
    """Continue the run until the moment, and `later` seconds more; say whether it was killed."""
    process = SPAWN.Process(target=resume, args=(config, out))
    process.start()
    deadline = time.monotonic() + PATIENCE
    while process.is_alive() and not moment(out) and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(later)
    if process.is_alive() and process.pid is not None:
        os.kill(process.pid, signal.SIGKILL)
    process.join(PATIENCE)
    return process.exitcode == -signal.SIGKILL


def test_a_run_killed_at_fifteen_moments_ends_with_the_same_bytes(
    request_file: Path, finished: Path, tmp_path: Path
) -> None:
    chance = random.Random(7)  # noqa: S311  no secret
    out = tmp_path / "killed"
    struck = [
        name
        for name, moment in MOMENTS.items()
        if killed_when(moment, chance.uniform(0, 0.15), request_file, out)
    ]
    assert len(struck) >= 12, struck
    assert not killed_when(lambda _: False, 0, request_file, out)
    answer = json.loads(out.with_suffix(".answer").read_text("utf-8"))
    assert answer["run"] == str(out)
    ours, theirs = RunFolder.open(out), RunFolder.open(finished)
    assert ours.metrics() == theirs.metrics()
    assert ours.info["artefacts"] == theirs.info["artefacts"]
    assert ours.info["status"] == "finished"
