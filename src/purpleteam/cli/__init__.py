"""The command line: a thin skin over the rooms; every verb takes --json.

- `app`       `main`, which turns every error into one line and an exit code
- `flow`      the list of verbs;  `build`: a command for each, from the verb's own parameters
- `runs`, `data`, `evidence`, `serve`: the commands that are written by hand
- `options`   what an option is called and means, the same everywhere
- `screen`    progress on standard error, the answer or one JSON object on standard output
- `doctor`    what is installed
"""

import os

# Before torch is loaded: threads that wait for each other by spinning cost ten times their work
# as soon as the cores are shared with anything else.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from purpleteam.cli.app import main

__all__ = ["main"]
