"""The chapters of the report, one file each; each declares what it is about, and measures nothing.

They come in the order of the flow: data, models, evasion, poison, certify, defences, backdoors,
scan, threats, serve. A plug-in adds one to CHAPTERS.
Around them stand `first`, the first screen, and `closing`: what was not tested, and all records.
"""

from __future__ import annotations

import sys

from purpleteam.report.chapter import CHAPTERS, ordered
from purpleteam.report.chapters.closing import all_records, gaps, not_tested
from purpleteam.report.chapters.first import first_section
from purpleteam.report.collect import Evidence
from purpleteam.report.view import Section

__all__ = ["sections"]

CHAPTERS.load(sys.modules[__name__])


def sections(evidence: Evidence) -> tuple[Section, ...]:
    """Return the sections of the page; what no chapter tells is in the last one."""
    chapters = {name: one for name, one in ordered().items() if one.is_told(evidence)}
    told = [chapter.section(name, evidence) for name, chapter in chapters.items()]
    first = first_section(evidence, gaps(evidence), set(chapters))
    return first, *told, not_tested(evidence), all_records(evidence, (first, *told))
