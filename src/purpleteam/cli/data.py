"""data fetch | verify: get MNIST, and say whether a folder holds it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from purpleteam.cli.build import Answer
from purpleteam.cli.runs import Out
from purpleteam.core.errors import UsageError, unknown
from purpleteam.core.progress import Progress
from purpleteam.verbs.outputs import folder_to_write
from purpleteam.verbs.result import table
from purpleteam.verbs.verb import Option


def fetch(
    name: Annotated[str, Option(name="mnist", help="")], out: Out = None, *, progress: Progress
) -> Answer:
    """Download MNIST from public mirrors; every file's content is checked against its digest."""
    from purpleteam.data.sources.mnist import fetch_mnist, mnist_cache

    if name != "mnist":
        raise UsageError(unknown("dataset to fetch", name, ["mnist"]))
    folder = folder_to_write(out or mnist_cache())
    fetch_mnist(folder, progress=progress)
    return Answer(values={"folder": str(folder)}, shown=[str(folder)])


def verify(folder: Annotated[Path, Option(name="DIR", kind=Path, help="")]) -> Answer:
    """Say what is in a folder, and whether it is whole; MNIST's files must have its digests."""
    from purpleteam.data.arrays import is_array_file
    from purpleteam.data.checks import claims_mnist
    from purpleteam.data.sources.mnist import verify_folder

    if not folder.is_dir() and not is_array_file(folder):
        raise UsageError(f"folder {str(folder)!r} does not exist")
    if is_array_file(folder) or not claims_mnist(folder):
        return _described(folder)
    found = verify_folder(folder)
    whole = all(file.verdict == "pass" for file in found)
    files = [asdict(file) for file in found]
    return Answer(
        values={"folder": str(folder), "verified": whole, "files": files},
        shown=table([(file.verdict, file.name, file.reason or file.found) for file in found]),
        exit_code=int(not whole),
    )


def _described(path: Path) -> Answer:
    """Tell what is in a data set that is not MNIST: exit 0 whole, 1 not, 2 no image to judge."""
    from purpleteam.data.checks import examine
    from purpleteam.scan.formats import read_arrays

    found = examine(path, read_arrays)
    lines = [f"{path}: {'not whole' if found.problems else 'whole'}, {found.count} images"]
    for split, counts in found.splits.items():
        more = f" and {len(counts) - 10} more classes" if len(counts) > 10 else ""
        lines.append(f"{split or 'no splits'}: {sum(counts.values())} ({_first(counts)}{more})")
    for what, counted in (("sizes", found.sizes), ("pixels", found.modes)):
        lines += [f"{what}: {_first(counted)}"] if counted else []
    lines += [f"problem: {problem}" for problem in found.problems]
    lines += [f"note: {note}" for note in found.notes]
    code = 0 if not found.problems else 1 if found.count or found.unreadable else 2
    return Answer(values={"folder": str(path)} | found.to_json(), shown=lines, exit_code=code)


def _first(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in list(counts.items())[:10])
