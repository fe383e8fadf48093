"""The records of a finished run as one JSON file: what tables in README and docs are made of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from purpleteam.core.records import Artefact, CheckResult, Finding, Measurement, Note
from purpleteam.core.runfolder import RunFolder

NOTES = (
    *("dataset", "published-figures", "scan", "served"),
    *("model", "model-scan", "training-set-scan", "no-repair"),
)


def write_results(run: Path, path: Path) -> None:
    """Write run.json and the measurements, checks and findings of a run, without its files."""
    folder = RunFolder.open(run)
    info = {key: value for key, value in folder.info.items() if key != "actor"}
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"run": info, "records": kept_records(folder)}
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def kept_records(folder: RunFolder) -> list[dict[str, Any]]:
    """Return the records of a run that tell something without its files."""
    return [
        record.to_json()
        for record in folder.records()
        if isinstance(record, Measurement | CheckResult | Finding)
        or (isinstance(record, Note) and record.name in NOTES)
        or (isinstance(record, Artefact) and record.path.endswith(".safetensors"))
    ]
