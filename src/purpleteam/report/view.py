"""What a page is made of: frozen parts that the HTML and the Markdown are both drawn from.

A section is a list of blocks; a block holds inlines. `Number` is the only inline that may show
a figure, and it cannot be made without the ids of the records that it comes from.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from functools import partial
from typing import NamedTuple

from markupsafe import Markup

DASH = "\N{EN DASH}"
"""Where a table has nothing to say."""


@dataclass(frozen=True, kw_only=True)
class Number:
    """A figure as shown, with the records that it comes from."""

    text: str
    value: float
    records: tuple[str, ...]
    interval: str = ""
    ends: tuple[float, float] | None = None
    """Of the interval, in the unit of `value`: where a figure draws it."""
    meaning: str = ""
    """What the metric means and which way is better: shown on pointing at it."""
    flag: str = ""
    """What the reader must know beside it: `first 1000`, `weak evaluation`."""
    tally: bool = False
    """A count of records or of cases: it does not tell what the records themselves say."""
    established: bool = True
    """False where the attack that made it failed its own checks: then never shown in bold."""

    @property
    def span(self) -> tuple[float, float]:
        return self.ends or (self.value, self.value)


@dataclass(frozen=True)
class Span:
    """Text that is set apart: `kind` says how, `of` what is behind it."""

    kind: str
    text: str
    of: str = ""


# Given: a parameter that was asked for, of a record.  Mono: a name that is typed or computed.
# Command: to be typed, of run.json or of a record.  Badge: a verdict in a word, and its tone: good,
# bad, warn or quiet.  RecordLink: the id of a record that opens.  Jump: to a section, by its id.
Given, Mono, Command = partial(Span, "given"), partial(Span, "mono"), partial(Span, "command")
Badge, RecordLink, Jump = partial(Span, "badge"), partial(Span, "link"), partial(Span, "jump")
Inline = str | Number | Span
Cell = tuple[Inline, ...]


class Row(NamedTuple):
    """A table row; `record` is set where the whole row is one record."""

    cells: tuple[Cell, ...]
    record: str = ""


def row(*cells: Inline | Cell, record: str = "") -> Row:
    """Return a row; a lone inline is a cell by itself."""
    return Row(tuple(cell if isinstance(cell, tuple) else (cell,) for cell in cells), record)


def grid(
    lines: Iterable[Mapping[str, Inline | Cell]], columns: Iterable[str] = ()
) -> tuple[list[str], list[Row]]:
    """Return columns, those given first, and rows of cells by column; what is missing is a dash."""
    lines = list(lines)
    names = list(dict.fromkeys([*columns, *(name for line in lines for name in line)]))
    return names, [row(*(line.get(name, DASH) for name in names)) for line in lines]


@dataclass(frozen=True)
class Table:
    """A table; the first cell of each row is its header. Without rows it is left out."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Row]
    folded: bool = False
    """Long or secondary: closed until it is asked for."""
    note: Cell = ()
    dense: bool = False
    stacked: bool = False
    """On a phone each row is a small list of its own."""


class Prose(NamedTuple):
    """A paragraph."""

    parts: Cell
    style: str = ""
    """`verdict` or `headline` for the one sentence that counts, `callout` for a warning, `heading`
    for a heading inside a section, `missing` for what was not run."""


class Steps(NamedTuple):
    """A numbered list: each step in a sentence, and the command to type, where there is one."""

    title: str
    steps: tuple[Cell, ...]


class Reading(NamedTuple):
    """What the section's numbers mean, and what they do not mean."""

    means: str
    means_not: str


class Figure(NamedTuple):
    """A drawing, and the same facts as a table where it was made here."""

    title: str
    svg: Markup
    caption: Cell
    table: Table | None = None
    folded: bool = False
    record: str = ""
    """Set where the whole figure is one record."""


class Picture(NamedTuple):
    """One PNG of a gallery, as a data URI; empty where the file is missing or left out."""

    path: str
    caption: str
    uri: str = ""
    width: int = 0
    height: int = 0


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Pictures under one title."""

    title: str
    pictures: tuple[Picture, ...]
    record: str
    kind: str
    note: str


class Card(NamedTuple):
    """A verdict of the first screen: the number, what it says, and which section has more."""

    title: str
    target: str
    tone: str
    verdict: str
    number: Number
    sentence: Cell


class Cards(NamedTuple):
    """The cards of the first screen."""

    cards: tuple[Card, ...]


Block = Prose | Steps | Reading | Table | Figure | Gallery | Cards
Blocks = Block | Iterable["Blocks"] | None
"""What a part of a chapter returns: a block, several, or nothing."""


def flat(*parts: Blocks) -> Iterator[Block]:
    """Yield the blocks, however nested; a table without rows is none."""
    for part in parts:
        if isinstance(part, Block):
            if not isinstance(part, Table) or part.rows:
                yield part
        elif part is not None:
            yield from flat(*part)


class Section(NamedTuple):
    """One section of the page: an anchor, a title, one line that says what it is about."""

    id: str
    title: str
    lead: str
    blocks: tuple[Block, ...]
    folded: bool = True


def numbers_in(part: object) -> Iterator[Number]:
    """Yield every number that a part of the page shows."""
    if isinstance(part, Number):
        yield part
    elif isinstance(part, tuple | list):
        for inner in part:
            yield from numbers_in(inner)
    elif is_dataclass(part):
        yield from numbers_in(list(vars(part).values()))
