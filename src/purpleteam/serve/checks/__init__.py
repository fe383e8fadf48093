"""Executed checks of a running app: `web.*`. Each must fail on a careless one first.

- `pages`        headers on every response, no inline code in the page, no debugger
- `requests`     sizes, methods, malformed requests; the label alone, the digest of the model
- `connections`  what one client can take: heads, pipelines, time, places; loopback alone
- `offline`      `model.no-upload`: models are run without a socket and without a trace
- `_web`         how they ask, with the standard library alone, and a server wrong in every way
"""

from __future__ import annotations

import sys

from purpleteam.core.checks import CHECKS

CHECKS.load(sys.modules[__name__])
