"""What can go wrong with a system, and what the executed checks say about it; no torch.

    system.yaml   an image classifier: parts, flows, threats and mitigations, each with when it is
                  there; a file of a user's own has the same form
    model         a system as frozen data; STRIDE; risk by the OWASP matrix
    loading       reads one, refuses nonsense, and leaves out what is not there
    status        from check results to mitigations to threats; the matrix, what is missing, counts
    diagram       the data-flow diagram as SVG
    facts         all of it as plain JSON for the run's record

A mitigation is a sentence with the checks that prove it, and with what they must have looked at.
The rooms that own those checks run them; here their results are only read.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "SystemModel": "model",
    "derive": "status",
    "draw": "diagram",
    "load_system": "loading",
    "matrix": "status",
    "missing": "status",
    "summary": "status",
    "system_from": "loading",
    "to_facts": "facts",
    "unmodelled": "status",
    "verdicts": "status",
}

__all__ = [
    "SystemModel",
    "derive",
    "draw",
    "load_system",
    "matrix",
    "missing",
    "summary",
    "system_from",
    "to_facts",
    "unmodelled",
    "verdicts",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"purpleteam.threats.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'purpleteam.threats' has no attribute {name!r}")
