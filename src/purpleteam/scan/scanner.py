"""A scanner, the files under a path, and the result of a scan with all that was left out."""

import gc
import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

from purpleteam.core.digest import canonical_json, sha256_bytes, sha256_file
from purpleteam.core.errors import UsageError, reason_of, unknown
from purpleteam.core.records import Finding, Severity
from purpleteam.core.registry import Registry

PYTHON = frozenset({".py", ".pyw"})
SEVERITIES: tuple[str, ...] = get_args(Severity)  # from the mildest to the worst
CACHES = frozenset({
    "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache",
    ".hypothesis", ".import_linter_cache",
})  # fmt: skip
FOREIGN = {
    **dict.fromkeys((".git", ".hg", ".svn"), "version control"),
    **dict.fromkeys((".tox", ".nox"), "virtual environments"),
    **dict.fromkeys(("node_modules", "site-packages"), "installed packages"),
}
SECONDS, BYTES_A_SECOND = 20.0, 20e6  # of processor time for one file, by its size


class TooSlow(Exception):
    """A file took more time than one file may."""


@dataclass(frozen=True)
class Rule:
    """What a finding of ours is called, how bad it is, and what to do; an id keeps its meaning."""

    id: str
    severity: Severity
    cwe: str
    fix: str
    confidence: str = "high"

    def finding(self, tool: str, message: str, **place: Any) -> Finding:
        facts = asdict(self)
        rule = facts.pop("id")
        return Finding(tool=f"purpleteam {tool}", rule=rule, message=message, place=place, **facts)


@dataclass(frozen=True)
class Silenced:
    """A finding that a comment in its file allows, with the comment's reason and last day."""

    finding: Finding
    reason: str
    until: str

    def to_json(self) -> dict[str, Any]:
        facts = {name: self.finding.place[name] for name in ("path", "line")}
        return facts | {"rule": self.finding.rule, "reason": self.reason, "until": self.until}


@dataclass(frozen=True, kw_only=True)
class ScanResult:
    """Findings, and what was and was not looked at."""

    findings: tuple[Finding, ...] = ()
    scanned: tuple[str, ...] = ()
    """Files that a scanner has read to the end."""
    skipped: tuple[tuple[str, str], ...] = ()
    """Path and reason."""
    errors: tuple[str, ...] = ()
    """Where a scanner itself failed; its silence then says nothing."""
    silenced: tuple[Silenced, ...] = ()
    """What comments in the code keep from being findings."""

    def worst(self, least: str) -> tuple[Finding, ...]:
        return tuple(row for row in self.findings if severity_at_least(row.severity, least))

    def to_json(self) -> dict[str, Any]:
        fields: dict[str, Any] = {name: list(value) for name, value in vars(self).items()}
        fields["skipped"] = [{"path": path, "reason": reason} for path, reason in self.skipped]
        fields["silenced"] = [row.to_json() for row in self.silenced]
        return fields | {"findings": [finding.to_json() for finding in self.findings]}


Scanner = Callable[[Path], ScanResult]  # looks at a file or a folder
SCANNERS: Registry[Scanner] = Registry("scanner")  # filled by a file for each


def severity_at_least(severity: str, least: str) -> bool:
    """Return whether a severity is `least` or worse, as for --fail-on."""
    for value in (severity, least):
        if value not in SEVERITIES:
            raise UsageError(unknown("severity", value, SEVERITIES))
    return SEVERITIES.index(severity) >= SEVERITIES.index(least)


def merged(results: Iterable[ScanResult]) -> ScanResult:
    """Return all results as one: each thing once, in order of place."""

    def place(row: Finding) -> tuple[str, int, int, str, str]:
        cell, line = (int(row.place.get(part, 0)) for part in ("cell", "line"))
        return str(row.place.get("path", "")), cell, line, row.rule, row.message

    every = [vars(result) for result in results]
    rows = {name: [row for result in every for row in result[name]] for name in vars(ScanResult())}
    findings = {row.id: row for row in rows.pop("findings")}
    silenced = {row.finding.id: row for row in rows.pop("silenced")}
    errors = dict.fromkeys(rows.pop("errors"))
    return ScanResult(
        findings=tuple(sorted(findings.values(), key=place)),
        errors=tuple(errors),
        silenced=tuple(sorted(silenced.values(), key=lambda row: place(row.finding))),
        **{name: tuple(sorted(set(listed))) for name, listed in rows.items()},
    )


