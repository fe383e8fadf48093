"""The chapters of the report, in the order of the flow; each reads the evidence, none measures.

- `story`     in one look: the sentence, the picture and the `cards`
- `data`      which images the numbers are about
- `models`    clean metrics, confusion matrices, precision, recall and F1, training
- `evasion`   white-box attacks over epsilon, and what transferred images claimed
- `poison`    attack success rate beside base rate and clean accuracy
- `certify`   what no adversary within a bound can change
- `defences`  before and after, by attacks on the defended model itself
- `backdoors` the poison lab: attack, detection and repair side by side
- `scan`, `threats` (with the `system` and the seeds' tables), `serve`
- `closing`   what was not tested, how to run each number again, all records
"""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

from purpleteam.core.records import Failure
from purpleteam.report.chapters import (
    backdoors,
    certify,
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
from purpleteam.report.view import Badge, Chapter, Prose, RecordLink

__all__ = ["chapters"]

TELLING = (
    *(story, data, models, evasion, poison, certify, defences, backdoors),
    *(scan, threats, serve),
)
STAGES = {
    models: "models",
    evasion: "attacks",
    poison: "attacks",
    certify: "certify",
    defences: "defences",
    backdoors: "defences",
    scan: "scan",
    threats: "threats",
    serve: "serve",
}
"""Which stage of the run a chapter tells of; the others tell of the whole."""


def chapters(evidence: Evidence) -> tuple[Chapter, ...]:
    """Return all chapters; what no chapter told is in the last ones, so that nothing is lost."""
    told: list[Chapter] = []
    for room in TELLING:
        if _asked(evidence, room):
            chapter = room.chapter(evidence)
            stage = STAGES.get(room, chapter.id)
            missing = [_failed(one) for one in evidence.failures(stage)]
            told.append(replace(chapter, blocks=(*missing, *chapter.blocks)))
    return (*told, *closing.chapters(evidence, told))


def _failed(one: Failure) -> Prose:
    """Say at the head of a chapter what it lacks."""
    text = f" {one.what}: {one.reason} "
    return Prose((Badge("failed", "bad"), text, RecordLink(one.id)), style="callout")


def _asked(evidence: Evidence, room: ModuleType) -> bool:
    """Say whether what a chapter tells of was asked for: what was left out has no empty one."""
    asked = evidence.info.get("asked")
    asked = asked if isinstance(asked, dict) else {}
    if room is backdoors:
        return backdoors.is_told_of(evidence)
    if room is certify:
        return bool(evidence.find("certified_accuracy"))
    if room is defences and asked.get("defences", {}).get("recipes", True) == []:
        return False
    stages = asked.get("stages")
    return stages is None or room not in STAGES or STAGES[room] in stages
