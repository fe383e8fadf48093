"""Options that mean the same for every verb."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from purpleteam.core.config import number
from purpleteam.core.errors import ConfigError

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
        help="mnist, digits, a folder of IDX files or of class folders, or module:factory "
        "for a MAITE dataset.",
    ),
]
Split = Annotated[str, typer.Option("--split", help="train, validation or test.")]
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
