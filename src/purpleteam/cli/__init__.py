"""The command line: a thin skin over the rooms; every verb takes --json.

- `app`       `main`, which turns every error into one line and an exit code;  `verbs`: the list
- `commands/` one file for each part of the flow; heavy imports are inside the commands
- `options`   what an option is called and means, the same everywhere;  `outputs`: where --out goes
- `screen`    progress on standard error, the answer or one JSON object on standard output
- `lab`       what the verbs that work on one model share (torch);  `doctor`: what is installed
"""

import os

# Before torch is loaded: threads that wait for each other by spinning cost ten times their work
# as soon as the cores are shared with anything else.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from purpleteam.cli.app import main

__all__ = ["main"]
