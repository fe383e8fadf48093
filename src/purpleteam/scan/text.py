"""The text of a file as lines, and that of a notebook as cells (nbformat 3 and 4)."""

import ast
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from json.decoder import scanstring  # type: ignore[attr-defined]
from json.scanner import py_make_scanner  # type: ignore[attr-defined]
from typing import Any

LINE_ENDS = re.compile(r"\r\n|\r|\n")  # as Python and code hosts count; str.splitlines differs
MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
HEAD = 4096
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")  # the colours of a traceback
MAGIC = re.compile(r"^(\s*)(?:(\w+\s*=\s*)?(?:[!%](?=[\w(/.~$!])|\?)|.*\?\s*$)")
TIMED = re.compile(r"^(\s*)%(?:time|timeit|prun|memit)\s+(?:-[a-zA-Z]+\s*\d*\s+)*")  # then Python
OTHER_LANGUAGES = re.compile(
    r"%%(?:bash|sh|script|cmd|html|HTML|svg|SVG|javascript|js|latex|markdown|perl|ruby|R|sql|system|!)"
)
PYTHON_CELL = re.compile(
    r"%%(?:time|timeit|prun|memit|capture|debug|python3?|px|ipytest|(?:write)?file\s.*\.py\b)"
)


def decode(data: bytes) -> str | None:
    """Return the text of a file in UTF-8, UTF-16 or a code page, or None where it is no text."""
    for mark, encoding in MARKS.items():
        if data.startswith(mark):
            return data.decode(encoding, "replace")
    head = data[:HEAD]
    if b"\x00" in head:  # UTF-16 without its mark: every other byte of Latin letters is zero
        for first, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
            if not any(head[first::2]) and all(head[1 - first :: 2]):
                return data.decode(encoding, "replace")
        return None
    return data.decode("utf-8", "replace")


def split_lines(text: str) -> list[str]:
    """Return the lines of a text, without their ends."""
    return LINE_ENDS.split(text)


Parts = tuple[tuple[int, str], ...]
"""A text in the pieces in which a file has it, each with the line on which it begins there."""


@dataclass(frozen=True)
class Cell:
    """One cell of a notebook."""

    number: int
    """From 1, over cells of every kind."""
    code: bool
    source: Parts
    shown: Parts
    """What it printed, showed and raised."""

    @cached_property
    def lines(self) -> list[str]:
        return split_lines("".join(text for _, text in self.source))

    @cached_property
    def outputs(self) -> list[str]:
        return split_lines("".join(text for _, text in self.shown)) if self.shown else []

    def line_in_file(self, line: int, *, output: bool) -> int:
        """Return the line of the file that has a line (from 1) of the cell, or of its output."""
        breaks, number = 0, 1
        for number, text in self.shown if output else self.source:  # noqa: B007 - or the last
            breaks += len(LINE_ENDS.findall(text))
            if breaks >= line:
                break
        return number


class _Placed(str):
    line = 1


class _Placing(json.JSONDecoder):
    """A decoder of JSON whose texts know the line on which they begin."""

    def __init__(self) -> None:
        super().__init__()
        self.parse_string, self.seen = self._text, (0, 1)
        self.scan_once = py_make_scanner(self)

    def _text(self, whole: str, start: int, strict: bool = True) -> tuple[str, int]:
        value, end = scanstring(whole, start, strict)
        placed, (before, line) = _Placed(value), self.seen
        placed.line = line + whole.count("\n", before, start)
        self.seen = start, placed.line
        return placed, end


def read_cells(data: bytes, *, placed: bool = False) -> list[Cell]:
    """Return the cells of a notebook; where they stand in the file is known only if `placed`.

    Raises:
        ValueError: the bytes are no notebook.
    """
    try:
        text = data.decode("utf-8-sig")
        notebook = _Placing().decode(text) if placed else json.loads(text)
        sheets = notebook.get("worksheets") or [notebook]
        rows = [row for sheet in sheets for row in sheet["cells"]]
        return [_cell(number, row) for number, row in enumerate(rows, 1)]
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"no notebook: {type(error).__name__}") from None


def _cell(number: int, row: Mapping[str, Any]) -> Cell:
    source = tuple(_parts(row.get("source", row.get("input", ""))))
    shown = tuple(_outputs(row.get("outputs") or ()))
    return Cell(number, row.get("cell_type") == "code", source, shown)


def _parts(value: Any, end: str = "") -> Iterator[tuple[int, str]]:
    for part in value if isinstance(value, list) else [value]:
        yield getattr(part, "line", 1), ESCAPES.sub("", str(part)) + end


def _outputs(outputs: Iterable[Mapping[str, Any]]) -> Iterator[tuple[int, str]]:
    for output in outputs:
        yield from _parts(output.get("text") or [])
        yield from _parts(output.get("traceback") or [], "\n")
        for kind, value in (output.get("data") or {}).items():
            if not kind.startswith("image/") or kind == "image/svg+xml":
                yield from _parts(value if isinstance(value, str | list) else json.dumps(value))
        yield 1, "\n"


@dataclass(frozen=True)
class Script:
    """The code of a notebook as one Python file."""

    source: str
    places: tuple[tuple[int, int], ...]
    """Cell and line in it, for each line of the source."""
    left_out: tuple[int, ...]
    """Cells of code that are no Python, even without IPython's magics."""


def as_script(cells: Iterable[Cell]) -> Script:
    """Return all cells that can be parsed as one script."""
    lines: list[str] = []
    places: list[tuple[int, int]] = []
    left_out: list[int] = []
    for cell in cells:
        if not cell.code or not "".join(cell.lines).strip():
            continue
        if (own := _python(cell.lines)) is None:
            left_out.append(cell.number)
            continue
        lines += own
        places += [(cell.number, line) for line in range(1, len(own) + 1)]
    return Script("\n".join(lines) + "\n", tuple(places), tuple(left_out))


def _python(lines: list[str]) -> list[str] | None:
    """Return the lines of a cell as Python, with `pass` where a magic stood, or None."""
    plain, continued = [], False
    begins = next((line for line in lines if line.strip()), "")
    if OTHER_LANGUAGES.match(begins):
        return []  # a shell's or a browser's: nothing for rules of Python
    for line in lines:
        if line is begins and line.startswith("%%"):
            plain.append("")
        elif continued:
            plain.append("")
            continued = line.rstrip().endswith("\\")
        elif match := TIMED.match(line):
            plain.append(match[1] + line[match.end() :])
        elif match := MAGIC.match(line):
            continued = line.rstrip().endswith("\\")
            plain.append(f"{match[1]}{match[2] or ''}None")
        else:
            plain.append(line)
    for written in (lines, plain):  # as it stands, where a magic's sign is an operator
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ast.parse("\n".join(written))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        return written
    foreign = begins.startswith("%%") and not PYTHON_CELL.match(begins)
    return [] if foreign else None  # of a magic that nobody here knows: a file, a query
