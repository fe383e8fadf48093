"""Bandit over Python files and notebooks, in a process of its own: source may crash a parser.

It gets a list of files and never a folder, where a `.bandit` file could turn its tests off, and
does not hear of `# nosec`, which needs neither a reason nor an end: `scan.settle` has our own way.
"""

import json
import os
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from purpleteam.core.records import Finding
from purpleteam.scan.scanner import SCANNERS, ScanResult, is_code, merged, walk

SECONDS = 300
PROCESSES = 2
WORDS = {"ml-code": "rules"}  # how a scanner is called beside a file that was left out


class _Process:
    """A program that looks at files; its answers are a file, since a pipe could run full."""

    def __init__(self) -> None:
        with ExitStack() as opened:
            self.written, self.said = (
                opened.enter_context(tempfile.TemporaryFile()) for _ in range(2)
            )
            program = Path(__file__).with_name("_code_process.py")
            self.process = subprocess.Popen(  # noqa: S603 - no shell; absolute paths
                [sys.executable, "-P", str(program)],
                env=os.environ | dict.fromkeys(("HOME", "XDG_CACHE_HOME"), os.devnull),
                stdin=subprocess.PIPE,
                stdout=self.written,
                stderr=self.said,
            )
            opened.callback(self.process.__exit__, None, None, None)
            opened.callback(self.process.kill)
            self.close = weakref.finalize(self, opened.pop_all().close)  # or the scan was stopped

    def give(self, scanners: list[str], parts: list[list[tuple[str, str]]]) -> "_Process":
        asked: Any = self.process.stdin
        with suppress(BrokenPipeError), asked:  # how it ended is told to whoever waits
            asked.write(json.dumps([scanners, *parts]).encode())
        return self

    def ended(self) -> tuple[list[bytes], str]:
        """Wait; return the whole lines that were written, and how it ended."""
        try:
            how = f"ended with {self.process.wait(SECONDS)}"
        except subprocess.TimeoutExpired:
            how = f"took more than {SECONDS} seconds"
        written, said = (
            os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)
            for file in (self.written, self.said)
        )
        self.close()
        last = (said.decode("utf-8", "replace").strip().splitlines() or ["nothing"])[-1][:200]
        return written.split(b"\n")[:-1], f"{how} and said: {last}"


_started: list[_Process] = []


def start() -> None:
    """Start a program before its files are known: it takes as long as a command line does."""
    with suppress(OSError):  # told when it is started for its files
        _started.append(_Process())


def begin(path: Path, scanners: Iterable[str]) -> Callable[[], dict[str, ScanResult]]:
    """Start scanners of code over the files under `path`; return what waits for their results.

    Raises:
        PackageNotFoundError: Bandit is not installed.
        RuntimeError: when waiting, where the program did not get ready.
    """
    metadata.version("bandit")
    tree = walk(path)
    # A program that was started before may have been so in another folder.
    files = [(str(file.absolute()), tree.name(file)) for file in tree.files if is_code(file)]
    files.sort(key=lambda row: -Path(row[0]).stat().st_size)
    scanners, parts = list(scanners), [files[first::PROCESSES] for first in range(PROCESSES)]
    process = (_started or [_Process()]).pop().give(scanners, parts) if files else None

    def ended() -> dict[str, ScanResult]:
        results: dict[str, list[ScanResult]] = {scanner: [] for scanner in scanners}
        waiting, working = parts, process
        while working is not None:
            lines, how = working.ended()
            if not lines:
                raise RuntimeError(how)
            done = set[tuple[str, str]]()
            for file, scanner, told in map(json.loads, lines[1:]):
                results[scanner].append(_result(told))
                done.add((file, scanner))
            left = [[row for row in part if (row[0], scanners[-1]) not in done] for part in waiting]
            for file, name in (part[0] for part in left if part):  # at which it ended
                for scanner in scanners:
                    if (file, scanner) not in done:
                        why = f"{WORDS.get(scanner, scanner)} {how}"
                        results[scanner].append(ScanResult(skipped=((name, why),)))
            waiting = [part[1:] for part in left if part[1:]]
            working = _Process().give(scanners, waiting) if waiting else None
        return {scanner: merged(rows) for scanner, rows in results.items()}

    return ended


def _result(told: dict[str, Any]) -> ScanResult:
    """Return a result from its form in JSON."""
    return ScanResult(
        findings=tuple(Finding(**row | {"command": ()}) for row in told["findings"]),
        scanned=tuple(told["scanned"]),
        skipped=tuple((name, why) for name, why in told["skipped"]),
        errors=tuple(told["errors"]),
    )


@SCANNERS.register("bandit")
def scan_with_bandit(path: Path) -> ScanResult:
    """Return what Bandit finds in the Python files and notebooks under `path`."""
    try:
        return begin(path, ["bandit"])()["bandit"]
    except metadata.PackageNotFoundError:
        return ScanResult(errors=("bandit is not installed; try: pip install bandit",))
    except RuntimeError as error:
        tree = walk(path)
        left_out = ((tree.name(file), "bandit left it out") for file in tree.files if is_code(file))
        return ScanResult(errors=(f"bandit {error}",), skipped=tuple(left_out))
