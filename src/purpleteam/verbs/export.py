"""export: a model as safetensors, ONNX and card, the two nets compared; or a verifier's problem."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Unpack

from purpleteam.core.cards import StoredModel
from purpleteam.core.errors import UsageError
from purpleteam.verbs.options import Images, Limit, Model, OfModel, Out, Split, Threads
from purpleteam.verbs.result import Result
from purpleteam.verbs.verb import verb

ASKED = 100  # images that verifiers are asked about by default: each may take minutes


@dataclass(frozen=True, kw_only=True, repr=False)
class Exported(Result):
    """A stored model, or what was written for verifiers or read back from them."""

    stage = "models"

    stored: StoredModel | None = None

    @property
    def exit_code(self) -> int:
        return 1 if self.values.get("false_witnesses") else 0


@verb(measures=False)
def export(
    model: Model = "standard",
    images: Images = "digits",
    *,
    out: Out = None,
    vnnlib: Annotated[
        Path | str | None, "A new folder for verifiers: plain ONNX, and VNN-LIB for each image."
    ] = None,
    epsilon: Annotated[
        float | None, "L-infinity radius of --vnnlib in pixel units, such as 2/255."
    ] = None,
    verdicts: Annotated[
        Path | str | None, "A folder of verdicts on --vnnlib, 00000.txt, ..., to read and replay."
    ] = None,
    split: Split = None,
    limit: Limit = None,
    threads: Threads = None,
    **given: Unpack[OfModel],
) -> Exported:
    """Write a model as safetensors, ONNX and card, the two nets compared; or --vnnlib.

    Args:
        images: the dataset whose shape and classes a card names, where the model has no card; of
            `vnnlib` the images whose balls are asked about, the first hundred by default.
        verdicts: files in the form of VNN-COMP or of VNN-LIB 2.0's solvers. Each `sat` must bring
            an image in the box that ONNX Runtime misclassifies, else `exit_code` is 1.
    """
    from purpleteam.models.adapters import parse_classes
    from purpleteam.models.black_box import BlackBox
    from purpleteam.models.devices import use_threads
    from purpleteam.models.store import Provenance, store
    from purpleteam.verbs._subject import loaded_from, open_dataset
    from purpleteam.verbs.outputs import stem_to_write

    if verdicts is not None or vnnlib is not None:
        from purpleteam.verbs import _vnnlib
        from purpleteam.verbs._subject import open_subject

        if vnnlib is None:
            raise UsageError("--verdicts goes with --vnnlib, the folder that they are about")
        if verdicts is not None:
            return Exported(values=_vnnlib.read(Path(vnnlib), Path(verdicts)))
        if epsilon is None:
            raise UsageError("--vnnlib needs --epsilon, such as 0.1 or 2/255")
        about: Any = {"split": split, "limit": limit or ASKED, "threads": threads, **given}
        subject = open_subject(images, model=model, measured=True, device="cpu", **about)
        values = _vnnlib.write(subject, Path(vnnlib), epsilon)
        return Exported(values=values, notes=subject.notes)
    if out is None:
        raise UsageError("--out FILE says where the model goes; or --vnnlib DIR")
    use_threads(threads)
    names = None if given["classes"] is None else parse_classes(given["classes"])
    loaded = loaded_from(model, given)
    if isinstance(loaded.module, BlackBox):
        raise UsageError(f"model {model!r} only gives answers: it has no weights to export")
    stem = stem_to_write(out, loaded.name.replace("/", "-").replace(":", "-"))
    facts: dict[str, Any] = {"converted_from": loaded.converted_from, "recipe": {}}
    if (card := loaded.card) is None:
        dataset = open_dataset(images)
        height, width, channels = dataset.shape
        arch, shape, classes = str(model), (channels, height, width), dataset.classes
    else:
        arch, shape, classes = given["arch"] or card.architecture, card.shape, card.classes
        kept = ("recipe", "data_digest", "parent", "converted_from", "validation_accuracy")
        facts = {key: getattr(card, key) for key in kept}
    provenance = Provenance(architecture=arch, shape=shape, classes=names or classes, **facts)
    stored = store(loaded.module, stem, provenance)
    values = {
        "model": str(stored.weights),
        "onnx": str(stored.onnx),
        "digest": stored.card.digest,
        "onnx_digest": stored.card.onnx_digest,
        "onnx_difference": stored.card.onnx_difference,
    }
    return Exported(stored=stored, values=values)
