"""What a tree installs: pins, hashes, sources, and versions with published holes."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from packaging.specifiers import SpecifierSet

from purpleteam.core.records import Finding, Severity
from purpleteam.scan.packages.advisories import Advisory, snapshot
from purpleteam.scan.packages.declared import Manifest, Package, is_named_so, read
from purpleteam.scan.scanner import SEVERITIES, Rule, ScanResult, file_scanner

_PIN = "name one version (==), with --hash, or lock: uv lock, poetry lock, pip lock"
_HASH = "name its sha256 beside it, or a commit by its 40 digits"
RULES: dict[str, Rule] = {
    "advisory": Rule("PD001", "high", "CWE-1395", "install a version that has the fix"),
    "range": Rule("PD002", "low", "CWE-1357", _PIN),
    "no-hash": Rule("PD003", "note", "CWE-494", "have hashes written: pip-compile, uv, pip lock"),
    "mutable": Rule("PD004", "low", "CWE-829", "name the digest (@sha256:...) or the commit"),
    "address": Rule("PD005", "medium", "CWE-494", _HASH),
    "plain": Rule("PD006", "high", "CWE-319", "use https and check its certificate"),
    "second-index": Rule(
        "PD007", "medium", "CWE-427", "use one index, or name hashes: any index may answer first"
    ),
    "piped": Rule("PD008", "medium", "CWE-494", "fetch it, compare its sha256, then run it"),
    "unread": Rule("PD009", "medium", "CWE-693", "write it so that it can be read, and scan again"),
}
"""Kind to rule; the identifiers never change their meaning."""
ABOUT = {
    "advisory": "A declared version has a published hole.",
    "range": "What is installed is decided on the day, by whoever publishes last.",
    "no-hash": "A version is pinned and its content is not.",
    "mutable": "A name whose content its owner can change.",
    "address": "What is fetched from an address is compared with nothing.",
    "plain": "Whoever is on the way decides what is installed.",
    "second-index": "Two indexes, and either may serve a name (dependency confusion).",
    "piped": "What the network says is run at once.",
    "unread": "A file of dependencies that could not be read.",
}
TOLD = {
    "unread": "and so may others be; what can be read of the file was read",
    "mutable": "its content can be changed under this name",
    "latest": "it is whatever its owner calls so today",
    "address": "fetched, and compared with nothing",
    "plain": "neither encrypted nor proved",
    "second-index": "another index beside the first: either may answer for any name",
    "piped": "run as it comes from the network",
}
LOCKS = ("poetry.lock", "uv.lock", "pdm.lock", "Pipfile.lock", "pylock*.toml", "*constraints*.txt")
INCLUDED = 50  # files of requirements that one names, and that those name
BROKEN = (ValueError, LookupError, TypeError, AttributeError, RecursionError)


@file_scanner("packages")
def scan_packages(file: Path, name: str) -> ScanResult | None:
    """Return what is wrong with what a file of dependencies, an image or a workflow installs."""
    findings: list[Finding] = []
    scanned, left_out = [], []
    waiting, seen = [(file, name)], {file}
    while waiting:
        path, told = waiting.pop()
        unread: list[tuple[int, str]] = []
        try:
            found = read(path, included=path != file)
            if found is None:
                return None
            scanned.append(told)
            commands = found.kind in ("image", "workflow")  # whose words may be anything
            unsure = ("unknown", "unread") if commands else ("unknown",)
            for kind, line, why in found.faults:
                if kind in unsure:
                    left_out.append((told, f"packages: line {line}: {why}"))
            findings += _judge(found, path.parent, told, unsure)
            for line, other in () if commands else found.includes:
                target = path.parent / other
                if not target.resolve().is_relative_to(file.parent.resolve()):
                    left_out.append((told, f"packages: line {line} names {other[:100]}"))
                elif not target.is_file():
                    unread.append((line, f"it names {other[:100]!r}, which is not there"))
                elif target not in seen and len(seen) < INCLUDED and not is_named_so(target):
                    seen.add(target)  # one that no scan would take for what it is
                    waiting.append((target, told.removesuffix(path.name) + other))
        except BROKEN as error:
            unread = [(1, f"unread: {type(error).__name__}: {error}"[:300])]
            left_out.append((told, unread[0][1]))
        rule = RULES["unread"]
        findings += [rule.finding("packages", why, path=told, line=line) for line, why in unread]
    if stale := snapshot().stale:
        left_out.append((name, stale))
    return ScanResult(findings=tuple(findings), scanned=tuple(scanned), skipped=tuple(left_out))


def _judge(found: Manifest, folder: Path, name: str, unsure: tuple[str, ...]) -> Iterator[Finding]:
    """Yield what is wrong with one file; `folder` may hold a lock beside it."""

    def finding(kind: str, line: int, text: str, severity: Severity | None = None) -> Finding:
        rule = RULES[kind]
        meant = replace(rule, severity=severity or rule.severity)
        return meant.finding("packages", text, path=name, line=line)

    packages = found.packages
    beside = {path.name for form in LOCKS for path in folder.glob(form)} - {Path(name).name}
    soft = bool(beside) or found.kind in ("lock", "project")  # a range here decides nothing
    told = dict.fromkeys(row for row in found.faults if row[0] not in unsure)
    unread = [row for row in told if row[0] == "unread"]
    for kind, line, what in [row for row in told if row not in unread[1:]]:
        pinned = kind == "second-index" and packages and all(row.hashed for row in packages)
        latest: Severity | None = "medium" if kind == "latest" else "note" if pinned else None
        rule = "mutable" if kind == "latest" else kind
        yield finding(rule, line, f"{what}: {TOLD[kind]}", latest)
    loose = []
    for row in packages:
        versions = str(row.versions) or "of any version"
        if known := _known(row):
            worst = max(known, key=lambda one: SEVERITIES.index(one.severity))
            more = "".join(f"; {one.id} ({one.fixed or 'no fix'})" for one in known if one != worst)
            if row.pinned or _admits_no_fix(row, worst):
                text = f"{row.name} {row.pinned or versions}: {worst}{more}"
                yield finding("advisory", row.line, text, worst.severity)
            else:
                text = f"{row.name} {versions} admits {worst}{more}"
                yield finding("advisory", row.line, text, "note" if soft else "low")
        elif not (row.pinned or row.url or soft):
            yield finding("range", row.line, f"{row.name} {versions}: not one version")
        if not (row.pinned or row.url):
            loose.append(row)
    if found.kind == "project" and loose and not beside:
        shown = ", ".join(dict.fromkeys(row.name for row in loose[:5]))
        text = f"{len(loose)} of {len(packages)} name no one version ({shown}), no lock is beside"
        yield finding("range", loose[0].line, text, "note")
    bare = [row for row in packages if row.pinned and not row.hashed]
    if bare and found.kind in ("requirements", "lock"):
        text = f"{len(bare)} of {len(packages)} are pinned by version alone, without a hash"
        yield finding("no-hash", bare[0].line, text)


def _known(row: Package) -> list[Advisory]:
    """Return the advisories on the version of a package, or on one that it admits."""
    if row.pinned:
        return snapshot().on(row.name, row.pinned)
    return [
        one
        for one in (() if row.url else snapshot().packages.get(row.name, ()))
        if not all((row.versions & each).is_unsatisfiable() for each in one.affected)
    ]


def _admits_no_fix(row: Package, advisory: Advisory) -> bool:
    fixed = f">={advisory.fixed}"
    return advisory.fixed is not None and (row.versions & SpecifierSet(fixed)).is_unsatisfiable()
