"""What a page is made of: plain frozen parts that the HTML and the Markdown are both drawn from.

A chapter is a list of blocks; a block holds inlines. `Number` is the only inline that may show
a figure, and it cannot be made without the ids of the records that it comes from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from markupsafe import Markup

DASH = "\N{EN DASH}"
"""Where a table has nothing to say."""

Tone = str
"""One of `good`, `bad`, `warn`, `quiet`: how a badge or a card is coloured, never its only sign."""


@dataclass(frozen=True, kw_only=True)
class Number:
    """A figure as shown, with the records that it comes from."""

    text: str
    value: float
    records: tuple[str, ...]
    interval: str = ""
    flag: str = ""
    """What the reader must know beside it: `first 1000`, `weak evaluation`."""
    tally: bool = False
    """A count of records or of cases: it does not tell what the records themselves say."""
    established: bool = True
    """False where the attack that made it failed its own checks: then never shown in bold."""


@dataclass(frozen=True)
class Given:
    """A parameter that was asked for (epsilon, steps), as the record has it."""

    text: str
    record: str


@dataclass(frozen=True)
class Mono:
    """A name that is typed or computed: a digest, a command, a rule."""

    text: str


@dataclass(frozen=True)
class Badge:
    """A verdict in one word."""

    text: str
    tone: Tone = "quiet"


@dataclass(frozen=True)
class RecordLink:
    """A link to a record's row in the appendix."""

    id: str


@dataclass(frozen=True)
class Published:
    """What one of the seed reports published for the same thing, and which."""

    seed: str
    value: Number | str


Inline = str | Number | Given | Mono | Badge | RecordLink | Published
Cell = tuple[Inline, ...]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A table row; `record` is set where the whole row is one record."""

    cells: tuple[Cell, ...]
    record: str = ""
    anchor: str = ""


def row(*cells: Inline | Cell, record: str = "", anchor: str = "") -> Row:
    """Return a row; a lone inline is a cell by itself."""
    whole = tuple(cell if isinstance(cell, tuple) else (cell,) for cell in cells)
    return Row(cells=whole, record=record, anchor=anchor)


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table with a caption; the first cell of each row is its header."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    folded: bool = False
    """Long or secondary: closed until it is asked for."""
    note: Cell = ()
    dense: bool = False


@dataclass(frozen=True)
class Prose:
    """A paragraph."""

    parts: Cell
    style: str = ""
    """`headline` for the one sentence that carries the story, `callout` for a warning."""


@dataclass(frozen=True)
class Heading:
    """A heading inside a chapter."""

    text: str


@dataclass(frozen=True)
class Missing:
    """Says plainly what was not run."""

    text: str


@dataclass(frozen=True)
class Reading:
    """What the chapter's numbers mean, and what they do not mean."""

    means: str
    means_not: str


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A drawing made here, and the same facts as a table."""

    title: str
    svg: Markup
    caption: Cell
    table: Table
    folded: bool = False
    record: str = ""
    """Set where the whole figure is one record."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A vector drawing that a stage recorded, cut down to what can only draw."""

    title: str
    svg: Markup
    record: str


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One PNG of a gallery, as a data URI; empty where the file is missing or left out."""

    uri: str
    path: str
    caption: str
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Pictures under one title."""

    title: str
    pictures: tuple[Picture, ...]
    record: str
    kind: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Card:
    """A verdict of the first page: the number first, then what it says."""

    title: str
    tone: Tone
    verdict: str
    number: Number
    sentence: Cell
    target: str
    """Id of the chapter that has the whole of it."""


@dataclass(frozen=True)
class Cards:
    """The verdict cards."""

    cards: tuple[Card, ...]


Block = Prose | Heading | Missing | Reading | Table | Figure | Drawing | Gallery | Cards


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """One chapter: an anchor, a title, one line that says what it is about, and its blocks."""

    id: str
    title: str
    lead: str
    blocks: tuple[Block, ...] = field(default_factory=tuple)


def numbers_in(chapters: tuple[Chapter, ...]) -> Iterator[Number]:
    """Yield every number that the chapters show."""
    for chapter in chapters:
        for block in chapter.blocks:
            for cell in _cells(block):
                yield from (part for part in cell if isinstance(part, Number))


def _cells(block: Block) -> Iterator[Cell]:
    if isinstance(block, Prose):
        yield block.parts
    elif isinstance(block, Figure):
        yield block.caption
        yield from _cells(block.table)
    elif isinstance(block, Table):
        yield block.note
        for line in block.rows:
            yield from line.cells
    elif isinstance(block, Cards):
        for card in block.cards:
            yield card.sentence
            yield (card.number,)
