"""Executed checks of a running app: `web.*`. Each must fail on a careless one first.

- `requests`     sizes, methods, malformed requests, headers, the page; the label alone, the digest
- `connections`  what one client can take: heads, pipelines, time, places; loopback alone
- `offline`      `model.no-upload`: models are run without a socket and without a trace
- `_web`         how they ask, with the standard library alone, and a server wrong in every way
"""

import sys

from purpleteam.core.checks import CHECKS

CHECKS.load(sys.modules[__name__])
