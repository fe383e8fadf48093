"""The command line: a thin skin over the rooms; every verb takes --json.

- `app`       the verbs, and `main`, which turns every error into one line and an exit code
- `commands/` one file for each part of the flow; heavy imports are inside the commands
- `options`   what an option is called and means, the same everywhere
- `screen`    progress bars and tables on standard error, JSON on standard output
"""

import os

# Before torch is loaded: threads that wait for each other by spinning cost ten times their work
# as soon as the cores are shared with anything else.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from purpleteam.cli.app import main

__all__ = ["main"]
