"""One self-contained HTML page: no script, no request, its style allowed by hash."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from purpleteam.report.alarm import alarm_of, verified_line
from purpleteam.report.collect import Evidence
from purpleteam.report.view import Block, Chapter, Inline, Number

POLICY = (
    "default-src 'none'; style-src 'sha256-{}'; img-src data:; base-uri 'none'; form-action 'none'"
)


def to_html(evidence: Evidence, chapters: tuple[Chapter, ...]) -> str:
    """Return the page."""
    environment = _environment()
    style = environment.get_template("report.css").render()
    digest = base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii")
    return environment.get_template("report.html.j2").render(
        policy=POLICY.format(digest),
        title=_title(evidence),
        info=_info(evidence),
        alarm=alarm_of(evidence.verification),
        verified=verified_line(evidence.verification),
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
    environment.filters["breakable"] = _breakable
    return environment


def _kind(part: Inline | Block) -> str:
    return "text" if isinstance(part, str) else type(part).__name__.lower()


def _anchor(part: Number | str) -> str:
    return part.records[0] if isinstance(part, Number) else part


def _breakable(text: str) -> Markup:
    """Return a path, or text that holds an address, with places where a line may end."""
    return Markup("<wbr>").join(re.split(r"(?<=[/_])", text))


def _title(evidence: Evidence) -> str:
    asked = evidence.info.get("asked")
    named = asked if isinstance(asked, dict) else {}
    name = next((named[key] for key in ("name", "profile", "dataset") if named.get(key)), None)
    return f"Purpleteam: {name}" if name else "Purpleteam report"


def _info(evidence: Evidence) -> list[tuple[str, str]]:
    """Return what the head of the page says of the run, all of it from run.json."""
    info = evidence.info
    facts: list[tuple[str, Any]] = [("Run", info.get("status"))]
    asked = info.get("asked")
    if isinstance(asked, dict) and asked.get("seed") is not None:
        facts.append(("Seed", asked["seed"]))
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
    return [(name, str(value)) for name, value in facts if value not in (None, "")]
