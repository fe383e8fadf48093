"""results/*.json into the tables of the README: generated, so they cannot drift.

A file of results is what a run recorded: {"run": run.json's facts, "records": [...]}.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from purpleteam.core.errors import RunError
from purpleteam.core.records import Measurement, Record, record_from_json
from purpleteam.report.collect import UNDEFENDED, Evidence, model_name
from purpleteam.report.markdown import table
from purpleteam.report.numbers import number_of, number_or_dash
from purpleteam.report.view import DASH, Row, Table, row


def render_results(results: Path) -> str:
    """Return the tables of a file of results, or of every .json file in a folder of them."""
    paths = sorted(results.glob("*.json")) if results.is_dir() else [results]
    if not paths:
        raise RunError(f"{str(results)!r} holds no results: no .json file is in it")
    parts = [f"### {path.stem}\n\n{_tables(_read(path))}" for path in paths]
    return "\n".join(parts) if results.is_dir() else _tables(_read(paths[0]))


def readme_table(records: Iterable[Record]) -> str:
    """Return what is measured, in two Markdown tables: robustness, then backdoors."""
    return _tables(Evidence(Path(), {}, list(records)))


def _tables(evidence: Evidence) -> str:
    tables = [
        record for record in (_robustness(evidence), _backdoors(evidence)) if record is not None
    ]
    if not tables:
        return "Nothing is measured yet.\n"
    return "\n".join("\n".join(table(record)) + "\n" for record in tables)


def _read(path: Path) -> Evidence:
    try:
        content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        records = [record_from_json(line) for line in content["records"]]
        return Evidence(Path(), content.get("run", {}), records)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"results {str(path)!r} cannot be read: {error}") from None


def _robustness(evidence: Evidence) -> Table | None:
    epsilon = evidence.headline_epsilon
    measured = evidence.models_with("clean_accuracy", "robust_accuracy")
    shown = evidence.models_of(*UNDEFENDED, "hardened")
    names = [name for name in measured if name in shown]
    if not names:
        return None
    rows = tuple(_model_row(evidence, name, epsilon) for name in names)
    under = "White-box" if epsilon is None else f"White-box, ε = {epsilon:g}"
    columns = (
        "Model",
        "Clean accuracy",
        under,
        "Strongest attack",
        "Transferred images (no robustness)",
    )
    return Table(caption="Accuracy, clean and under attack", columns=columns, rows=rows)


def _model_row(evidence: Evidence, name: str, epsilon: float | None) -> Row:
    robust = None if epsilon is None else evidence.weakest(name, epsilon)
    claimed = None if epsilon is None else evidence.best("transfer_accuracy", name, epsilon=epsilon)
    attack = DASH if robust is None else str(robust.how.get("attack", DASH))
    clean = evidence.best("clean_accuracy", name)
    return row(name, number_or_dash(clean), number_or_dash(robust), attack, number_or_dash(claimed))


def _backdoors(evidence: Evidence) -> Table | None:
    rows = tuple(_backdoor_row(evidence, record) for record in evidence.find("attack_success_rate"))
    columns = ("Model", "Seed", "Clean accuracy", "Attack success rate", "Base rate")
    return Table(caption="Backdoors", columns=columns, rows=rows) if rows else None


def _backdoor_row(evidence: Evidence, record: Measurement) -> Row:
    clean, base = evidence.around(record)
    return row(
        model_name(record),
        DASH if record.seed is None else str(record.seed),
        number_or_dash(clean),
        number_of(record),
        number_or_dash(base),
    )
