"""Bandit over Python files, in a process of its own: hostile source may crash a parser.

Bandit gets the list of files and never a folder, since a `.bandit` file in a folder could turn
its tests off. What a `# nosec` comment silences is counted, and said.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from purpleteam.core.records import Finding, Severity
from purpleteam.scan.result import ScanResult, merged
from purpleteam.scan.scanners import SCANNERS
from purpleteam.scan.tree import Tree, walk

__all__ = ["PYTHON", "scan_with_bandit"]

PYTHON = frozenset({".py", ".pyw"})
FILES_AT_ONCE = 500
SECONDS = 300
NO_FOLDER = "/no/folder/is/left/out/"
LEVELS: dict[str, Severity] = {
    "UNDEFINED": "note",
    "LOW": "low",
    "MEDIUM": "medium",
    "HIGH": "high",
}


@SCANNERS.register("bandit")
def scan_with_bandit(path: Path) -> ScanResult:
    """Return what Bandit finds in the Python files under `path`."""
    tree = walk(path)
    names = {str(file.resolve()): tree.name(file) for file in _python(tree)}
    files = sorted(names)
    try:
        tool = f"bandit {metadata.version('bandit')}"
    except metadata.PackageNotFoundError:
        return ScanResult(errors=("bandit is not installed; try: pip install bandit",))
    return merged(
        _batch(tool, {file: names[file] for file in files[start : start + FILES_AT_ONCE]})
        for start in range(0, len(files), FILES_AT_ONCE)
    )


def _python(tree: Tree) -> Iterable[Path]:
    return (file for file in tree.files if file.suffix in PYTHON)


def _batch(tool: str, names: Mapping[str, str]) -> ScanResult:
    command = [sys.executable, "-P", "-m", "bandit", "-q", "-f", "json", "-x", NO_FOLDER, *names]
    try:
        with tempfile.TemporaryDirectory() as cache:  # its plug-in loader would fill the user's
            done = subprocess.run(  # noqa: S603 - no shell; absolute paths
                command,
                env={**os.environ, "HOME": cache, "XDG_CACHE_HOME": cache},
                capture_output=True,
                timeout=SECONDS,
                check=False,
            )
        report = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired) as error:
        return ScanResult(errors=(f"bandit did not run: {type(error).__name__}: {error}"[:300],))
    except ValueError:
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        said = last[0][:200] if last else "nothing"
        return ScanResult(errors=(f"bandit ended with {done.returncode} and said: {said}",))
    return _result(tool, names, report)


def _result(tool: str, names: Mapping[str, str], report: Mapping[str, Any]) -> ScanResult:
    broken = {error["filename"]: str(error["reason"]) for error in report["errors"]}
    metrics = report["metrics"]
    skipped = [(names.get(file, file), f"bandit: {reason}") for file, reason in broken.items()]
    skipped += [
        (name, "bandit left it out")
        for file, name in names.items()
        if file not in metrics and file not in broken
    ]
    scanned = [name for file, name in names.items() if file in metrics and file not in broken]
    silenced = [
        (name, f"bandit: {count} silenced by # nosec")
        for file, name in names.items()
        if (count := _silenced(metrics.get(file, {})))
    ]
    return ScanResult(
        findings=tuple(_finding(tool, names, one) for one in report["results"]),
        scanned=tuple(scanned),
        skipped=tuple(skipped),
        silenced=tuple(silenced),
    )


def _silenced(metrics: Mapping[str, int]) -> int:
    return metrics.get("nosec", 0) + metrics.get("skipped_tests", 0)


def _finding(tool: str, names: Mapping[str, str], one: Mapping[str, Any]) -> Finding:
    cwe = one.get("issue_cwe", {}).get("id")
    return Finding(
        tool=tool,
        rule=one["test_id"],
        severity=LEVELS.get(one["issue_severity"], "note"),
        confidence=str(one["issue_confidence"]).lower(),
        cwe=f"CWE-{cwe}" if cwe else None,
        place={"path": names.get(one["filename"], one["filename"]), "line": one["line_number"]},
        message=f"{one['test_name']}: {' '.join(str(one['issue_text']).split())}",
        fix=one.get("more_info"),
    )
