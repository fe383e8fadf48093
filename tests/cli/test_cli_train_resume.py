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
    first = purple(*ASKED, "--budget", "0.001", "--json")  # stops after one epoch more
    assert first.code == 0 and "of 5000 epochs; typed again, it goes on" in first.json["notes"][-1]
    again = purple(*ASKED, "--budget", "0.001", "--json")
    assert again.json["epochs"] == first.json["epochs"] + 1 >= 3
    assert checkpoint.exists()


def test_a_whole_training_leaves_no_checkpoint(purple: Purple, here: Path) -> None:
    whole = purple(*ASKED[:5], "--epochs", "1", "--out", "net", "--budget", "5", "--json")
    assert (whole.code, whole.err, whole.json["epochs"]) == (0, "", 1)
    assert not list(here.glob(".net*"))
