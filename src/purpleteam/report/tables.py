"""results/*.json into the tables of the README: generated, so they cannot drift.

A file of results is what a run recorded: {"run": run.json's facts, "records": [...]}.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from purpleteam.core.errors import RunError
from purpleteam.core.records import Record, record_from_json
from purpleteam.report.collect import UNDEFENDED, Evidence, model_name
from purpleteam.report.markdown import table
from purpleteam.report.numbers import number_of, number_or_dash
from purpleteam.report.view import DASH, Table, row


def render_results(results: Path) -> str:
    """Return the tables of a file of results, or of every .json file in a folder of them."""
    paths = sorted(results.glob("*.json")) if results.is_dir() else [results]
    if not paths:
        raise RunError(f"{str(results)!r} holds no results: no .json file is in it")
    parts = []
    for path in paths:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            records = [record_from_json(line) for line in content["records"]]
            evidence = Evidence(Path(), content.get("run", {}), records)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"results {str(path)!r} cannot be read: {error}") from None
        parts.append((f"### {path.stem}\n\n" if results.is_dir() else "") + _tables(evidence))
    return "\n".join(parts)


def readme_table(records: Iterable[Record]) -> str:
    """Return what is measured, in two Markdown tables: robustness, then backdoors."""
    return _tables(Evidence(Path(), {}, list(records)))


def _tables(evidence: Evidence) -> str:
    tables = [block for block in (_robustness(evidence), _backdoors(evidence)) if block.rows]
    text = "\n".join("\n".join(table(block)) + "\n" for block in tables)
    return text or "Nothing is measured yet.\n"


def _robustness(evidence: Evidence) -> Table:
    epsilon, rows = evidence.headline_epsilon, []
    shown = evidence.models_of(*UNDEFENDED, "hardened")
    for name in evidence.models_with("clean_accuracy", "robust_accuracy"):
        if name in shown:
            robust = claimed = None
            if epsilon is not None:
                robust = evidence.weakest(name, epsilon)
                claimed = evidence.best("transfer_accuracy", name, epsilon=epsilon)
            attack = DASH if robust is None else str(robust.how.get("attack", DASH))
            numbers = map(number_or_dash, (evidence.best("clean_accuracy", name), robust, claimed))
            clean, left, transferred = numbers
            rows.append(row(name, clean, left, attack, transferred))
    under = "White-box" if epsilon is None else f"White-box, ε = {epsilon:g}"
    claim = "Transferred images (no robustness)"
    columns = ("Model", "Clean accuracy", under, "Strongest attack", claim)
    return Table("Accuracy, clean and under attack", columns, rows)


def _backdoors(evidence: Evidence) -> Table:
    rows = []
    for record in evidence.find("attack_success_rate"):
        clean, base = map(number_or_dash, evidence.around(record))
        seed = DASH if record.seed is None else str(record.seed)
        rows.append(row(model_name(record), seed, clean, number_of(record), base))
    columns = ("Model", "Seed", "Clean accuracy", "Attack success rate", "Base rate")
    return Table("Backdoors", columns, rows)
