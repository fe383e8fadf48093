"""Bandit over Python files and notebooks, in a process of its own: source may crash a parser.

It gets a list of files and never a folder, where a `.bandit` file could turn its tests off, and is
told to ignore `# nosec`, which needs neither a reason nor an end: `scan.settle` has our own way.
"""

import json
import os
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from purpleteam.core.records import Finding, Severity
from purpleteam.scan.scanner import BEGIN, SCANNERS, ScanResult, is_python, merged, walk
from purpleteam.scan.text import Script, as_script, read_cells

SECONDS = 300
LEVELS: dict[str, Severity] = {"LOW": "low", "MEDIUM": "medium", "HIGH": "high"}


class _Process:
    """Bandit at work on files, whose list and whose answers are files too: no pipe runs full."""

    def __init__(self, files: list[str]) -> None:
        self.folder = tempfile.TemporaryDirectory()
        here, self.failed = Path(self.folder.name), ""
        asked, self.written, self.said = (here / name for name in ("asked", "written", "said"))
        asked.write_text(json.dumps(files))
        program = Path(__file__).with_name("_bandit_process.py")
        home = {"HOME": str(here), "XDG_CACHE_HOME": str(here)}  # its loader would fill the user's
        with asked.open() as stdin, self.written.open("wb") as stdout, self.said.open("wb") as said:
            try:
                self.process = subprocess.Popen(  # noqa: S603 - no shell; absolute paths
                    [sys.executable, "-P", str(program)],
                    env=os.environ | home,
                    stdin=stdin,
                    stdout=stdout,
                    stderr=said,
                )
                weakref.finalize(self, self.process.kill)  # nobody waits: the scan was stopped
            except OSError as error:
                self.failed = f"did not run: {type(error).__name__}: {error}"[:300]

    def ended(self) -> tuple[list[bytes], str]:
        """Wait; return the whole lines that Bandit wrote, and how it ended."""
        try:
            if not self.failed:
                self.process.wait(SECONDS)
                said = self.said.read_bytes().decode("utf-8", "replace").strip().splitlines()
                last = (said or ["nothing"])[-1][:200]
                self.failed = f"ended with {self.process.returncode} and said: {last}"
        except subprocess.TimeoutExpired:
            self.failed = f"took more than {SECONDS} seconds"
        finally:
            if hasattr(self, "process"):
                self.process.kill()
                self.process.wait()
            lines = self.written.read_bytes().split(b"\n")[:-1]
            self.folder.cleanup()
        return lines, self.failed


@SCANNERS.register("bandit")
def scan_with_bandit(path: Path) -> ScanResult:
    """Return what Bandit finds in the Python files under `path`."""
    return begin(path)()


def begin(path: Path) -> Callable[[], ScanResult]:
    """Start Bandit over the Python files under `path`; return what waits for its findings."""
    tree = walk(path)
    names = {str(file.resolve()): tree.name(file) for file in tree.files if is_python(file)}
    books = {file: tree.name(file) for file in tree.files if file.suffix == ".ipynb"}
    try:
        tool = f"bandit {metadata.version('bandit')}"
    except metadata.PackageNotFoundError:
        missing = ScanResult(errors=("bandit is not installed; try: pip install bandit",))
        return lambda: missing
    started = _Process(sorted(names)) if names else None

    def ended() -> ScanResult:
        found = _told(tool, names, started)
        return merged([found, _notebooks(tool, books)] if books else [found])

    return ended


BEGIN[scan_with_bandit] = begin


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
        result = _told(tool, names)
    moved = []
    for finding in result.findings:
        name = str(finding.place["path"])
        cell, line = scripts[name].places[int(finding.place["line"]) - 1]
        moved.append(replace(finding, place={"path": name, "cell": cell, "line": line}))
    return replace(result, findings=tuple(moved))


def _told(tool: str, names: Mapping[str, str], started: _Process | None = None) -> ScanResult:
    """Return what Bandit says of files; `names` are theirs in findings, by path."""
    read: dict[str, list[Any]] = {}
    broken: dict[str, str] = {}
    errors: list[str] = []
    while waiting := sorted(names.keys() - read.keys() - broken.keys()):
        lines, failed = (started or _Process(waiting)).ended()
        started = None
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
