"""What fails is recorded with its reason, the rest goes on, and --resume tries it again."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from purpleteam.cli import main
from purpleteam.core.errors import RunError
from purpleteam.core.records import Failure, Measurement, Record
from purpleteam.core.runfolder import RunFolder
from purpleteam.core.verification import verify
from purpleteam.data.folders import load_dataset, save_dataset
from purpleteam.pipeline.replay import replay_some

NETS = '''
import errno, pathlib
import torch
from torch import nn


class Net(nn.Module):
    """Reads the 23 test images only while it is allowed to."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(784, 10)

    def forward(self, x):
        how = pathlib.Path(__file__).with_name("how").read_text()
        if len(x) == 23 and how == "broken":
            raise RuntimeError("not these\\n23")
        if len(x) == 23 and how == "stopped":
            raise KeyboardInterrupt
        if len(x) == 23 and how == "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.head(x.flatten(1))


def net():
    return Net()
'''
CONFIG = """
dataset = "{folder}/few"
device = "cpu"
stages = ["data", "models", "certify", "defences"]
[models]
recipe = "plain"
epochs = 1
redrawn = 0
[defences]
recipes = ["pgd"]
[certify]
changes = [1]
parts = 4
[backdoors]
own = false
"""
BROUGHT = 'models.use="failing_nets:net"'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Few digits, a net that can be broken, and what is asked."""
    digits = load_dataset("digits")
    few = {"train": digits.train.part(0, 40), "test": digits.test.part(0, 23)}
    save_dataset(replace(digits, validation=digits.validation.part(0, 20), **few), tmp_path / "few")
    (tmp_path / "failing_nets.py").write_text(NETS, "utf-8")
    state = {"head.weight": torch.zeros(10, 784), "head.bias": torch.arange(10.0)}
    save_file(state, tmp_path / "net.safetensors")
    (tmp_path / "asked.toml").write_text(CONFIG.format(folder=tmp_path.as_posix()), "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("failing_nets", None)


@pytest.fixture
def started(folder: Path) -> Callable[..., int]:
    """Run what is asked with the net that is brought, and return the exit code."""

    def start(how: str, *more: str) -> int:
        (folder / "how").write_text(how, "utf-8")
        asked = ["run", "--config", f"{folder}/asked.toml", "--out", f"{folder}/run"]
        with pytest.raises(SystemExit) as ended:
            main([*asked, *more])
        return int(ended.value.code or 0)

    return start


def brought(folder: Path) -> tuple[str, ...]:
    stages = 'stages=["data","models","certify"]'
    return ("--set", BROUGHT, "--weights", f"{folder}/net.safetensors", "--set", stages)


def failures(folder: Path) -> list[Failure]:
    return [one for one in records(folder) if isinstance(one, Failure)]


def records(folder: Path) -> list[Record]:
    return RunFolder.open(folder / "run").records()


def measured(folder: Path) -> set[str]:
    return {one.name for one in records(folder) if isinstance(one, Measurement)}


def test_what_fails_is_recorded_and_the_rest_goes_on(
    folder: Path, started: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert started("broken", *brought(folder), "--json") == 2
    said = capsys.readouterr()
    (failure,) = failures(folder)
    assert (failure.stage, failure.what) == ("models", "train models")
    assert "not these 23" in failure.reason and "\n" not in failure.reason
    assert json.loads(said.out)["failures"][0]["reason"] == failure.reason
    assert said.err == f"failed: models: train models: {failure.reason}\n"
    assert "certified_accuracy" in measured(folder)
    assert RunFolder.open(folder / "run").info["status"] == "incomplete"
    assert verify(folder / "run").verdict == "unknown"
    page = (folder / "run" / "report.html").read_text("utf-8")
    assert "This run is not finished" in page.split("<h1>")[0]
    assert page.count("not these 23") >= 3  # the chapter, the gaps, all records


def test_resume_tries_again_and_ends_as_an_undisturbed_run(
    folder: Path, started: Callable[..., int]
) -> None:
    assert started("broken", *brought(folder)) == 2
    assert started("broken", *brought(folder), "--resume") == 2
    assert len(failures(folder)) == 1
    assert started("whole", *brought(folder), "--resume") == 0
    resumed = RunFolder.open(folder / "run")
    assert failures(folder) == [] and verify(resumed.path).verdict == "pass"
    assert {one.agrees for one in replay_some(resumed.path, 2)} == {True}
    metrics = resumed.metrics()
    resumed.path.rename(folder / "resumed")
    assert started("whole", *brought(folder)) == 0
    assert sorted(RunFolder.open(folder / "run").metrics().splitlines()) == sorted(
        metrics.splitlines()
    )


def test_what_needs_something_that_failed_says_so_and_does_not_try_it_again(
    folder: Path, started: Callable[..., int]
) -> None:
    assert started("broken", "--set", 'architecture="failing_nets:net"') == 2
    trained, hardened = failures(folder)
    assert (trained.what, trained.needs) == ("train models", "")
    assert (hardened.what, hardened.needs) == ("harden models", "train baseline")
    assert "certified_accuracy" in measured(folder)


def test_a_stop_is_no_failure_of_a_stage(folder: Path, started: Callable[..., int]) -> None:
    assert started("stopped", *brought(folder)) == 130
    assert failures(folder) == []
    assert RunFolder.open(folder / "run").info["status"] == "stopped"


def test_a_full_disk_ends_the_run_with_its_remedy(
    folder: Path, started: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert started("full", *brought(folder)) == 2
    assert "no space is left for" in (said := capsys.readouterr().err) and "--resume" in said
    assert failures(folder) == []


def test_a_traceback_comes_with_debug_alone(
    folder: Path, started: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert started("broken", *brought(folder), "--debug") == 2
    assert "Traceback" in capsys.readouterr().err
    assert RunFolder.open(folder / "run").info["status"] == "incomplete"
    with pytest.raises(RunError, match="already holds a run"):
        RunFolder.create(folder / "run", {})
