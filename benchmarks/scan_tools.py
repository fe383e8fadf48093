"""What other scanners say of the files under a folder, each installed in a place of its own.

`--tools FOLDER` of scan.py holds one virtual environment for each, made by hand:
`python -m venv FOLDER/picklescan && FOLDER/picklescan/bin/pip install picklescan`. Each runs as its
users run it, without network; what is not there is named as absent.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from purpleteam.scan.semgrep import semgrep

SECONDS = 900
PICKLESCAN = """
import json, logging, sys
from picklescan.scanner import scan_file_path
logging.disable(logging.CRITICAL)
for path in json.load(sys.stdin):
    try:
        told = scan_file_path(path, **json.loads(sys.argv[1]))
        said = "found" if told.issues_count else "unread" if told.scan_err else ""
        said = "unread" if not said and not told.scanned_files else said
    except Exception:
        said = "unread"
    print(json.dumps([path, said]))
"""
FICKLING = """
import json, sys
from fickling.analysis import Severity
from fickling.loader import scan_file, scan_zip_archive
for path in json.load(sys.stdin):
    try:
        zipped = open(path, "rb").read(2) == b"PK"
        look = scan_zip_archive if zipped else scan_file
        told = look(path, graceful=True)
        told = list(told.values()) if zipped else [told]
        bad = any(one.severity > Severity.LIKELY_SAFE and one.results for one in told)
        said = "found" if bad else "unread" if not told or any(one.errors for one in told) else ""
    except BaseException:
        said = "unread"
    print(json.dumps([path, said]))
