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
from purpleteam.scan.text import Script, as_script, read_cells

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
    names, scripts = dict[str, str](), dict[str, Script]()
    tree = walk(path)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as home:
        for file in tree.files:
            if is_code(file):
                name, copy = tree.name(file), Path(folder) / f"{len(names)}.py"
                try:
                    data = file.read_bytes()
                    if file.suffix == ".ipynb":
                        scripts[name] = as_script(read_cells(data))
                        data = scripts[name].source.encode("utf-8", "replace")
                except (OSError, ValueError):
                    continue  # the scanners beside this one say why
                copy.write_bytes(data)
                names[copy.name] = name
        if not names:
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
        return _told_of(json.loads(done.stdout), names, scripts)
    except (ValueError, KeyError, TypeError, AttributeError):
        said = (done.stderr.decode("utf-8", "replace").strip() or "nothing").splitlines()[-1][:200]
        return ScanResult(errors=(f"semgrep ended with {done.returncode} and said: {said}",))


def _told_of(
    report: dict[str, Any], names: Mapping[str, str], scripts: Mapping[str, Script]
) -> ScanResult:
    """Return a report as ours; what Semgrep says that it did not read is not read."""
    findings, errors = [], []
    read = {Path(path).name for path in report["paths"]["scanned"]}
    skipped = {name: "semgrep: left out" for copy, name in names.items() if copy not in read}
    for error in report["errors"]:
        kind, copy = error.get("type", "error"), Path(error.get("path") or "").name
        kind = kind[0] if isinstance(kind, list) else kind
        if copy in names:
            skipped[names[copy]] = f"semgrep: {kind}"
        else:
            errors.append(f"semgrep: {kind}: {' '.join(str(error.get('message')).split())[:200]}")
    for row in report["results"]:
        rule, _ = RULES[str(row["check_id"]).rpartition(".")[2]]
        name, line = names[Path(row["path"]).name], int(row["start"]["line"])
        cell, line = scripts[name].places[line - 1] if name in scripts else (0, line)
        place = {"line": line} | ({"cell": cell} if cell else {})
        found = rule.finding("rules", str(row["extra"]["message"]), path=name, **place)
        findings.append(replace(found, tool=f"semgrep {report.get('version', '')}".strip()))
    return ScanResult(
        findings=tuple(findings),
        scanned=tuple(name for name in names.values() if name not in skipped),
        skipped=tuple(skipped.items()),
        errors=tuple(errors),
    )
