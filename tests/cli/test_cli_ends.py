"""How a command ends when somebody, or the system, ends it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from purpleteam.core.runfolder import DRAFTS

PURPLE = [sys.executable, "-c", "from purpleteam.cli import main; main()"]


def test_a_run_that_is_stopped_says_how_to_go_on_and_knows_that_it_was(tmp_path: Path) -> None:
    command = [*PURPLE, "demo", "--out", str(tmp_path / "run"), "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        until = time.monotonic() + 120
        while not (tmp_path / "run" / DRAFTS).exists() and time.monotonic() < until:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err == "stopped; a run goes on with --resume, a sweep as it was typed\n"
    info = json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))
    assert info["status"] == "stopped"


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = subprocess.list2cmdline([*PURPLE[:1], "-c"])
    code = "from purpleteam.cli import main; main(['doctor', '--json'])"
    ended = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} \"{code}\" | true"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("asked", ["doctor --json", "doctor", "--version", "--help"])
@pytest.mark.parametrize("buffered", [True, False])
def test_a_full_disk_is_one_line(asked: str, buffered: bool) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [*PURPLE, *asked.split()], stdout=full, stderr=subprocess.PIPE, text=True,
            check=False, timeout=60, env=os.environ | {"PYTHONUNBUFFERED": "" if buffered else "1"},
        )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (2, "error: No space left on device\n")
