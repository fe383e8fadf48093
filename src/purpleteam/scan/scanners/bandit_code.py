"""Bandit over Python files and notebooks, in a process of its own: source may crash a parser.

It gets a list of files and never a folder, where a `.bandit` file could turn its tests off, and is
told to ignore `# nosec`, which needs neither a reason nor an end: `scan.settle` has our own way.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from purpleteam.core.records import Finding, Severity
from purpleteam.scan.scanner import SCANNERS, ScanResult, is_python, merged, walk
from purpleteam.scan.text import Script, as_script, read_cells

FILES_AT_ONCE = 500
SECONDS = 300
LEVELS: dict[str, Severity] = {"LOW": "low", "MEDIUM": "medium", "HIGH": "high"}


@SCANNERS.register("bandit")
def scan_with_bandit(path: Path) -> ScanResult:
    """Return what Bandit finds in the Python files under `path`."""
    tree = walk(path)
    names = {str(file.resolve()): tree.name(file) for file in tree.files if is_python(file)}
    books = {file: tree.name(file) for file in tree.files if file.suffix == ".ipynb"}
    try:
        tool = f"bandit {metadata.version('bandit')}"
    except metadata.PackageNotFoundError:
        return ScanResult(errors=("bandit is not installed; try: pip install bandit",))
    rows = sorted(names.items())
    batches = (rows[at : at + FILES_AT_ONCE] for at in range(0, len(rows), FILES_AT_ONCE))
    results = [_batch(tool, dict(batch)) for batch in batches]
    return merged([*results, *([_notebooks(tool, books)] if books else [])])


def _notebooks(tool: str, books: Mapping[Path, str]) -> ScanResult:
    """Return what Bandit says of notebooks' code, which it gets as scripts in a folder."""
    scripts: dict[str, Script] = {}  # what no rule of ours can read is said there, once
    with tempfile.TemporaryDirectory() as folder:
        names = {}
        for number, (book, name) in enumerate(books.items()):
            try:
                scripts[name] = as_script(read_cells(book.read_bytes()))
            except (OSError, ValueError):
                continue
            written = Path(folder) / f"{number}.py"
            written.write_text(scripts[name].source, encoding="utf-8", errors="replace")
            names[str(written)] = name
        result = _batch(tool, names) if names else ScanResult()
    moved = []
    for finding in result.findings:
        name = str(finding.place["path"])
        cell, line = scripts[name].places[int(finding.place["line"]) - 1]
        moved.append(replace(finding, place={"path": name, "cell": cell, "line": line}))
    return replace(result, findings=tuple(moved))


def _batch(tool: str, names: Mapping[str, str]) -> ScanResult:
    """Return what Bandit says of files; `names` are theirs in findings, by path."""
    read: dict[str, list[Any]] = {}
    broken: dict[str, str] = {}
    errors: list[str] = []
    while waiting := [file for file in names if file not in read and file not in broken]:
        lines, failed = _run(waiting)
        rows = [json.loads(line) for line in lines[1:]]
        read |= {row["path"]: row["found"] for row in rows if "found" in row}
        broken |= {row["path"]: f"bandit: {row['broken']}" for row in rows if "broken" in row}
        if not lines:  # it has not come so far as to be ready
            errors.append(f"bandit {failed}")
            broken |= dict.fromkeys(waiting, "bandit left it out")
        elif len(rows) < len(waiting):  # the file at which it ended, and on with those after it
            broken[waiting[len(rows)]] = f"bandit {failed}"
    findings = []
    for row in (row for found in read.values() for row in found):
        cwe = row["issue_cwe"].get("id")
        place = {"path": names[row["filename"]], "line": row["line_number"]}
        finding = Finding(
            tool=tool,
            rule=row["test_id"],
            severity=LEVELS.get(row["issue_severity"], "note"),
            confidence=str(row["issue_confidence"]).lower(),
            cwe=f"CWE-{cwe}" if cwe else None,
            place=place,
            message=f"{row['test_name']}: {' '.join(str(row['issue_text']).split())}",
            fix=row.get("more_info"),
        )
        findings.append(finding)
    return ScanResult(
        findings=tuple(findings),
        scanned=tuple(name for file, name in names.items() if file in read),
        skipped=tuple((names[file], why) for file, why in broken.items()),
        errors=tuple(errors),
    )


def _run(files: list[str]) -> tuple[list[bytes], str]:
    """Return the whole lines that Bandit wrote of files, and how it ended."""
    program = Path(__file__).with_name("_bandit_process.py")
    try:
        with tempfile.TemporaryDirectory() as cache:  # its plug-in loader would fill the user's
            done = subprocess.run(  # noqa: S603 - no shell; absolute paths
                [sys.executable, "-P", str(program)],
                input=json.dumps(files).encode(),
                env={**os.environ, "HOME": cache, "XDG_CACHE_HOME": cache},
                capture_output=True,
                timeout=SECONDS,
                check=False,
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        written = getattr(error, "stdout", None) or b""
        return written.split(b"\n")[:-1], f"did not run: {type(error).__name__}: {error}"[:300]
    said = (done.stderr.decode("utf-8", "replace").strip().splitlines() or ["nothing"])[-1]
    return done.stdout.split(b"\n")[:-1], f"ended with {done.returncode} and said: {said[:200]}"
