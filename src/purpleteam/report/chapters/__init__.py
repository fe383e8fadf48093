"""The chapters of the report, in the order of the flow; each reads the evidence, none measures.

- `story`     in one look: the sentence, the picture and the `cards`
- `data`      which images the numbers are about
- `models`    clean metrics, confusion matrices, precision, recall and F1, training
- `evasion`   white-box attacks over epsilon, and what transferred images claimed
- `poison`    attack success rate beside base rate and clean accuracy
- `defences`  before and after, by attacks on the defended model itself
- `scan`, `threats` (with the `system` and the seeds' tables), `serve`
- `closing`   what was not tested, how to run each number again, all records
"""

from __future__ import annotations

from purpleteam.report.chapters import (
    closing,
    data,
    defences,
    evasion,
    models,
    poison,
    scan,
    serve,
    story,
    threats,
)
from purpleteam.report.collect import Evidence
from purpleteam.report.view import Chapter

__all__ = ["chapters"]

TELLING = (story, data, models, evasion, poison, defences, scan, threats, serve)


def chapters(evidence: Evidence) -> tuple[Chapter, ...]:
    """Return all chapters; what no chapter told is in the last ones, so that nothing is lost."""
    told = tuple(room.chapter(evidence) for room in TELLING)
    return told + closing.chapters(evidence, told)
