"""export: a model as safetensors, ONNX and card, the two nets compared."""

from dataclasses import dataclass
from typing import Any, Unpack

from purpleteam.core.cards import StoredModel
from purpleteam.core.errors import UsageError
from purpleteam.verbs.options import Images, Model, OfModel, Out, Threads
from purpleteam.verbs.result import Result
from purpleteam.verbs.verb import verb


@dataclass(frozen=True, kw_only=True, repr=False)
class Exported(Result):
    """A stored model."""

    stage = "models"

    stored: StoredModel


@verb(measures=False)
def export(
    model: Model = "standard",
    images: Images = "digits",
    *,
    out: Out = None,
    threads: Threads = None,
    **given: Unpack[OfModel],
) -> Exported:
    """Write a model as safetensors, ONNX and card, the two nets compared.

    Args:
        images: the dataset whose shape and classes a card names, where the model has no card.
    """
    from purpleteam.models.adapters import parse_classes
    from purpleteam.models.black_box import BlackBox
    from purpleteam.models.devices import use_threads
    from purpleteam.models.store import Provenance, store
    from purpleteam.verbs._subject import loaded_from, open_dataset
    from purpleteam.verbs.outputs import stem_to_write

    if out is None:
        raise UsageError("--out FILE says where the model goes")
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
