"""Executed checks of a running app: `web.*`. Each must fail on the careless server first.

- `answers`   what /predict and /version say: the label alone, the digest of the model
- `pages`     headers on every response, no inline code in the page, no debugger
- `requests`  what comes in: sizes, methods, malformed requests
- `address`   where it listens: loopback, unless somebody asked for more
- `_client` asks with the standard library alone;  `_careless` is wrong in every way
"""

from __future__ import annotations

import sys

from purpleteam.core.checks import CHECKS

CHECKS.load(sys.modules[__name__])
