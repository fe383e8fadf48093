"""One self-contained HTML page: no script, no request, its style allowed by hash."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from purpleteam.report.collect import Evidence
from purpleteam.report.view import Block, Chapter, Inline, Number

__all__ = ["to_html"]

POLICY = (
    "default-src 'none'; style-src 'sha256-{}'; img-src data:; base-uri 'none'; form-action 'none'"
)


def to_html(evidence: Evidence, chapters: tuple[Chapter, ...]) -> str:
    """Return the page."""
    style = _style()
    digest = base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii")
    template = _environment().get_template("report.html.j2")
    return template.render(
        style=Markup(style),  # noqa: S704  our own file, freed of any closing tag
        policy=POLICY.format(digest),
        title=_title(evidence),
        info=_info(evidence),
        chapters=chapters,
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("purpleteam.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["kind"] = _kind
    environment.filters["anchor"] = _anchor
    return environment


def _style() -> str:
    path = resources.files("purpleteam.report") / "templates" / "report.css"
    return path.read_text(encoding="utf-8").replace("</", "<\\/")


def _kind(part: Inline | Block) -> str:
    return "text" if isinstance(part, str) else type(part).__name__.lower()


def _anchor(part: Number | str) -> str:
    return part.records[0] if isinstance(part, Number) else part


def _title(evidence: Evidence) -> str:
    asked = evidence.info.get("asked")
    name = asked.get("name") or asked.get("profile") if isinstance(asked, dict) else None
    return f"Purpleteam: {name}" if name else "Purpleteam report"


def _info(evidence: Evidence) -> list[tuple[str, str]]:
    """Return what the head of the page says of the run, all of it from run.json."""
    info = evidence.info
    facts: list[tuple[str, Any]] = [("Run", info.get("status"))]
    versions, machine = info.get("versions"), info.get("machine")
    if isinstance(versions, dict):
        wanted = ("purpleteam", "torch", "python")
        facts += [
            ("Versions", ", ".join(f"{key} {versions[key]}" for key in wanted if key in versions))
        ]
    if isinstance(machine, dict):
        cores = f"{machine.get('cores')} cores" if machine.get("cores") else ""
        shown = (machine.get("system"), machine.get("processor"), cores)
        facts += [("Machine", ", ".join(str(one) for one in shown if one))]
    return [(name, str(value)) for name, value in facts if value]
