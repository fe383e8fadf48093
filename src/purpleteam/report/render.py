"""A run folder in, report.html and report.md out: no torch, no re-running, no clock."""

import base64
import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from purpleteam.core.plugins import load_chapters
from purpleteam.core.revision import Revision
from purpleteam.core.verification import PROVES, Verification
from purpleteam.report import chapters
from purpleteam.report.chapter import CHAPTERS, ordered
from purpleteam.report.chapters.closing import all_records, not_tested, opened
from purpleteam.report.chapters.first import called, first_section
from purpleteam.report.collect import Evidence
from purpleteam.report.markdown import Banner, to_markdown
from purpleteam.report.view import Block, Inline

CHAPTERS.load(chapters)
POLICY = "default-src 'none'; style-src 'sha256-{}'; img-src data:; base-uri 'none'; "
POLICY += "form-action 'none'"


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
    for name, text in _pages(evidence).items():
        (run / name).write_text(text, encoding="utf-8", newline="\n")
    html, markdown = run / "report.html", run / "report.md"
    return ReportFiles(html=html, markdown=markdown, verification=evidence.verification)


def differing(run: Path) -> list[str]:
    """Return which of the two files are there and are not what the run folder renders to."""
    pages = _pages(Evidence.read(run)).items()
    there = [(run / name, text) for name, text in pages if (run / name).exists()]
    return [path.name for path, text in there if path.read_bytes() != text.encode()]


def _pages(evidence: Evidence) -> dict[str, str]:
    checked, plugins = evidence.verification, evidence.asked.get("plugins")
    passed = checked is not None and checked.verdict == "pass"
    for name in plugins if isinstance(plugins, list) else ():
        load_chapters(str(name))
    dataset = str(evidence.asked.get("dataset") or "").rstrip("/").rsplit("/", 1)[-1]
    about = evidence.asked.get("name") or " on ".join(filter(None, (called(evidence), dataset)))
    title = f"Purpleteam: {about}" if about else "Purpleteam report"
    banner = None if checked is None or passed else _banner(checked)
    told = {name: chapter for name, chapter in ordered().items() if chapter.is_told(evidence)}
    sections = [first_section(evidence, set(told))]
    if not evidence.swept.whole:  # what is said of one model would be of some records of it
        told = {name: chapter for name, chapter in told.items() if chapter.stage == "sweep"}
        sections = []
    sections += [chapter.section(name, evidence) for name, chapter in told.items()]
    sections += [not_tested(evidence), all_records(evidence, sections)]
    look, page = templates()
    style = look.render(names=[part.id for part in sections])
    digest = base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii")
    facts = _facts(evidence)
    html = page.render(
        policy=POLICY.format(digest),
        style=Markup(style),  # noqa: S704  # purple: allow B704 until 2027-11-30 as the file is ours
        title=title,
        banner=banner,
        facts=facts,
        verified=f"Records and files are as run.json has them. {PROVES}" if passed else "",
        sections=sections,
        records=[opened(record) for record in evidence.records],
    )
    markdown = to_markdown(title, facts.get("Run", "unknown"), banner, sections)
    return {"report.html": html, "report.md": markdown}


@cache
def templates() -> list[Template]:
    """Return those of the style and of the page, which are compiled once."""
    environment = Environment(
        loader=PackageLoader("purpleteam.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(kind=_kind, breakable=_breakable)
    return [environment.get_template(name) for name in ("report.css", "report.html.j2")]


def _facts(evidence: Evidence) -> dict[str, str]:
    """Return what the head of the page says of the run, all of it from run.json."""
    known = (evidence.info.get(key) for key in ("asked", "versions", "machine"))
    asked, versions, machine = (facts if isinstance(facts, dict) else {} for facts in known)
    cores = f"{machine.get('cores')} cores" if machine.get("cores") else ""
    names = [name for name in ("purpleteam", "torch", "python") if name in versions]
    computer = (machine.get("system"), machine.get("processor"), cores)
    facts: dict[str, Any] = {
        "Run": evidence.info.get("status"),
        "Seed": asked.get("seed"),
        "Versions": ", ".join(f"{name} {versions[name]}" for name in names),
        "Code": "; ".join(map(str, Revision.all_of(evidence.info))),
        "Machine": ", ".join(map(str, filter(None, computer))),
    }
    return {name: str(value) for name, value in facts.items() if value not in (None, "")}


def _banner(verification: Verification) -> Banner:
    wrong = verification.of(verification.verdict)
    lines = [f"{part.name}: {part.message}." for part in wrong]
    if verification.verdict == "fail":
        lines.append("Rely on no number below until it is measured again: purple verify --replay.")
        return "bad", "This run fails its verification", lines
    ended = verification.status == "finished"
    return "warn", "This run cannot be verified" if ended else "This run is not finished", lines


def _kind(part: Inline | Block) -> str:
    return "str" if isinstance(part, str) else type(part).__name__.lower()


def _breakable(text: str) -> Markup:
    """Return a path, or text that holds an address, with places where a line may end."""
    return Markup("<wbr>").join(re.split(r"(?<=[/_])", text))
