"""What the verbs' common parameters are called and mean, on the command line and in Python."""

from pathlib import Path
from typing import Annotated, Any, TypedDict

from purpleteam.core.errors import UsageError
from purpleteam.core.progress import Progress
from purpleteam.core.runfolder import RunFolder
from purpleteam.verbs.verb import Option

MAX_SEED = 2**63 - 1  # what torch takes
MAX_THREADS = 256  # thousands of threads bring the process down

MODEL = (
    "Zoo name, stored model, module:factory (or FILE.py:factory), .onnx file, or an app's address."
)
Model = Annotated[Any, MODEL]
"""A reference, a `LoadedModel`, an `nn.Module`, or any callable from images (N, C, H, W) in [0, 1]
to scores (N, classes)."""
Images = Annotated[
    Any,
    Option(
        name="--dataset",
        help="mnist, digits, drawn_shapes[:field=value,...], a folder of IDX files, of class "
        "folders or of images with labels.csv, an .npz, .npy or pickled file of arrays, or "
        "module:factory for MAITE.",
    ),
]
"""A reference, a `Dataset`, an `ImageSet`, arrays or tensors with labels beside, or a loader."""
Weights = Annotated[
    Path | str | None,
    "For module:factory: .safetensors, or a .pt state dict; not needed where the factory "
    "sets its own.",
]
ARCH = Option(
    name="--arch",
    help="Architecture name, module:factory or PATH/TO/net.py:factory; the code of a stored model "
    "whose card names some. By default classic_cnn, or residual_cnn above 64 pixels a side; to "
    "harden, a module:factory that --model names.",
)
Arch = Annotated[str | None, ARCH]
Normalise = Annotated[
    str | None,
    "What the net wants of images in [0, 1]: bytes, signed, inverted, mnist, cifar10, "
    "imagenet, mean=M,std=S (a/b/c for channels), or ramp=E: (x - E) / (1 - 2 E) clipped to "
    "[0, 1]. Epsilon stays in pixel units.",
]
Classes = Annotated[
    Any, "The data's class names in the order of the net's outputs: a,b,c, or a file."
]
Split = Annotated[
    str | None,
    "train, validation, test or all; test by default, for attack and evaluate all where "
    "a set has no splits.",
]
Limit = Annotated[
    int | None, Option(least=1, help="At most this many images: the first of the split.")
]
Epochs = Annotated[int | None, Option(least=1, help="Epochs, where not the recipe's.")]
Budget = Annotated[
    float | None, "Minutes; stops before an epoch beyond them; typed again, it goes on."
]
Trusted = Annotated[
    int, Option(least=2, help="Clean validation images: this many, from the first.")
]
OUT = "File or folder that is written."
SEED = "Random seed: same seed, same bytes."
Out = Annotated[Path | str | None, OUT]
Seed = Annotated[int, Option(least=0, most=MAX_SEED, help=SEED)]
Threads = Annotated[
    int | None, Option(least=1, most=MAX_THREADS, help="torch's threads; 1 by default.")
]
Device = Annotated[str, "auto, cpu or cuda."]


def whole_numbers(given: Any, option: str) -> tuple[int, ...]:
    """Return the whole numbers from 0 of a list, or of a text with commas."""
    texts = given.split(",") if isinstance(given, str) else map(str, given)
    texts = [text.strip() for text in texts]
    if not texts or not all(t.isascii() and t.isdigit() and len(t) < 10 for t in texts):
        raise UsageError(f"{option} {given!r} is no list of whole numbers such as 10,20,50")
    return tuple(map(int, texts))


class Leaving(TypedDict, total=False):
    """What any verb that measures takes: where its answer and its records go."""

    out: Out
    run: RunFolder | Path | str | None
    progress: Progress


class Seeded(Leaving, total=False):
    """The same, of verbs that work with torch."""

    seed: Seed
    threads: Threads


class Doing(Seeded, total=False):
    """The same, of verbs that may work on a GPU."""

    device: Device


class Described(TypedDict, total=False):
    """What is said of a model beside its reference."""

    weights: Weights
    normalise: Normalise
    classes: Classes


class Beside(Described, Doing, total=False):
    """What the verbs take that train, and may be given a model too."""


class OfModel(Described, total=False):
    """What is said of a model where none is trained: `arch` is the code of a stored one."""

    arch: Annotated[str | None, ARCH]


class OnModel(OfModel, Doing, total=False):
    """What the verbs take that work on a model."""


class Measuring(OnModel, total=False):
    """What the verbs take that measure a model on a split."""

    split: Split
    limit: Limit
