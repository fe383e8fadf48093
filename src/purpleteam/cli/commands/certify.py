"""certify: what no adversary of a stated strength can change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from purpleteam.cli.options import (
    DatasetOption,
    Debug,
    Json,
    Limit,
    Out,
    Quiet,
    Seed,
    Split,
    Threads,
)
from purpleteam.cli.outputs import file_to_write
from purpleteam.cli.screen import answer, progress, table, write_answer
from purpleteam.core.errors import UsageError, unknown

if TYPE_CHECKING:
    from purpleteam.certify.partition import PartitionCertificate

__all__ = ["add_to"]

METHODS = ("dpa",)


def add_to(app: typer.Typer) -> None:
    """Add the verb of this file."""
    app.command()(certify)


def certify(
    dataset: DatasetOption = "digits",
    method: Annotated[
        str, typer.Option("--method", help="dpa: against changes of the training set.")
    ] = "dpa",
    changes: Annotated[
        str, typer.Option("--changes", help="Training images inserted or removed, comma between.")
    ] = "10,50,100,500",
    parts: Annotated[
        int | None,
        typer.Option("--parts", min=1, help="Parts of the training set; by its size if absent."),
    ] = None,
    learner: Annotated[
        str,
        typer.Option("--learner", help="How a part's network is trained: readout, networks."),
    ] = "readout",
    seed: Seed = 0,
    split: Split = None,
    limit: Limit = None,
    out: Out = None,
    threads: Threads = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Prove how many training images may come or go before an answer can change.

    The certificate is for the vote of many small networks, each trained on a part of the images.
    """
    from purpleteam.certify.partition import certify_partitions, seeded
    from purpleteam.cli.lab import Lab

    if method not in METHODS:
        raise UsageError(unknown("method", method, METHODS))
    asked = _numbers(changes)
    how = seeded(learner, seed)
    out = file_to_write(out)
    lab = Lab.open(dataset, device="cpu", threads=threads, training=True)
    split = split or "test"
    images = lab.dataset.split(split).first(limit)
    with progress(quiet or as_json) as bar:
        found = certify_partitions(
            lab.dataset.train,
            images,
            classes=len(lab.dataset.classes),
            parts=parts,
            learner=how,
            progress=bar,
        )
    values = found.to_json(asked) | {
        "training_set": lab.dataset.train.digest,
        "images": {"digest": images.digest, "split": split, "limit": limit},
        "notes": [*lab.notes, *lab.of_part(split, limit)],
    }
    values |= lab.data(split)
    if out is not None:
        write_answer(out, values)
    lines = [*_lines(found, asked), *lab.flags(split, limit)]
    answer(values, lines, as_json=as_json)


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(one) for one in text.split(",")]
    except ValueError:
        numbers = [-1]
    if min(numbers) < 0:
        raise UsageError(f"--changes must be numbers from 0 such as 10,50,100,500, not {text!r}")
    return numbers


def _lines(found: PartitionCertificate, changes: list[int]) -> list[str]:
    rows: list[tuple[object, ...]] = [
        ("clean accuracy", found.clean_accuracy),
        *(
            (f"certified against {one} insertions or removals", found.certified_accuracy(one))
            for one in sorted(set(changes))
        ),
        ("half of all images are certified against", found.median_radius),
        ("parts", found.layout.parts),
        ("processor seconds", f"{sum(found.seconds.values()):.1f}"),
    ]
    return table(rows)
