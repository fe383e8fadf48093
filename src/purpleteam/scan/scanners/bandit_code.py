"""Bandit over Python files and notebooks, in a process of its own: source may crash a parser.

It gets a list of files and never a folder, where a `.bandit` file could turn its tests off, and
does not hear of `# nosec`, which needs neither a reason nor an end: `scan.settle` has our own way.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from itertools import product
from pathlib import Path
from typing import Any

from purpleteam.core.records import Finding
from purpleteam.scan.scanner import SCANNERS, ScanResult, is_code, merged, walk

SECONDS, PAUSE = 300, 0.002
WORDS = {"ml-code": "rules"}  # how a scanner is called beside a file that was left out
CODE = ("bandit", "ml-code")  # where both are asked, each file is parsed once


class _Process:
    """A program that looks at files; what it is asked and answers are files: pipes run full."""

    def __init__(self, scanners: list[str], files: list[tuple[str, str]]) -> None:
        with ExitStack() as opened:
            asked, self.written, self.said = (
                opened.enter_context(tempfile.TemporaryFile()) for _ in range(3)
            )
            asked.write(json.dumps([scanners, files]).encode())
            asked.seek(0)
            program = Path(__file__).with_name("_code_process.py")
            self.process = subprocess.Popen(  # noqa: S603 - no shell; absolute paths
                [sys.executable, "-P", str(program)],
                env=os.environ | dict.fromkeys(("HOME", "XDG_CACHE_HOME"), os.devnull),
                stdin=asked,
                stdout=self.written,
                stderr=self.said,
            )
            opened.callback(self.process.__exit__, None, None, None)
            opened.callback(self.process.kill)
            self.close = weakref.finalize(self, opened.pop_all().close)  # or the scan was stopped

    def ended(self) -> tuple[list[bytes], str]:
        """Wait; return the whole lines that were written, and how it ended."""
        end = time.monotonic() + SECONDS
        while (code := self.process.poll()) is None and time.monotonic() < end:
            time.sleep(PAUSE)  # `wait` looks 20 times a second
        how = f"took more than {SECONDS} seconds" if code is None else f"ended with {code}"
        written, said = (
            os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)
            for file in (self.written, self.said)
        )
        self.close()
        last = (said.decode("utf-8", "replace").strip().splitlines() or ["nothing"])[-1][:200]
        return written.split(b"\n")[:-1], f"{how} and said: {last}"


_begun: dict[Path, Callable[[], dict[str, ScanResult]]] = {}


def start(arguments: Iterable[str]) -> None:
    """Begin with the first folder or code that is named, while a command line is read."""
    path = next((one for one in map(Path, arguments) if one.is_dir() or is_code(one)), None)
    with suppress(Exception):  # told when it is asked for
        _begun.update({path: begin(path, CODE)} if path else {})


def begin(path: Path, scanners: Iterable[str]) -> Callable[[], dict[str, ScanResult]]:
    """Start scanners of code over the files under `path`; return what waits for their results.

    Raises:
        PackageNotFoundError: Bandit is not installed.
        RuntimeError: when waiting, where the program did not get ready.
    """
    before = _begun.pop(path, None)
    _begun.clear()  # what looks at another path ends
    if before and scanners == CODE:
        return before
    tree = walk(path)
    files = [(str(file), tree.name(file)) for file in tree.files if is_code(file)]
    files.sort(key=lambda row: -Path(row[0]).stat().st_size)
    scanners = list(scanners)
    process = _Process(scanners, files) if files else None
    from importlib import metadata  # slow to load, and not before the program is

    metadata.version("bandit")

    def ended() -> dict[str, ScanResult]:
        results: dict[str, list[ScanResult]] = {scanner: [] for scanner in scanners}
        waiting, working = files, process
        while working is not None:
            lines, how = working.ended()
            if not lines:
                raise RuntimeError(how)
            done = {(number, scanner): told for number, scanner, told in map(json.loads, lines)}
            for number, scanner in product(range(len(waiting)), scanners):
                if told := done.get((number, scanner)):
                    results[scanner].append(_result(told))
                elif (number, "") in done:  # it was looking at it when it ended
                    why = f"{WORDS.get(scanner, scanner)} {how}"
                    results[scanner].append(ScanResult(skipped=((waiting[number][1], why),)))
            left = [row for number, row in enumerate(waiting) if (number, "") not in done]
            waiting, working = left, _Process(scanners, left) if left else None
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
    except ImportError:
        return ScanResult(errors=("bandit is not installed; try: pip install bandit",))
    except RuntimeError as error:
        tree = walk(path)
        left_out = ((tree.name(file), "bandit left it out") for file in tree.files if is_code(file))
        return ScanResult(errors=(f"bandit {error}",), skipped=tuple(left_out))