@dataclass(frozen=True)
class Tree:
    """The files under one path, in order of name, and what was left out, with the reason."""

    root: Path
    files: tuple[Path, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()

    def name(self, path: Path) -> str:
        """Return the file's name in findings, below the root's own name if it lies elsewhere.

        Elsewhere is what is absolute, or leads out of the current folder. So the same tree has the
        same names wherever it lies.
        """
        if self.root.is_absolute() or ".." in self.root.parts:
            path = Path(self.root.resolve().name) / path.relative_to(self.root)
        return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")

    def digest(self) -> str:
        base = self.root if self.root.is_dir() else self.root.parent
        listed = {path.relative_to(base).as_posix(): sha256_file(path) for path in self.files}
        return sha256_bytes(canonical_json(listed).encode())


def walk(root: Path) -> Tree:
    """Return the files under `root`, which may be a file; links inside are not followed."""
    if root.is_file():
        return Tree(root, (root,))
    if not root.is_dir():
        raise UsageError(f"path {str(root)!r} does not exist")
    files: list[Path] = []
    left_out: list[tuple[Path, str]] = []
    caches: Counter[str] = Counter()

    def failed(error: OSError) -> None:
        left_out.append((Path(error.filename), f"cannot be read: {error.strerror}"))

    for folder, names, members in os.walk(root, onerror=failed):
        here = Path(folder)
        caches.update(name for name in names if name in CACHES)
        inside, names[:] = sorted(set(names) - CACHES), []
        for name in inside:
            path, reason = here / name, FOREIGN.get(name)
            if (path / "pyvenv.cfg").is_file():
                reason = "a virtual environment"
            if path.is_symlink():
                reason = "a link, not followed"
            if reason is None:
                names.append(name)
            else:
                left_out.append((path, reason))
        for path in sorted(here / name for name in members):
            if path.is_symlink() or not path.is_file():
                left_out.append((path, "a link or no plain file"))
            else:
                files.append(path)
    if caches:
        listed = ", ".join(f"{count} {name}" for name, count in sorted(caches.items()))
        left_out.append((root, f"caches left out: {listed}"))
    skipped = sorted((Tree(root).name(path), reason) for path, reason in left_out)
    return Tree(root, tuple(files), tuple(skipped))


def is_python(file: Path) -> bool:
    """Return whether a file is Python by its suffix, or, where it has none, by its first line."""
    if file.suffix:
        return file.suffix in PYTHON
    with suppress(OSError), file.open("rb") as opened:
        return re.match(rb"#![^\n]*python", opened.read(128)) is not None
    return False


def is_code(file: Path) -> bool:
    """Return whether a file is Python or a notebook."""
    return file.suffix == ".ipynb" or is_python(file)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TooSlow where the block takes more processor time; in the main thread alone.

    Meanwhile no circles of objects are looked for: it costs as much again as a file's tree itself.
    """
    if threading.current_thread() is not threading.main_thread() or os.name != "posix":
        yield
        return

    def stop(*_: object) -> None:
        raise TooSlow(f"it took more than {seconds:.0f} seconds")

    before, collects = signal.signal(signal.SIGVTALRM, stop), gc.isenabled()
    gc.disable()
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
        if collects:
            gc.enable()


def file_scanner(name: str) -> Callable[[Callable[[Path, str], ScanResult | None]], Scanner]:
    """Make a function that looks at a file, or returns None for it, a scanner of a path."""

    def register(look: Callable[[Path, str], ScanResult | None]) -> Scanner:
        def scanner(path: Path) -> ScanResult:
            tree, results = walk(path), [ScanResult()]
            for file in tree.files:
                told = tree.name(file)
                if result := guarded(name, partial(look, file, told), file, told):
                    results.append(result)
            return merged(results)

        return SCANNERS.register(name)(scanner)

    return register


def guarded(
    scanner: str, look: Callable[[], ScanResult | None], file: Path, name: str
) -> ScanResult | None:
    """Return what is found in a file; what is raised, also by a time limit, is its error alone."""
    try:
        limit = SECONDS + file.stat().st_size / BYTES_A_SECOND
        with time_limit(limit):
            return look()
    except OSError as error:
        why = f"cannot be read: {error.strerror}"
        return ScanResult(skipped=((name, why),), errors=(f"{name}: {why}",))
    except Exception as error:
        why = f"{scanner} failed: {type(error).__name__}: {reason_of(error)}"
        return ScanResult(errors=(f"{name}: {why}",))
