"""Executed checks of a running app: `web.*`. Each must fail on a careless one first.

- `answers`   what /predict and /version say: the label alone, the digest of the model
- `pages`     headers on every response, no inline code in the page, no debugger
- `requests`  what comes in: sizes, methods, malformed requests
- `connections` what one client can take: heads, pipelines, time, places
- `address`   where it listens: loopback, unless somebody asked for more
- `offline`   `model.no-upload`: models are run without a socket and without a trace
- `_client` asks with the standard library alone;  `_careless` is wrong in every way
"""

from __future__ import annotations

import sys

from purpleteam.core.checks import CHECKS

CHECKS.load(sys.modules[__name__])
