"""data fetch | verify: get MNIST, and say whether a folder holds it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from purpleteam.cli.flow import Verbs
from purpleteam.cli.options import Debug, Json, Out, Quiet
from purpleteam.cli.screen import answer, progress
from purpleteam.core.errors import UsageError, unknown
from purpleteam.verbs.outputs import folder_to_write
from purpleteam.verbs.result import table


def add_to(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    data = typer.Typer(
        cls=Verbs,
        help="Get datasets, and verify them.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    data.command()(fetch)
    data.command()(verify)
    app.add_typer(data, name="data")


def fetch(
    name: Annotated[str, typer.Argument(metavar="mnist")],
    out: Out = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Download MNIST from public mirrors; every file's content is checked against its digest."""
    from purpleteam.data.sources.mnist import fetch_mnist, mnist_cache

    if name != "mnist":
        raise UsageError(unknown("dataset to fetch", name, ["mnist"]))
    folder = folder_to_write(out or mnist_cache())
    with progress(quiet or as_json) as bar:
        fetch_mnist(folder, progress=bar)
    answer({"folder": str(folder)}, [str(folder)], as_json=as_json)


def verify(
    folder: Annotated[Path, typer.Argument(metavar="DIR")],
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Say what is in a folder, and whether it is whole; MNIST's files must have its digests."""
    from purpleteam.data.arrays import is_array_file
    from purpleteam.data.checks import claims_mnist
    from purpleteam.data.sources.mnist import verify_folder

    if not folder.is_dir() and not is_array_file(folder):
        raise UsageError(f"folder {str(folder)!r} does not exist")
    if is_array_file(folder) or not claims_mnist(folder):
        _describe(folder, as_json)
        return
    found = verify_folder(folder)
    values = {
        "folder": str(folder),
        "verified": all(one.verdict == "pass" for one in found),
        "files": [asdict(one) for one in found],
    }
    rows = [(one.verdict, one.name, one.reason or one.found) for one in found]
    answer(values, table(rows), as_json=as_json)
    if not values["verified"]:
        raise typer.Exit(1)


def _describe(path: Path, as_json: bool) -> None:
    """Tell what is in a data set that is not MNIST: exit 0 whole, 1 not, 2 no image to judge."""
    from purpleteam.data.checks import examine
    from purpleteam.scan.formats import read_arrays

    found = examine(path, read_arrays)
    values = {"folder": str(path)} | found.to_json()
    lines = [f"{path}: {'not whole' if found.problems else 'whole'}, {found.count} images"]
    for split, counts in found.splits.items():
        listed = ", ".join(f"{name} {count}" for name, count in list(counts.items())[:10])
        more = f" and {len(counts) - 10} more classes" if len(counts) > 10 else ""
        lines.append(f"{split or 'no splits'}: {sum(counts.values())} ({listed}{more})")
    for what, counted in (("sizes", found.sizes), ("pixels", found.modes)):
        listed = ", ".join(f"{name} {count}" for name, count in list(counted.items())[:10])
        lines += [f"{what}: {listed}"] if counted else []
    lines += [f"problem: {one}" for one in found.problems]
    lines += [f"note: {one}" for one in found.notes]
    answer(values, lines, as_json=as_json)
    if found.problems:
        raise typer.Exit(1 if found.count or found.unreadable else 2)
