"""Look at source, model files, secrets and dependencies; what was not looked at is told too.

- `engine`     `scan(paths, scanners)`;  `scanners`: one file each;  `rules`: our own, of code
- `scanner`    what a scanner is: the files under a path, ScanResult and severities
- `packages`   what is declared to be installed, and published holes in it
- `formats`    what model files are made of, read without trusting them
- `judgement`  the one judgement of a model file, which scan and gate share
- `gate`       foreign weights as plain arrays, or a refusal; nothing is ever unpickled
- `settle`     one finding a fault, unread code, comments that allow;  `against`: an older scan
- `sarif`      a ScanResult as SARIF 2.1.0;  `checks`: the executed checks of this room
"""

import importlib
from typing import TYPE_CHECKING, Any

from purpleteam.scan.sarif import to_sarif
from purpleteam.scan.scanner import SEVERITIES, ScanResult, severity_at_least

if TYPE_CHECKING:
    from purpleteam.scan.engine import scan
    from purpleteam.scan.gate import GateVerdict, read_state_dict
    from purpleteam.scan.scanner import SCANNERS

__all__ = ["SCANNERS", "SEVERITIES", "GateVerdict", "ScanResult", "read_state_dict", "scan"]
__all__ += ["severity_at_least", "to_sarif"]


def __getattr__(name: str) -> Any:
    if name not in __all__:  # the rest needs NumPy
        raise AttributeError(f"module 'purpleteam.scan' has no attribute {name!r}")
    home = "engine" if name in ("SCANNERS", "scan") else "gate"
    return getattr(importlib.import_module(f"purpleteam.scan.{home}"), name)
