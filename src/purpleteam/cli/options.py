"""Options that mean the same for every verb."""

from __future__ import annotations

import functools
import inspect
import json
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from purpleteam.core.config import number
from purpleteam.core.errors import ConfigError, UsageError

__all__ = [
    "Arch",
    "Budget",
    "Classes",
    "Code",
    "DatasetOption",
    "Debug",
    "Device",
    "Epochs",
    "Json",
    "Limit",
    "Model",
    "Normalise",
    "Out",
    "Quiet",
    "Seed",
    "SeedOrNone",
    "Split",
    "Threads",
    "Weights",
    "number_option",
    "with_reading",
]

MAX_SEED = 2**63 - 1  # what torch takes
MAX_THREADS = 256  # thousands of threads bring the process down


def _number(text: str) -> float:
    try:
        return number(text)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from None


def number_option(name: str, help: str) -> Any:
    """Return an option that is a number: a decimal, or a fraction such as 8/255."""
    return typer.Option(name, parser=_number, metavar="<number>", help=help)


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Seed = Annotated[
    int, typer.Option("--seed", min=0, max=MAX_SEED, help="All chance is a function of it.")
]
SeedOrNone = Annotated[
    int | None, typer.Option("--seed", min=0, max=MAX_SEED, help="All chance is a function of it.")
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, max=MAX_THREADS, help="torch's threads; 1 by default."),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
Out = Annotated[Path | None, typer.Option("--out", help="File or folder that is written.")]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        help="Zoo name, stored model, module:factory (or FILE.py:factory), .onnx file, or an app's "
        "address.",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        help="For module:factory: .safetensors, or a .pt state dict; not needed where the factory "
        "sets its own.",
    ),
]
Normalise = Annotated[
    str | None,
    typer.Option(
        "--normalise",
        help="What the net wants of images in [0, 1]: bytes, signed, inverted, mnist, cifar10, "
        "imagenet, or mean=M,std=S (a/b/c for channels). Epsilon stays in pixel units.",
    ),
]
Classes = Annotated[
    str | None,
    typer.Option(
        "--classes",
        help="The data's class names in the order of the net's outputs: a,b,c, or a file of them.",
    ),
]
DatasetOption = Annotated[
    str,
    typer.Option(
        "--dataset",
        help="mnist, digits, a folder of IDX files, of class folders or of images with "
        "labels.csv, an .npz, .npy or pickled file of arrays, or module:factory for MAITE.",
    ),
]
Split = Annotated[
    str | None,
    typer.Option(
        "--split",
        help="train, validation, test or all; test by default, for attack and evaluate all where "
        "a set has no splits.",
    ),
]
Limit = Annotated[int | None, typer.Option("--limit", help="First so many images of the split.")]
ARCH = typer.Option(
    "--arch",
    help="Architecture name, module:factory or PATH/TO/net.py:factory; the code of a stored model "
    "whose card names some.",
)
Arch = Annotated[str, ARCH]
Code = Annotated[str | None, ARCH]
Epochs = Annotated[
    int | None, typer.Option("--epochs", min=1, help="Epochs, where not the recipe's.")
]
Budget = Annotated[
    float | None,
    number_option("--budget", "Minutes; stops before an epoch that would go beyond them."),
]

READING = {
    "resize": Annotated[
        str | None,
        typer.Option("--resize", help="Size of all images of a folder: 32, or 32x48 (HxW)."),
    ],
    "labels": Annotated[
        str | None, typer.Option("--labels", help="File of file,label for a folder of images.")
    ],
    "skip_unreadable": Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave out images that cannot be read.")
    ],
}
"""How the images of `--dataset` or `--training-set` are read, for every verb that has one."""


def with_reading(verb: Callable[..., None]) -> Callable[..., None]:
    """Return a verb that also takes the options of `READING`, put behind its dataset's name.

    `--dataset my_images --resize 32` is `--dataset my_images:resize=32`, in records too.
    """
    hints = typing.get_type_hints(verb, include_extras=True)
    named = next((one for one in ("training_set", "dataset") if one in hints), None)
    if named is None:
        return verb

    @functools.wraps(verb)
    def read(*, resize: str | None, labels: str | None, skip_unreadable: bool, **rest: Any) -> None:
        given = {"resize": resize, "labels": labels, "skip_unreadable": skip_unreadable or None}
        told = [f"{key}={json.dumps(one)}" for key, one in given.items() if one is not None]
        if told:
            key = named if rest.get(named) is not None else "dataset"
            if rest.get(key) is None:
                raise UsageError(f"--{told[0].partition('=')[0]} goes with --dataset FOLDER")
            rest[key] = f"{rest[key]}:{','.join(told)}"
        verb(**rest)

    own = inspect.signature(verb)
    kept = [one.replace(annotation=hints[name]) for name, one in own.parameters.items()]
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for (name, kind), default in zip(READING.items(), (None, None, False), strict=True)
    ]
    read.__signature__ = own.replace(parameters=[*kept, *more])  # type: ignore[attr-defined]
    read.__annotations__ = hints | READING
    return read
