"""A process that does jobs: a line of JSON in for each, two out; it ends when its input does."""

import json
import os
import signal
import sys
import threading
import time
from base64 import b64encode
from dataclasses import asdict

from purpleteam.core.plugins import load_plugin
from purpleteam.pipeline.engines import Job
from purpleteam.pipeline.engines._job import do

LOOK = 1.0  # seconds between two looks whether the driver is still there


def main() -> None:
    """Do what comes, and say when it begins; what others print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    for name in sys.argv[1:]:
        load_plugin(name)
    for line in sys.stdin:
        try:
            answers.write("begun\n")
            answers.flush()
            told = asdict(do(Job(**json.loads(line))))
            told["files"] = {name: b64encode(made).decode() for name, made in told["files"].items()}
            answers.write(f"{json.dumps(told)}\n")
            answers.flush()
        except BrokenPipeError:  # the driver was killed
            os._exit(1)


def _end_with(parent: int) -> None:
    """End at once where the driver was killed: nobody reads the answer."""
    while os.getppid() == parent:
        time.sleep(LOOK)
    os.killpg(0, signal.SIGKILL)  # with what was started here, such as an app that is asked


if __name__ == "__main__":
    main()
