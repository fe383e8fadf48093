"""Check that the app's process can reach nothing: one is started, and the kernel is asked of it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from purpleteam.core.cards import find_stored
from purpleteam.core.checks import CHECKS, Check, Outcome, Target
from purpleteam.core.errors import Absent, ModelError
from purpleteam.serve.checks._web import STROKE, ask

SERVE = (sys.executable, "-P", "-m", "purpleteam", "serve", "--port", "0", "--json", "--model")
WANTED = {"NoNewPrivs": "1", "Seccomp": "2", "CapEff": "0" * 16, "root": "no"}
"""What the kernel says of the process: no new rights, a filter of calls, no capability."""


@CHECKS.register("web.sandbox")
class Sandbox(Check):
    """The app's process is denied files, programs, other processes and connections, as it tries.

    `purple serve` is started on the served model, as a process of its own. What it says that it
    tried is a claim; that it runs confined and without rights is what the kernel says of it.
    """

    needs = ("url", "model")  # of a running app, but not in the process of the check

    def examine(self, target: Target) -> Outcome:
        if target.model is not None and target.model.is_dir():
            raise Absent("a folder of models: which of them is served?")
        model = find_stored(str(target.model))
        with started(target.command or (*SERVE, str(model.weights))) as (number, url):
            status = Path(f"/proc/{number}/status").read_text(encoding="utf-8")
            told = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
            told["root"] = "yes" if "0" in told["Uid"].split() else "no"
            facts = json.loads(ask(url, "GET", "/version").body)
            label = json.loads(ask(url, "POST", "/predict", STROKE).body)
        kernel = {name: told.get(name, "").strip() for name in WANTED}
        return Outcome(
            passed=kernel == WANTED and facts.get("sandbox") is True and "label" in label,
            measured={**kernel, "all that it tried is denied": facts.get("sandbox"), **label},
            threshold={**WANTED, "all that it tried is denied": True},
            inputs={model.stem.name: model.card.digest},
        )

    def bad_example(self, folder: Path) -> Target:
        model = find_stored("standard").weights
        return Target(url="", model=model, command=(*SERVE, str(model), "--set", "sandbox=false"))


@contextmanager
def started(command: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Start the app; yield the number of its process and its address, then end it."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:  # noqa: S603
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line.strip():
                why = process.stderr.read() if process.stderr else ""
                raise ModelError(f"the app did not start: {' '.join(why.split())[:200]}")
            if "url" not in (told := json.loads(line)):
                raise ModelError(f"the app did not start: {told['error']['message']}")
            yield process.pid, told["url"]
        finally:
            process.terminate()
