"""A process that does jobs of a run beside it: `python -m purpleteam.pipeline.helper`.

It is started by `pipeline.beside`, with what the run is as JSON in its one argument. It reads a
job a line, does it with the run's own stages, and answers with a line: {} or {"failed": ...}.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

from purpleteam.core.config import build
from purpleteam.core.drafts import Drafts
from purpleteam.core.plugins import load_plugin
from purpleteam.models.devices import choose_device, use_threads
from purpleteam.pipeline.beside import Job
from purpleteam.pipeline.config import RunConfig
from purpleteam.pipeline.stages.lab import do_job
from purpleteam.pipeline.state import Run
from purpleteam.verbs._subject import open_dataset


def serve(start: Mapping[str, Any], jobs: Iterable[str], answers: TextIO) -> None:
    """Do one job a line of `jobs`, and answer each.

    Args:
        start: {"run": path of the run folder, "command": the command line that was typed}.
        jobs: lines of JSON, each the fields of a `Job`.
        answers: receives a line of JSON for each.
    """
    folder = Drafts(Path(start["run"]))
    config = build(RunConfig, folder.info["asked"], f"{folder.path.name}/run.json")
    for name in config.plugins:
        load_plugin(name)
    threads = use_threads(config.threads)
    dataset = open_dataset(config.dataset)
    run = Run(folder, config, dataset, choose_device(config.device), threads)
    run.command = tuple(start["command"])
    for line in jobs:
        folder.look_again()
        answer: dict[str, str] = {}
        try:
            do_job(run, Job(**json.loads(line)))
        except Exception as error:  # the run does it itself, fails at it and says so
            answer = {"failed": str(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it ends it
    answers, sys.stdout = sys.stdout, sys.stderr  # nobody's print is an answer
    serve(json.loads(sys.argv[1]), sys.stdin, answers)
