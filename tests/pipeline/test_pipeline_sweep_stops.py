"""What stops a sweep costs what was under way and no more; benchmarks/kills.py strikes harder."""

from __future__ import annotations

import os
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
