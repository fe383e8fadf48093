"""The table of a sweep: a line of CSV for each number that its cells measured."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from purpleteam.core.records import Measurement, Record
from purpleteam.pipeline.plan import Block, Cell, Named, Plan, shortly
from purpleteam.report.swept import ENDS

AXES = ("model", "images", "attack", "recipe", "method", "norm", "epsilon", "seed")
"""The order in which the columns of a table stand; others follow."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a text begins that a spreadsheet would compute."""


def write_table(
    path: Path, plan: Plan, done: Iterable[tuple[Cell, Sequence[Record]]]
) -> list[Path]:
    """Write the measurements of cells, in their order; return the file, and its Parquet if any."""
    columns = dict.fromkeys(name for block in plan.blocks for name in _columns(block))
    axes = [name for name in AXES if name in columns]
    axes += sorted(columns.keys() - set(AXES))
    fresh = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with fresh.open("w", encoding="utf-8", newline="") as file:
        names = ["verb", *axes, *ENDS]
        writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(row for cell, records in done for row in _rows(cell, records))
    fresh.replace(path)
    return [path, *_parquet(path)]


def _columns(block: Block) -> Iterator[str]:
    yield from (*block.axes, *block.always)
    for name, items in block.axes.items():
        for made in (item for item in items if isinstance(item, Named)):
            facts = (_facts(maker, maker.varied) for maker in block.makers[made])
            yield from (f"{name}.{key}" for told in facts for key in told)


def _facts(cell: Cell, names: Iterable[str]) -> dict[str, Any]:
    """Return options of a cell, and of the cells whose products it takes what they differ in."""
    facts = {name: shortly(cell.options[name]) for name in names}
    for name, maker in cell.uses.items():
        told = _facts(maker, maker.varied)
        facts |= {f"{name}.{key}": value for key, value in told.items()}
    return facts


def _rows(cell: Cell, records: Sequence[Record]) -> Iterator[dict[str, Any]]:
    """Yield a row for each number that a cell measured."""
    given = {key: _text(value) for key, value in _facts(cell, cell.options).items()}
    for record in records:
        if not isinstance(record, Measurement):
            continue
        value = record.value.to_json()
        if not isinstance(value.get("value"), int | float):
            continue
        ends = {
            "metric": record.name,
            "class": record.how.get("class", ""),
            "record": record.id,
            "verdict": record.detail.get("soundness", {}).get("verdict", ""),
            "selection": record.subject.get("selection", ""),
        }
        numbers = {key: value.get(key, "") for key in ("value", "low", "high", "n")}
        yield {"verb": cell.verb, **given, **{k: _text(v) for k, v in ends.items()}, **numbers}


def _text(value: Any) -> Any:
    """Return text that no spreadsheet takes for a formula; a number stays as it is."""
    if not isinstance(value, str) or not value.startswith(FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def _parquet(table: Path) -> list[Path]:
    """Write a table as Parquet beside it; return the file, or none where pyarrow is not there."""
    try:
        from pyarrow import csv, parquet
    except ImportError:
        return []
    target = table.with_suffix(".parquet")
    parquet.write_table(csv.read_csv(table), target)
    return [target]
