"""A run folder in, report.html and report.md out: no torch, no re-running, no clock."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from purpleteam.report.chapters import chapters
from purpleteam.report.collect import Evidence
from purpleteam.report.html import to_html
from purpleteam.report.markdown import to_markdown

__all__ = ["ReportFiles", "render"]


@dataclass(frozen=True, kw_only=True)
class ReportFiles:
    """Where the report was written."""

    html: Path
    markdown: Path


def render(run: Path) -> ReportFiles:
    """Write report.html and report.md into the run folder; the same folder gives the same bytes.

    Raises:
        RunError: the folder is no run, or its chain of records is broken.
    """
    evidence = Evidence.read(run)
    told = chapters(evidence)
    files = ReportFiles(html=run / "report.html", markdown=run / "report.md")
    files.html.write_text(to_html(evidence, told), encoding="utf-8", newline="\n")
    files.markdown.write_text(to_markdown(evidence, told), encoding="utf-8", newline="\n")
    return files
