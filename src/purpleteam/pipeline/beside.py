"""Several processes for one run: they do its cells ahead, and it takes them over in its order.

Each worker goes through the stages from another end and claims the cells that it does, while the
run does what mostly waits; then the run finds the drafts, and its records are the same as alone.
"""

import json
import signal
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from purpleteam.core.config import build
from purpleteam.core.errors import RunError
from purpleteam.core.plugins import load_plugin
from purpleteam.core.runfolder import Claimed, Drafts
from purpleteam.models.devices import choose_device, use_threads
from purpleteam.pipeline.config import RunConfig
from purpleteam.pipeline.stages.serve import ask_app
from purpleteam.pipeline.stages.threats import check_app
from purpleteam.pipeline.state import Piece, Run, Stage
from purpleteam.verbs._subject import open_dataset

AHEAD = ("models", "attacks", "certify", "defences")
"""The stages that are done ahead: the later ones read the records of the earlier."""
WAITING: tuple[tuple[str, Stage], ...] = (("threats", check_app), ("serve", ask_app))
"""Parts of later stages that need none of the others and mostly wait for the app."""
WORKER = "purpleteam.pipeline.beside"
PAUSE = 0.05  # seconds between two looks at what the others are at


def work_ahead(run: Run) -> None:
    """Have the cells of the first stages drafted by as many processes as the run asks for."""
    drafts = Drafts(run.folder.path)
    drafts.forget_claims()
    ahead = replace(run, folder=drafts)
    start = json.dumps({"run": str(run.folder.path.resolve()), "command": list(run.command)})
    workers = [
        subprocess.Popen(  # noqa: S603 - our own module, no word of the user's
            [sys.executable, "-m", WORKER, start, str(number)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        for number in range(run.processes)
    ]
    try:
        with run.progress.task(f"{run.processes} side by side", run.processes) as task:
            asked = [part for stage, part in WAITING if stage in run.config.stages]
            _draft(drafts, [Piece(part.__name__, partial(part, ahead)) for part in asked])
            for worker in workers:
                if worker.wait():
                    raise RunError(f"a process beside the run ended with code {worker.returncode}")
                task.advance(1)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def work(start: dict[str, object], number: int) -> None:
    """Draft all cells that can be done; worker 0 begins with the first piece, 1 with the last."""
    from purpleteam.pipeline.run import parts_of

    folder = Drafts(Path(str(start["run"])))
    config = build(RunConfig, folder.info["asked"], f"{folder.path.name}/run.json")
    for name in config.plugins:
        load_plugin(name)
    threads = use_threads(config.threads)
    dataset = open_dataset(config.dataset)
    run = Run(folder, config, dataset, choose_device(config.device), threads)
    run.command = tuple(map(str, start["command"]))  # type: ignore[call-overload]
    pieces = [piece for stage in AHEAD for piece in parts_of(run, stage)]
    _draft(folder, pieces, from_last=number % 2 > 0)


def _draft(drafts: Drafts, pieces: list[Piece], from_last: bool = False) -> None:
    """Do all pieces that nobody else is at, until their cells are drafted."""
    ready = deque(pieces[::-1] if from_last else pieces)
    waiting: list[tuple[Piece, str]] = []
    while ready or waiting:
        free = [entry for entry in waiting if not drafts.taken(entry[1])]
        waiting = [entry for entry in waiting if entry not in free]
        ready.extendleft(piece for piece, _ in reversed(free))  # what others need comes first
        if not ready:
            time.sleep(PAUSE)
            continue
        piece = ready.popleft()
        with suppress(Exception, SystemExit):  # the run meets it itself, fails at it and says so
            try:
                inner = list(piece.inner())
            except Claimed as claimed:
                waiting.append((piece, claimed.key))
            else:
                first = len(inner) // 2 if from_last else 0
                ready.extendleft(reversed((*inner[first:], *inner[:first])))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it ends it
    work(json.loads(sys.argv[1]), int(sys.argv[2]))
