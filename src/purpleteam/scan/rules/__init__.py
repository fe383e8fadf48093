"""Our own rules for machine-learning code, PT001 upwards; one file for each kind of hole.

- `rule`      what a rule is, the parsed file that it looks at, and the registry RULES
- `loading`   PT001 unsafe torch.load, PT002 an unsafe second try, PT003 pickle and its kin,
              PT004 NumPy object arrays, PT009 unsafe YAML, PT008 eval and exec,
              PT011 code that comes with a downloaded model
- `web`       PT005 debug server, PT006 public share, PT007 exception text to a client,
              PT010 upload without a limit, PT012 all confidences to a client

Where Bandit knows the same hole (B301, B307, B506, B614, B201), both findings are kept, each with
its tool: two tools that agree are worth more than one. PT020, secrets, is a scanner of its own.
"""

from __future__ import annotations

import sys

from purpleteam.scan.rules.rule import RULES

__all__ = ["RULES"]

RULES.load(sys.modules[__name__])
