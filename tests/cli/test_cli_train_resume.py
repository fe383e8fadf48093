"""A training that was stopped goes on when the same command is typed again."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from cli_values import Purple

ASKED = ("train", "--recipe", "plain", "--arch", "small_cnn", "--epochs", "5000", "--out", "net")


def test_a_stopped_training_goes_on_after_its_last_epoch(purple: Purple, here: Path) -> None:
    start = "import sys; from purpleteam.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", start, *ASKED]
    running = subprocess.Popen(command, cwd=here, stderr=subprocess.PIPE)
    checkpoint = here / ".net.checkpoint.safetensors"
    until = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < until:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130 and said.startswith(b"stopped") and checkpoint.exists()
    ended = purple(*ASKED, "--budget", "0.001", "--json")  # stops after one epoch more
    assert (ended.code, ended.err) == (0, "") and ended.json["epochs"] >= 2
    assert not checkpoint.exists()
