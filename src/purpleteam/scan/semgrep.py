"""Semgrep over rules/semgrep.yaml, our own rules in its language: a second engine where asked for.

Semgrep (LGPL-2.1) is a process and never imported. It gets copies of the code under plain names, so
that no `.semgrepignore`, `.gitignore` or size keeps a file from it, and no network.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from purpleteam.core.errors import UsageError
from purpleteam.scan.rules import RULES
from purpleteam.scan.scanner import Scanner, ScanResult, is_code, walk
from purpleteam.scan.scanners.ml_code import Code

RULE_FILE = Path(__file__).with_name("rules") / "semgrep.yaml"
SECONDS = 900
OPTIONS = (
    *("scan", "--config", str(RULE_FILE), "--json", "--quiet", "--metrics", "off"),
    *("--disable-version-check", "--disable-nosem", "--no-git-ignore", "--max-target-bytes", "0"),
    *("--timeout", "60"),  # seconds for a rule in a file
)


def semgrep(name: str = "semgrep") -> Scanner:
    """Return the scanner that runs the Semgrep of that name or path.

    Raises:
        UsageError: there is no such executable, beside this Python or on the PATH.
    """
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    if (found := shutil.which(name, path=places)) is None:
        raise UsageError(
            f"semgrep {name!r} is no executable; install it (pipx install semgrep, or "
            "pip install 'purpleteam[semgrep]') and name it: --semgrep PATH"
        )
    return partial(_scan, found)


def _scan(executable: str, path: Path) -> ScanResult:
    codes: dict[str, Code] = {}
    tree = walk(path)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as home:
        for file in tree.files:
            if is_code(file):
                code, copy = Code(file, tree.name(file)), Path(folder) / f"{len(codes)}.py"
                try:
                    data = code.source
                except (OSError, ValueError):
                    continue  # the scanners beside this one say why
                copy.write_bytes(data)
                codes[copy.name] = code
        if not codes:
            return ScanResult()
        try:
            done = subprocess.run(  # noqa: S603 - no shell; an absolute path
                [executable, *OPTIONS, folder],
                env={**os.environ, "HOME": home, "XDG_CONFIG_HOME": home},  # for settings and logs
                capture_output=True,
                timeout=SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return ScanResult(errors=(f"semgrep did not run: {type(error).__name__}",))
    try:
        return _told_of(json.loads(done.stdout), codes)
    except (ValueError, KeyError, TypeError, AttributeError):
        said = (done.stderr.decode("utf-8", "replace").strip() or "nothing").splitlines()[-1][:200]
        return ScanResult(errors=(f"semgrep ended with {done.returncode} and said: {said}",))


def _told_of(report: dict[str, Any], codes: Mapping[str, Code]) -> ScanResult:
    """Return a report as ours; what Semgrep says that it did not read is not read."""
    findings, errors = [], []
    read = {Path(path).name for path in report["paths"]["scanned"]}
    skipped = {codes[copy].name: "semgrep: left out" for copy in codes if copy not in read}
    for error in report["errors"]:
        kind, copy = error.get("type", "error"), Path(error.get("path") or "").name
        kind = kind[0] if isinstance(kind, list) else kind
        if copy in codes:
            skipped[codes[copy].name] = f"semgrep: {kind}"
        else:
            errors.append(f"semgrep: {kind}: {' '.join(str(error.get('message')).split())[:200]}")
    for row in report["results"]:
        rule, _ = RULES[str(row["check_id"]).rpartition(".")[2]]
        place = codes[Path(row["path"]).name].place(int(row["start"]["line"]))
        found = rule.finding("rules", str(row["extra"]["message"]), **place)
        findings.append(replace(found, tool=f"semgrep {report.get('version', '')}".strip()))
    return ScanResult(
        findings=tuple(findings),
        scanned=tuple(code.name for code in codes.values() if code.name not in skipped),
        skipped=tuple(skipped.items()),
        errors=tuple(errors),
    )