"""


@dataclass(frozen=True)
class Said:
    """The files in which a tool found something, and those of which it said it did not read them.

    Found is what it calls medium or worse, or an issue where it has no such word.
    """

    found: frozenset[Path] = frozenset()
    unread: frozenset[Path] = frozenset()
    lines: frozenset[tuple[Path, int]] = frozenset()
    """Of source code: where it found something."""
    mild: frozenset[tuple[Path, int]] = frozenset()
    """Of source code: where it named something, of any severity."""


def _run(command: list[str], given: str = "") -> str:
    environment = {
        **os.environ,
        "PROMPTFOO_DISABLE_TELEMETRY": "1",
        "NO_ANALYTICS": "1",
        "SEMGREP_SEND_METRICS": "off",
        "SEMGREP_ENABLE_VERSION_CHECK": "0",
        "PYTHONPATH": "",
    }
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, timeout=SECONDS, check=False,
        env=environment, errors="replace",
    )  # fmt: skip
    if not done.stdout.strip():
        raise RuntimeError(f"{command[0]} said nothing: {done.stderr[-300:]}")
    return done.stdout


def _each(place: Path, script: str, folder: Path, *arguments: str) -> Said:
    paths = [str(one) for one in sorted(folder.rglob("*")) if one.is_file()]
    told = _run([str(place / "bin" / "python"), "-c", script, *arguments], json.dumps(paths))
    rows = [json.loads(line) for line in told.splitlines() if line.startswith("[")]
    kept = {word: frozenset(Path(path) for path, said in rows if said == word)
            for word in ("found", "unread")}  # fmt: skip
    return Said(**kept)


def _hayward(place: Path, folder: Path) -> Said:
    told = json.loads(
        _run([str(place / "bin" / "hayward"), "scan", "-f", "json", "--quiet", str(folder)])
    )
    bad = [
        one["file"] for one in told["findings"] if one["severity"] in ("medium", "high", "critical")
    ]
    gaps = [one["file"] if isinstance(one, dict) else one for one in told["coverage_gaps"]]
    return Said(_paths(bad), _paths(gaps))


def _paths(names: list[str]) -> frozenset[Path]:
    """Return the files; what lies in an archive counts for the archive."""
    found = set()
    for name in names:
        path = Path(name.partition(" (")[0])
        while not path.is_file() and path != path.parent:
            path = Path(str(path).rpartition(":")[0]) if ":" in path.name else path.parent
        found.add(path)
    return frozenset(found)


def _modelscan(place: Path, folder: Path) -> Said:
    with tempfile.TemporaryDirectory() as work:
        out = Path(work) / "report.json"
        command = [str(place / "bin" / "modelscan"), "scan", "-p", str(folder), "-r", "json"]
        _run([*command, "-o", str(out), "--show-skipped"])
        told = json.loads(out.read_text())
    bad = [str(folder / one["source"]) for one in told["issues"] if one["severity"] != "LOW"]
    read = _paths(
        [str(folder / one) for one in told["summary"]["scanned"].get("scanned_files", [])]
    )
    failed = _paths([str(folder / one.get("source", "")) for one in told["errors"]])
    every = frozenset(one for one in folder.rglob("*") if one.is_file())
    return Said(_paths(bad), (every - read) | (failed & every))


def _modelaudit(place: Path, folder: Path) -> Said:
    command = [
        str(place / "bin" / "modelaudit"),
        "scan",
        "--format",
        "json",
        "--no-cache",
        str(folder),
    ]
    told = json.loads(_run(command))
    bad = [one["location"] for one in told["issues"]
           if one["severity"] in ("critical", "warning") and one.get("location")]  # fmt: skip
    unknown = [one["path"] for one in told["assets"] if one["type"] == "unknown"]
    return Said(_paths(bad), _paths(unknown))


def _bandit(place: Path, folder: Path) -> Said:
    command = [
        str(place / "bin" / "bandit"),
        "-q",
        "-r",
        "-f",
        "json",
        "--ignore-nosec",
        str(folder),
    ]
    told = json.loads(_run(command))
    red, mild = (
        frozenset(
            (Path(one["filename"]), line)
            for one in told["results"]
            if one["issue_severity"] in words
            for line in one["line_range"]
        )
        for words in (("MEDIUM", "HIGH"), ("LOW", "MEDIUM", "HIGH"))
    )
    return Said(frozenset(path for path, _ in red), lines=red, mild=mild)


def _semgrep(place: Path, folder: Path) -> Said:
    findings = semgrep(str(place / "bin" / "semgrep"))(folder).findings
    red, mild = (
        frozenset((folder.parent / one.place["path"], int(one.place["line"])) for one in rows)
        for rows in ([one for one in findings if one.severity != "low"], findings)
    )
    return Said(frozenset(path for path, _ in red), lines=red, mild=mild)


TOOLS: Mapping[str, Callable[[Path, Path], Said]] = {
    "picklescan": lambda place, folder: _each(place, PICKLESCAN, folder, "{}"),
    "picklescan --strict": lambda place, folder: _each(
        place, PICKLESCAN, folder, '{"strict": true}'
    ),
    "hayward": _hayward,
    "modelaudit": _modelaudit,
    "fickling": lambda place, folder: _each(place, FICKLING, folder),
    "modelscan": _modelscan,
}
"""Scanners of model files."""
SOURCE_TOOLS: Mapping[str, Callable[[Path, Path], Said]] = {"bandit": _bandit, "semgrep": _semgrep}
"""Scanners of source code; Semgrep over the same rules as ours, since its own need a network."""


def known(place: Path) -> dict[str, str]:
    """Return the version and the licence of the tool that is installed there."""
    code = (
        "import json, sys; from importlib.metadata import metadata; m = metadata(sys.argv[1]);"
        "l = m['License-Expression'] or (m['License'] or '').split(chr(10))[0];"
        "print(json.dumps([m['Version'], l,"
        " [c for c in m.get_all('Classifier') or [] if c.startswith('License')]]))"
    )
    told = json.loads(_run([str(place / "bin" / "python"), "-c", code, place.name]))
    version, licence, classes = told
    return {"version": version, "licence": licence or " ".join(classes).rpartition(":: ")[2]}
