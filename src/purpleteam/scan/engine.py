"""Run scanners over paths and say what none of them looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from purpleteam.core.errors import UsageError
from purpleteam.scan.result import ScanResult, merged
from purpleteam.scan.scanners import SCANNERS
from purpleteam.scan.tree import Tree, walk

__all__ = ["scan"]


def scan(paths: Iterable[Path | str], scanners: Iterable[str] | None = None) -> ScanResult:
    """Return what the scanners (by name; all of them by default) say of the paths.

    A path under which nothing was scanned is an error: no finding is then no good news.

    Raises:
        UsageError: a path does not exist, no path was named, or a scanner is not known.
    """
    chosen = [SCANNERS[name] for name in (SCANNERS if scanners is None else scanners)]
    results: list[ScanResult] = []
    for path in map(Path, paths):
        tree = walk(path)
        found = merged([*(scanner(path) for scanner in chosen), ScanResult(skipped=tree.skipped)])
        results.extend((found, _not_looked_at(tree, found)))
    if not results:
        raise UsageError("nothing to scan: name a file or a folder")
    return merged(results)


def _not_looked_at(tree: Tree, found: ScanResult) -> ScanResult:
    known = {*found.scanned, *(path for path, _ in found.skipped)}
    others = [path for path in tree.files if tree.name(path) not in known]
    name = tree.name(tree.root)
    errors = () if found.scanned else (f"{name}: nothing was scanned, so nothing is known",)
    return ScanResult(skipped=tuple(_others(tree, others)), errors=errors)


def _others(tree: Tree, others: list[Path]) -> Iterator[tuple[str, str]]:
    if tree.root in others:
        yield tree.name(tree.root), "no scanner knows this kind of file"
    elif others:
        kinds = Counter(path.suffix or path.name for path in others)
        listed = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        yield tree.name(tree.root), f"no scanner knows these files: {listed}"
