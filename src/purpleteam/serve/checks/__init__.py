"""Executed checks of a running app: `web.*`. Each must fail first on the app without that part."""

import sys

from purpleteam.core.checks import CHECKS

CHECKS.load(sys.modules[__name__])
