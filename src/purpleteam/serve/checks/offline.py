"""Check that the stored models run without opening a connection or leaving a file behind."""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from purpleteam.core.checks import CHECKS, Check, Outcome, Target
from purpleteam.core.errors import ModelError
from purpleteam.core.scratch import scratch
from purpleteam.serve import seccomp

SECONDS = 120.0
ASK = """
import sys
from pathlib import Path
import numpy as np
from purpleteam.core.cards import find_stored
from purpleteam.serve.engine import open_session
path = Path(sys.argv[1])
for model in sorted(path.glob("[!.]*.safetensors")) if path.is_dir() else [path]:
    stored = find_stored(str(model))
    stored.verify()
    session = open_session(stored)
    session.run(None, {session.get_inputs()[0].name: np.zeros((1, *stored.card.shape), np.float32)})
    print(stored.card.digest, stored.card.name)
"""
CARELESS = """
import socket
from pathlib import Path
Path.home().joinpath("deviceid").write_text("1")
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
"""
WITHOUT_SOCKETS = """
import os, sys
from purpleteam.serve.seccomp import KILL, install, program
install(program(["socket"], verdict=KILL))
os.execv(sys.argv[1], sys.argv[1:])
"""


@CHECKS.register("model.no-upload")
class NoUpload(Check):
    """Running the stored models opens no connection and leaves no file behind.

    Each is opened and asked in a process that may make no socket. Its home, temporary and working
    folders are empty before, and must be afterwards.
    """

    needs = ("model",)

    def examine(self, target: Target) -> Outcome:
        model = (target.model or Path()).resolve()
        command = target.command or (sys.executable, "-c", ASK, str(model))
        if not seccomp.supported():
            raise ModelError("only Linux on x86_64 or aarch64 can forbid a process its sockets")
        wall = (sys.executable, "-c", WITHOUT_SOCKETS)
        with tempfile.TemporaryDirectory(prefix="purple-offline-", dir=scratch()) as empty:
            places = dict.fromkeys(("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"), empty)
            done = subprocess.run(  # noqa: S603 - our own command
                [*wall, *command],
                cwd=empty,
                env={**places, "PYTHONPATH": ":".join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"},
                capture_output=True,
                timeout=SECONDS,
                text=True,
                check=False,
            )
            written = sorted(path.name for path in Path(empty).iterdir())
        killed = done.returncode == -signal.SIGSYS
        if done.returncode and not killed:
            raise ModelError(" ".join(done.stderr.split("\n")[-2:]).strip() or "it ended early")
        asked = [line.split(" ", 1) for line in done.stdout.splitlines()]
        return Outcome(
            passed=bool(asked) and not killed and not written,
            measured={"models": len(asked), "opened a socket": killed, "written": written},
            threshold="a model at least, no socket, no file",
            inputs={name: digest for digest, name in asked},
        )

    def bad_example(self, folder: Path) -> Target:
        return Target(model=folder, command=(sys.executable, "-c", CARELESS))
