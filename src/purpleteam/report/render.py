"""A run folder in, report.html and report.md out: no torch, no re-running, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from purpleteam.core.plugins import load_chapters
from purpleteam.core.verification import PROVES, Verification
from purpleteam.report.chapters import sections
from purpleteam.report.chapters.closing import record_views
from purpleteam.report.chapters.first import called
from purpleteam.report.collect import Evidence
from purpleteam.report.html import to_html
from purpleteam.report.markdown import to_markdown
from purpleteam.report.view import Banner, Page


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
    evidence = Evidence.read(run)
    files = {name: run / name for name in ("report.html", "report.md")}
    for name, text in _pages(evidence).items():
        files[name].write_text(text, encoding="utf-8", newline="\n")
    return ReportFiles(
        html=files["report.html"],
        markdown=files["report.md"],
        verification=evidence.verification,
    )


def differing(run: Path) -> list[str]:
    """Return which of the two files are there and are not what the run folder renders to."""
    return [
        name
        for name, text in _pages(Evidence.read(run)).items()
        if (run / name).exists() and (run / name).read_bytes() != text.encode()
    ]


def _pages(evidence: Evidence) -> dict[str, str]:
    checked = evidence.verification
    whole = checked is not None and checked.verdict == "pass"
    plugins = evidence.asked.get("plugins")
    for name in plugins if isinstance(plugins, list) else ():
        load_chapters(str(name))
    page = Page(
        title=_title(evidence),
        facts=tuple(_facts(evidence.info)),
        banner=_banner(checked),
        verified=f"Records and files are as run.json has them. {PROVES}" if whole else "",
        sections=sections(evidence),
        records=record_views(evidence),
    )
    return {"report.html": to_html(page), "report.md": to_markdown(page)}


def _title(evidence: Evidence) -> str:
    """Return what the run was about: its name, else the model and the images."""
    asked = evidence.asked
    if asked.get("name"):
        return f"Purpleteam: {asked['name']}"
    dataset = str(asked.get("dataset") or "").rstrip("/").rsplit("/", 1)[-1]
    about = " on ".join(filter(None, (called(evidence), dataset)))
    return f"Purpleteam: {about}" if about else "Purpleteam report"


def _facts(info: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what the head of the page says of the run, all of it from run.json."""
    asked, versions, machine = (info.get(key) for key in ("asked", "versions", "machine"))
    facts: list[tuple[str, Any]] = [("Run", info.get("status"))]
    if isinstance(asked, dict):
        facts.append(("Seed", asked.get("seed")))
    if isinstance(versions, dict):
        names = [name for name in ("purpleteam", "torch", "python") if name in versions]
        facts.append(("Versions", ", ".join(f"{name} {versions[name]}" for name in names)))
    if isinstance(machine, dict):
        cores = f"{machine.get('cores')} cores" if machine.get("cores") else ""
        shown = (machine.get("system"), machine.get("processor"), cores)
        facts.append(("Machine", ", ".join(str(fact) for fact in shown if fact)))
    return [(name, str(value)) for name, value in facts if value not in (None, "")]


def _banner(verification: Verification | None) -> Banner | None:
    """Return the banner of a run that does not pass its verification; a whole one has none."""
    if verification is None or verification.verdict == "pass":
        return None
    wrong = verification.of(verification.verdict)
    lines = tuple(f"{part.name}: {part.message}." for part in wrong)
    if verification.verdict == "fail":
        advice = "Rely on no number below before it was measured again: purple verify --replay."
        title = "This run fails its verification"
        return Banner(tone="bad", title=title, lines=(*lines, advice))
    ended = verification.status == "finished"
    title = "This run cannot be verified" if ended else "This run is not finished"
    return Banner(tone="warn", title=title, lines=lines)
