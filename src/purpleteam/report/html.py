"""One self-contained HTML page: no script, no request, its style allowed by hash."""

from __future__ import annotations

import base64
import hashlib
import re

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from purpleteam.report.view import Block, Inline, Page

POLICY = (
    "default-src 'none'; style-src 'sha256-{}'; img-src data:; base-uri 'none'; form-action 'none'"
)


def to_html(page: Page) -> str:
    """Return the page."""
    environment = Environment(
        loader=PackageLoader("purpleteam.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["kind"] = _kind
    environment.filters["breakable"] = _breakable
    names = [section.id for section in page.sections]
    style = environment.get_template("report.css").render(names=names)
    digest = base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii")
    css = Markup(style)  # noqa: S704  # nosec B704 - our own file
    return environment.get_template("report.html.j2").render(
        policy=POLICY.format(digest), style=css, page=page
    )


def _kind(part: Inline | Block) -> str:
    return "text" if isinstance(part, str) else type(part).__name__.lower()


def _breakable(text: str) -> Markup:
    """Return a path, or text that holds an address, with places where a line may end."""
    return Markup("<wbr>").join(re.split(r"(?<=[/_])", text))
