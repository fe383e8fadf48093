"""Executed checks of a running app: `web.*`. Each must fail on a careless server first."""

import sys

from purpleteam.core.checks import CHECKS

CHECKS.load(sys.modules[__name__])
