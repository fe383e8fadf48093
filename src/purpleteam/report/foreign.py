"""A drawing that somebody else made, cut down to what can only draw.

Only elements and attributes on these two lists survive: no script, no link, no style, no
animation, no foreign object, and nothing that names another file.
"""

import re
from html.parser import HTMLParser

from markupsafe import Markup

WORD = re.compile(r"[\w-]+")
ELEMENTS = frozenset(
    WORD.findall("svg g title desc path rect circle ellipse line polyline polygon text tspan")
)
ATTRIBUTES = frozenset(
    WORD.findall(
        "aria-label class cx cy d dx dy fill fill-opacity fill-rule font-family font-size "
        "font-style font-weight height letter-spacing opacity points r role rx ry stroke "
        "stroke-dasharray stroke-linecap stroke-linejoin stroke-opacity stroke-width text-anchor "
        "transform viewbox width x x1 x2 y y1 y2"
    )
)


def only_drawing(source: str) -> Markup:
    """Return the first SVG image in the text with everything else left out; empty without one."""
    cleaner = _Cleaner()
    cleaner.feed(source)
    cleaner.close()
    ends = [Markup("</{}>").format(name) for name in reversed(cleaner.open)]
    return Markup("").join([*cleaner.parts, *ends])


class _Cleaner(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[Markup] = []
        self.open: list[str] = []
        self._dropped: list[str] = []
        self._done = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._done or (not self.open and tag != "svg"):
            return
        if self._dropped or tag not in ELEMENTS:
            self._dropped.append(tag)
            return
        kept = (
            Markup(' {}="{}"').format("viewBox" if name == "viewbox" else name, value or "")
            for name, value in attrs
            if name in ATTRIBUTES and "url(" not in (value or "").lower()
        )
        self.parts.append(Markup("<{}{}>").format(tag, Markup("").join(kept)))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._dropped:
            if tag in self._dropped:
                del self._dropped[self._dropped.index(tag) :]
        elif self.open and self.open[-1] == tag:
            self.parts.append(Markup("</{}>").format(self.open.pop()))
            self._done = not self.open

    def handle_data(self, data: str) -> None:
        if self.open and not self._dropped:
            self.parts.append(Markup("{}").format(data))
