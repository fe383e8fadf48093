"""The command line: a thin skin over the rooms; every command takes --json.

- `app`       `main`, which turns every error into one line and an exit code
- `build`     a command's options, made from the parameters of a verb or of a function here
- `runs`, `doctor`: what is no verb of `purpleteam.verbs`
- `screen`    progress on standard error, the answer or one JSON object on standard output
"""

import atexit
import gc
import os
import sys

# Before torch is loaded: threads that wait for each other by spinning cost ten times their work
# as soon as the cores are shared with anything else.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def main(arguments: list[str] | None = None) -> None:
    """Run `purple` (`app.main`)."""
    if arguments is None:
        gc.disable()  # what is loaded is no garbage
        atexit.register(gc.freeze)  # nor is what is left at the end
        if sys.argv[1:2] == ["scan"]:
            from purpleteam.scan.scanners.bandit_code import start

            start(sys.argv[2:])  # beside the rest of this command
    from purpleteam.cli.app import main as run

    if arguments is None:
        gc.freeze()
        gc.enable()
    run(arguments)


__all__ = ["main"]
