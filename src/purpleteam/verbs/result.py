"""What a verb returns: its fields, the records behind them, and how they look to a person."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from purpleteam.core.records import Record

LISTED = 20  # most classes that are printed one by one


@dataclass(frozen=True, kw_only=True, repr=False)
class Result:
    """The answer of one verb. A subclass holds the numbers; `repr` is what a shell prints."""

    stage: ClassVar[str]
    """The part of the flow whose records these are."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """The fields of `--json`, where `to_json` makes no others."""
    records: tuple[Record, ...] = ()
    """The facts behind the numbers, as a run folder keeps them."""
    notes: tuple[str, ...] = ()
    """What was changed, guessed or left out on the way, each a line."""
    run: Path | None = field(default=None, compare=False)
    """The run folder that holds the records, where one was asked for."""

    def __getattr__(self, name: str) -> Any:
        """Return one of `values` by its name: `trained.digest`."""
        if name in self.__dict__.get("values", {}):
            return self.values[name]
        raise AttributeError(f"{type(self).__name__} has no {name!r}")

    @property
    def report(self) -> Path | None:
        """The page of that run."""
        return None if self.run is None else self.run / "report.html"

    @property
    def exit_code(self) -> int:
        """How the command ends: 0 yes, 1 the honest answer is no, 2 too little to tell."""
        return 0

    def to_json(self) -> dict[str, Any]:
        """Return the fields that `--json` prints."""
        return dict(self.values)

    def lines(self) -> list[str]:
        """Return the answer as lines for a person, without the notes."""
        told = {key: value for key, value in self.to_json().items() if key != "data"}
        rows = [(key.replace("_", " "), value) for key, value in told.items() if value is not None]
        return table(rows)

    def answer(self) -> dict[str, Any]:
        """Return the fields with the notes and, where there is one, the run."""
        values = self.to_json()
        values.setdefault("notes", list(self.notes))
        return values | ({"run": str(self.run), "report": str(self.report)} if self.run else {})

    def text(self) -> list[str]:
        """Return all lines: the answer, the notes, and where the report is."""
        notes = [f"note: {note}" for note in self._told()]
        page = [f"report: {self.report}"] if self.run else []
        return [*self.lines(), *([""] if notes else []), *notes, *page]

    def _told(self) -> list[str]:
        """Return the line on the images, where there are some, and the notes."""
        data = self.to_json().get("data")
        return [*([data["summary"]] if isinstance(data, Mapping) else []), *self.notes]

    def __repr__(self) -> str:
        return "\n".join(self.text())

    def _repr_html_(self) -> str:
        """Return the answer as a notebook shows it."""
        lines = html.escape("\n".join(self.lines()))
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self._told())
        page = html.escape(str(self.report))
        link = f'<p>Report: <a href="{page}">{page}</a></p>' if self.run else ""
        return f"<pre>{lines}</pre><ul>{notes}</ul>{link}"


def table(rows: Sequence[Sequence[object]]) -> list[str]:
    """Return rows as aligned lines."""
    text = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in text) for i in range(len(text[0]))] if text else []
    return [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in text
    ]


def percent(value: Mapping[str, Any] | None) -> str:
    """Return a rate or estimate in JSON form as percent with its interval."""
    if value is None:
        return "-"
    low, high = 100 * value["low"], 100 * value["high"]
    return f"{100 * value['value']:.2f}% ({low:.2f}-{high:.2f}, n={value['n']})"
