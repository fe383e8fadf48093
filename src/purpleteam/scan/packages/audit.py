"""pip-audit over what a tree pins: asks the index, so it is asked for, and never a default.

It ends well where the index knew nothing and every package was skipped; here such a package is
unverified, which is an error of the scan. So are a time-out, a failure, and no network.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from packaging.version import Version

from purpleteam.scan.packages.declared import read
from purpleteam.scan.scanner import ScanResult, Tree, merged, walk
from purpleteam.scan.scanners.packages import BROKEN, RULES

HOLE = replace(RULES["advisory"], id="PD010")
SECONDS, ANSWER_SECONDS = 120, 10  # of all, of one answer
Pin = tuple[str, int, str, str]
"""File, line, name and version."""


def audit(path: Path, command: tuple[str, ...] = ()) -> ScanResult:
    """Return what pip-audit says of every version that files under a path pin.

    Args:
        path: a file or a folder.
        command: how pip-audit is called; by default as a module of this Python.
    """
    if not (command or importlib.util.find_spec("pip_audit")):
        why = "pip-audit: unverified: it is not installed; try: pip install 'purpleteam[audit]'"
        return ScanResult(errors=(why,))
    command = command or (sys.executable, "-m", "pip_audit")
    pins = list(_pins(walk(path)))
    loose = {name for _, _, name, version in pins if not version}
    told = [f"pip-audit: unverified: {', '.join(sorted(loose))}: no one version"] if loose else []
    rounds: list[dict[str, str]] = []  # pip-audit takes each name once
    for name, version in sorted({(name, version) for _, _, name, version in pins if version}):
        free = next((one for one in rounds if name not in one), None)
        if free is None:
            rounds.append(free := {})
        free[name] = version
    results = [_ask(command, versions, pins) for versions in rounds]
    return merged([*results, ScanResult(errors=tuple(told))])


def _pins(tree: Tree) -> Iterator[Pin]:
    for file in tree.files:
        try:
            found = read(file)
        except (OSError, *BROKEN):
            continue  # the scanner of packages says so
        for row in found.packages if found else ():
            version = str(Version(row.pinned).public) if row.pinned else ""
            yield tree.name(file), row.line, row.name, version


def _ask(command: tuple[str, ...], versions: dict[str, str], pins: list[Pin]) -> ScanResult:
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "requirements.txt"
        wanted.write_text("".join(f"{n}=={v}\n" for n, v in versions.items()), encoding="utf-8")
        options = ["--no-deps", "--disable-pip", "--progress-spinner=off", "--format=json"]
        options += [f"--timeout={ANSWER_SECONDS}", f"--cache-dir={folder}"]
        try:
            done = subprocess.run(  # noqa: S603 - no shell
                [*command, "-r", str(wanted), *options],
                env=os.environ | {"HOME": folder},
                capture_output=True,
                timeout=SECONDS,
                check=False,
            )
            rows = {row["name"]: row for row in json.loads(done.stdout)["dependencies"]}
        except (OSError, subprocess.TimeoutExpired, ValueError, LookupError, TypeError) as error:
            why = f"pip-audit: unverified: it gave no answer: {type(error).__name__}"
            return ScanResult(errors=(why,))
    findings, errors = [], []
    for name, version in versions.items():
        row = rows.get(name, {})
        if row.get("version") != version or "vulns" not in row:
            why = row.get("skip_reason", "it was left out")
            errors.append(f"pip-audit: unverified: {name} {version}: {why}"[:300])
        for hole in row.get("vulns", ()):
            fixed = ", ".join(hole.get("fix_versions") or ()) or "no version known"
            text = f"{name} {version}: {hole['id']} (fixed in: {fixed})"
            for path, line, what, pinned in pins:
                if (what, pinned) == (name, version):
                    findings.append(HOLE.finding("pip-audit", text, path=path, line=line))
    return ScanResult(findings=tuple(findings), errors=tuple(errors))
