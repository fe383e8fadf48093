"""What stops a sweep costs what was under way and no more; benchmarks/kills.py strikes harder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from purpleteam.core.errors import RunError
from purpleteam.core.runfolder import RunFolder
from purpleteam.pipeline.plan import read_plan
from purpleteam.pipeline.sweep import Swept, run_sweep

SWEEP = """
name: tiny
cells:
  - {verb: evaluate, model: [standard, robust-0.3], dataset: digits, limit: [20, 30]}
"""

KILLED = """
import os, torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(784, 10)
        torch.nn.init.eye_(self.layer.weight), torch.nn.init.zeros_(self.layer.bias)
    def forward(self, x):
        if len(x) == 23:
            os.kill(os.getpid(), 9)
        return self.layer(x.flatten(1))
def build():
    return Net()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP, encoding="utf-8")
    return path


def swept(file: Path, out: Path) -> Swept:
    return run_sweep(read_plan(file), out)


def found(out: Path) -> tuple[str, bytes]:
    return RunFolder.open(out).metrics(), (out / "exports" / "sweep.csv").read_bytes()


def test_a_full_disk_ends_a_sweep_with_its_remedy_and_loses_nothing(
    file: Path, tmp_path: Path
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full, where every write fails")
    whole, out = swept(file, tmp_path / "whole").run, tmp_path / "out"
    (out / "exports").mkdir(parents=True)
    table = out / "exports" / f".sweep.csv.{os.getpid()}.tmp"
    table.symlink_to("/dev/full")
    with pytest.raises(RunError, match=r"no space is left for .* give the same command again"):
        swept(file, out)
    table.unlink()
    assert swept(file, out).before == 4
    assert found(out) == found(whole)


def test_workers_that_are_killed_leave_no_temporary_files(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(KILLED, encoding="utf-8")
    block = "{verb: evaluate, model: own.py:build, dataset: digits, limit: 23}"
    (tmp_path / "sweep.yaml").write_text(f"cells: [{block}]", encoding="utf-8")
    (tmp_path / "temporary").mkdir()
    ended = subprocess.run(
        [sys.executable, "-m", "purpleteam", "sweep", "sweep.yaml"],
        cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(tmp_path / "temporary")},
        capture_output=True,
        check=False,
        text=True,
    )
    assert ended.returncode == 2 and "crashed 3 times" in ended.stderr
    assert list((tmp_path / "temporary").iterdir()) == []
