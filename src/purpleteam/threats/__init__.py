"""What can go wrong with the whole system, and what the executed checks say about it; no torch.

    system.yaml   the MNIST app: parts, flows, threats, mitigations, and two earlier reports
    model         a system as frozen data;  `loading` reads one, `validation` refuses nonsense
    stride        the six letters and the cells that each kind of part must answer
    risk          likelihood x impact by the OWASP matrix; what a verified mitigation takes off
    status        from verdicts to mitigations to threats; nothing here can be typed
    tables        the matrix of parts and letters, what is missing, counts
    seeds         the earlier reports' own tables, theirs beside ours
    layout        where everything lies;  `diagram` draws the data-flow diagram as SVG
    facts         all of it as plain JSON for the run's record

A mitigation is a sentence with the checks that prove it. The rooms that own those checks run them;
here their verdicts are only read.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "SystemModel": "model",
    "derive": "status",
    "draw": "diagram",
    "load_system": "loading",
    "matrix": "tables",
    "missing": "tables",
    "seed_a_matrix": "seeds",
    "seed_b_appendix": "seeds",
    "seed_b_categories": "seeds",
    "seed_lines": "seeds",
    "summary": "tables",
    "system_from": "loading",
    "to_facts": "facts",
    "unmodelled": "tables",
    "verdicts": "status",
}

__all__ = [
    "SystemModel",
    "derive",
    "draw",
    "load_system",
    "matrix",
    "missing",
    "seed_a_matrix",
    "seed_b_appendix",
    "seed_b_categories",
    "seed_lines",
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
