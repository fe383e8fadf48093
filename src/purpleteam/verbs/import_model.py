"""import: a foreign checkpoint, judged without unpickling and made a stored model."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from purpleteam.core.cards import StoredModel
from purpleteam.core.digest import sha256_file
from purpleteam.core.errors import ModelError, UsageError
from purpleteam.core.factory import is_factory
from purpleteam.verbs.options import ARCH, Normalise, Out, Threads
from purpleteam.verbs.result import Result
from purpleteam.verbs.verb import Option, verb

SHAPE = (1, 28, 28)


@dataclass(frozen=True, kw_only=True, repr=False)
class Imported(Result):
    """What became of a foreign checkpoint."""

    stage = "models"

    file: Path

    @property
    def exit_code(self) -> int:
        """1 where it is refused."""
        return int(self.values["verdict"] != "accepted")

    def lines(self) -> list[str]:
        head = f"{self.values['verdict']}: {self.values['model'] or self.file}"
        return [head, *(f"- {reason}" for reason in self.values["reasons"])]


@verb("import", measures=False)
def import_model(
    file: Annotated[Path | str, Option(name="FILE", help="The checkpoint.")],
    *,
    arch: Annotated[str, ARCH] = "classic_cnn",
    out: Out = None,
    images: Annotated[
        Any, Option(name="--dataset", help="Takes image size and classes from it.")
    ] = None,
    shape: Annotated[Any, "Channels x height x width; 1x28x28 by default."] = None,
    classes: Annotated[
        Any,
        "Their names in the order of the net's outputs (a,b,c or a file), or their "
        "number; 10 by default.",
    ] = None,
    normalise: Normalise = None,
    threads: Threads = None,
) -> Imported:
    """A foreign checkpoint, judged without unpickling and made a stored model.

    Args:
        file: a PyTorch state dict or a .safetensors file.
        arch: a registered name, `module:factory` or `path/to/module.py:factory`.
        images: the dataset that it is for: gives shape and classes, and tells whether the model
            reads its images.
    """
    from purpleteam.models.adapters import Normalisation, parse_classes
    from purpleteam.models.devices import use_threads
    from purpleteam.models.fit import examine
    from purpleteam.models.loading import LoadedModel, build
    from purpleteam.models.store import Provenance, arch_to_type, store
    from purpleteam.models.weights import fill
    from purpleteam.scan.gate import read_state_dict
    from purpleteam.verbs._subject import open_dataset, shown_of, weights_of
    from purpleteam.verbs.outputs import stem_to_write

    def judged(verdict: str, reasons: Iterable[str], stored: StoredModel | None = None) -> Imported:
        values = {
            "model": None if stored is None else str(stored.weights),
            "digest": None if stored is None else stored.card.digest,
            "verdict": verdict,
            "reasons": list(reasons),
        }
        return Imported(file=path, values=values)

    path = Path(file)
    use_threads(threads)
    dataset = None if images is None else open_dataset(images)
    stem = stem_to_write(out, path.stem)
    stored_at = stem.with_name(stem.name.removesuffix(".safetensors") + ".safetensors")
    if stored_at.resolve() == path.resolve():
        raise UsageError(f"the stored model would overwrite {str(path)!r}; name another --out")
    sides = shape.lower().split("x") if isinstance(shape, str) else list(map(str, shape or SHAPE))
    if len(sides) != 3 or not all(side.isdigit() and int(side) for side in sides):
        raise UsageError(f"--shape {shape!r} is not channels x height x width, such as 1x28x28")
    channels, height, width = map(int, sides)
    names = None
    if isinstance(classes, list | tuple):
        names = tuple(classes)
    elif classes is not None and not str(classes).isdecimal():
        names = parse_classes(classes)
    elif classes is not None and int(str(classes)[:6]) < 2:
        raise UsageError(
            f"--classes '{classes}' is no number of classes from 2 on, nor their names"
        )
    layer = None if normalise is None else Normalisation.parse(normalise)
    if not path.is_file():
        raise UsageError(f"checkpoint {str(path)!r} does not exist or is no file")
    if dataset is not None:
        height, width, channels = dataset.shape
        names = names or dataset.classes
    names = names or tuple(map(str, range(int(str(classes or 10)[:6]))))
    net = build(arch, (channels, height, width), len(names), seed=0)
    verdict = read_state_dict(path)
    if verdict.verdict != "accepted":
        return judged("refused", verdict.reasons)
    tensors = weights_of(verdict)
    provenance = Provenance(
        architecture=arch,
        shape=(channels, height, width),
        classes=names,
        recipe={},
        parent=sha256_file(path),
        converted_from=tensors.other_floats,
    )
    try:
        notes = fill(net, tensors, str(path))
        module = net if layer is None else layer.before(net)
        stored = store(module, stem, provenance)
        model = LoadedModel(stored.card.name, stored.card.digest, module, stored.card)
        if dataset is not None:
            model = model.in_order_of(dataset.classes, dataset.name)
            notes += examine(model.module, shown_of(dataset), dataset.classes)
    except ModelError as error:
        return judged("refused", (*verdict.reasons, str(error)))
    if is_factory(code := stored.card.architecture):
        remedy = f"from another folder, add {arch_to_type(code)}"
        notes += (f"its card names the code {code!r}: {remedy}",)
    return judged("accepted", notes, stored)
