"""picklescan and hayward (both MIT) over model files: a second opinion where one is asked for.

What they call bad and our own judgement does not is a finding; where all agree, ours has said it.
Each runs in a process of its own, since it reads hostile files.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from purpleteam.core.errors import UsageError
from purpleteam.scan.judgement import judge
from purpleteam.scan.scanner import Rule, Scanner, ScanResult, walk

SECONDS = 900
DISAGREES = Rule(
    "PM019", "medium", "CWE-502", "read it with `purple import` alone, and report it to us", "low"
)
PICKLESCAN = """
import json, logging, sys
from picklescan.scanner import SafetyLevel, scan_file_path
logging.disable()
for path in sys.argv[1:]:
    try:
        names = {f"{one.module}.{one.name}" for one in scan_file_path(path).globals
                 if one.safety == SafetyLevel.Dangerous}
    except Exception:
        names = set()
    for name in sorted(names):
        print(json.dumps([path, f"dangerous import {name}"]))
"""
COMMANDS = {
    "picklescan": ("-c", PICKLESCAN),
    "hayward": ("-m", "hayward", "scan", "-f", "json", "--quiet", "--fail-on", "never"),
}


def second_opinion() -> Scanner:
    """Return the scanner that asks those of the two that are installed.

    Raises:
        UsageError: neither is.
    """
    tools = {
        one.name: one.version for name in COMMANDS for one in metadata.distributions(name=name)
    }
    if not tools:
        names = " nor ".join(COMMANDS)
        raise UsageError(f"neither {names} is installed; try: pip install 'purpleteam[peers]'")
    return lambda path: _ask(tools, path)


def _ask(tools: dict[str, str], path: Path) -> ScanResult:
    tree, findings, errors = walk(path), [], []
    names = {str(file.resolve()): tree.name(file) for file in tree.files}
    for tool, version in tools.items():
        try:
            told = dict.fromkeys(said(tool, list(names)))
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            errors.append(f"{tool} did not run: {type(error).__name__}")
            continue
        for file, why in told:
            if (grade := judge(Path(file)).grade) in ("note", "unsupported"):
                message = f"{tool} {version} says: {why}; we say {grade}"
                findings.append(DISAGREES.finding("second opinion", message, path=names[file]))
    return ScanResult(findings=tuple(findings), errors=tuple(errors))


def said(tool: str, files: list[str]) -> Iterator[tuple[str, str]]:
    """Yield each file that a tool calls bad, and why."""
    for at in range(0, len(files), 200):  # what a command line holds
        done = subprocess.run(  # noqa: S603 - no shell; absolute paths
            [sys.executable, "-P", *COMMANDS[tool], *files[at : at + 200]],
            capture_output=True,
            timeout=SECONDS,
            check=True,
        )
        if tool == "picklescan":
            yield from (tuple(json.loads(line)) for line in done.stdout.splitlines())
        else:
            for row in json.loads(done.stdout)["findings"]:
                if row["severity"] not in ("info", "low") and row["file"] in files:
                    yield row["file"], " ".join(row["message"].split())[:300]
