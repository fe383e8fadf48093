"""A run folder in, report.html and report.md out: no torch, no re-running, no clock."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from purpleteam.core.verification import Verification
from purpleteam.report.chapters import chapters
from purpleteam.report.collect import Evidence
from purpleteam.report.html import to_html
from purpleteam.report.markdown import to_markdown


@dataclass(frozen=True, kw_only=True)
class ReportFiles:
    """Where the report was written."""

    html: Path
    markdown: Path
    verification: Verification | None = None
    """What was found about the run folder; what is wrong is on the page too."""


def render(run: Path) -> ReportFiles:
    """Write report.html and report.md into the run folder; the same folder gives the same bytes.

    A run that fails its verification is rendered too, under a banner that says so.

    Raises:
        RunError: the folder is no run, or not one of its records can be read.
    """
    evidence, html, markdown = _pages(run)
    files = ReportFiles(
        html=run / "report.html", markdown=run / "report.md", verification=evidence.verification
    )
    files.html.write_text(html, encoding="utf-8", newline="\n")
    files.markdown.write_text(markdown, encoding="utf-8", newline="\n")
    return files


def differing(run: Path) -> list[str]:
    """Return which of the two files are there and are not what the run folder renders to."""
    _, html, markdown = _pages(run)
    pages = {"report.html": html, "report.md": markdown}
    return [
        name
        for name, text in pages.items()
        if (run / name).exists() and (run / name).read_bytes() != text.encode()
    ]


def _pages(run: Path) -> tuple[Evidence, str, str]:
    evidence = Evidence.read(run)
    told = chapters(evidence)
    return evidence, to_html(evidence, told), to_markdown(evidence, told)
