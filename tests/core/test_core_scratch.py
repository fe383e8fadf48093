"""The temporary folder of a process goes with it, or with the next one where it was killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fcntl", reason="without locks nobody knows what was left")
MAKES = "from purpleteam.core.scratch import scratch; print(scratch(), flush=True); "


def process(folder: Path, then: str) -> subprocess.Popen[str]:
    """Start a process that tells its temporary folder, which is made in `folder`."""
    return subprocess.Popen(
        [sys.executable, "-c", MAKES + then],
        env=os.environ | {"TMPDIR": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_process_that_ends_takes_its_folder_along(tmp_path: Path) -> None:
    told, _ = process(tmp_path, "assert scratch().is_dir()").communicate()
    assert Path(told.strip()).parent == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_goes_with_the_next_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "purple_others").touch()
    lives = process(tmp_path, "input()")
    assert lives.stdout is not None
    used = Path(lives.stdout.readline().strip())
    dies = "(scratch() / 'half').touch(); import os; os.kill(os.getpid(), 9)"
    left = Path(process(tmp_path, dies).communicate()[0].strip())
    assert (left / "half").exists()
    process(tmp_path, "").communicate()
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "purple_others", used])
    lives.communicate("\n")
    assert not used.exists()
