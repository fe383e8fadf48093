"""data fetch | verify: get MNIST, and say whether a folder holds it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from purpleteam.cli.options import Debug, Json, Out, Quiet
from purpleteam.cli.outputs import folder_to_write
from purpleteam.cli.screen import answer, progress, table
from purpleteam.cli.verbs import Verbs
from purpleteam.core.errors import UsageError, unknown

__all__ = ["add_to"]


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
    """Compare a folder's MNIST files with the pinned digests."""
    from purpleteam.data.sources.mnist import verify_folder

    if not folder.is_dir():
        raise UsageError(f"folder {str(folder)!r} does not exist")
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
