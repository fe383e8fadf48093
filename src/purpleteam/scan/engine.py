"""Run scanners over paths and say what none of them looked at."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from purpleteam.core.errors import UsageError, reason_of
from purpleteam.scan import scanners as folder
from purpleteam.scan.scanner import SCANNERS, Scanner, ScanResult, Tree, merged, walk
from purpleteam.scan.scanners.bandit_code import CODE, begin
from purpleteam.scan.settle import settle

KEPT_RESULTS = 32
KEPT_BYTES = 64 << 20  # results of larger trees are not kept: hashing costs as much as scanning
SCANNERS.load(folder)


def scan(
    paths: Iterable[Path | str],
    scanners: Iterable[str | Scanner] | None = None,
    *,
    inline_allow: bool = True,
) -> ScanResult:
    """Return what the scanners (by name or as such; all named ones by default) say of the paths.

    A path under which nothing was scanned is an error: no finding is then no good news. The same
    content under the same path is scanned once in a process. With `inline_allow`, comments in
    the files may silence findings: by rule, with a reason and until a day (`settle`).

    Raises:
        UsageError: a path does not exist, no path was named, or a scanner is not known.
    """
    asked = SCANNERS if scanners is None else scanners
    chosen = [SCANNERS[name] if isinstance(name, str) else name for name in asked]
    results: list[ScanResult] = []
    for path in map(Path, paths):
        tree = walk(path)
        result = merged([*_scanned(tree, chosen), ScanResult(skipped=tree.skipped)])
        result = settle(result, tree, inline_allow=inline_allow)
        known = {*result.scanned, *(name for name, _ in result.skipped)}
        known |= {error.partition(": ")[0] for error in result.errors}
        unknown = [file for file in tree.files if tree.name(file) not in known]
        kinds = Counter(file.suffix or file.name for file in unknown)
        name, why = tree.name(path), "no scanner knows this kind of file"
        if path not in tree.files:
            listed = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
            why = f"no scanner knows these files: {listed}"
        errors = () if result.scanned else (f"{name}: nothing was scanned, so nothing is known",)
        left_out = ((name, why),) if unknown else ()
        results += [result, ScanResult(skipped=left_out, errors=errors)]
    if not results:
        raise UsageError("nothing to scan: name a file or a folder")
    return merged(results)


# The last results: a run scans its own code in a stage and again in each check of code.
_results: dict[tuple[Scanner, Tree, str], ScanResult] = {}


def _scanned(tree: Tree, scanners: Iterable[Scanner]) -> Iterator[ScanResult]:
    try:
        small = sum(file.stat().st_size for file in tree.files) <= KEPT_BYTES
        digest = tree.digest() if small else None
    except OSError:
        digest = None  # the scanners say which file cannot be read
    keys = {scanner: (scanner, tree, digest or "") for scanner in scanners}
    code = {SCANNERS[name]: name for name in CODE}
    waits: Callable[[], dict[str, ScanResult]] = dict
    if all(scanner in keys and keys[scanner] not in _results for scanner in code):
        with suppress(Exception):  # each begins alone below, where its error is told
            waits = cache(begin(tree.root, CODE))
    for scanner, key in sorted(keys.items(), key=lambda row: row[0] in code):
        try:
            result = _results.get(key)
            if result is None and scanner in code:
                with suppress(KeyError, RuntimeError):
                    result = waits()[code[scanner]]
            result = scanner(tree.root) if result is None else result
        except Exception as error:  # of one scanner: the others still look, and it is said
            name = next((name for name in SCANNERS if SCANNERS[name] is scanner), "a scanner")
            why = f"{name} failed: {type(error).__name__}: {reason_of(error)}"
            result = ScanResult(errors=(f"{tree.name(tree.root)}: {why}",))
        if digest is not None and not result.errors:  # what failed once may succeed
            _results[key] = result
            if len(_results) > KEPT_RESULTS:
                del _results[next(iter(_results))]
        yield result
