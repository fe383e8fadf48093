"""Bring foreign weights in: `scan`'s gate judges the file, `models` takes plain arrays."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from purpleteam.core.digest import sha256_file
from purpleteam.core.errors import ModelError, Refused, UsageError
from purpleteam.core.factory import is_factory
from purpleteam.core.progress import SILENT, Progress
from purpleteam.data.folders import load_dataset
from purpleteam.data.images import Dataset, ImageSet
from purpleteam.models.adapters import Normalisation, Scored, parse_classes, scored
from purpleteam.models.architectures import Shape
from purpleteam.models.black_box import BlackBox, OnnxFile
from purpleteam.models.fit import SAMPLE, examine, opened
from purpleteam.models.loading import LoadedModel, build, load
from purpleteam.models.objects import ObjectClassifier
from purpleteam.models.store import Provenance, arch_to_type, store
from purpleteam.models.weights import Weights, fill
from purpleteam.pipeline.work import check_answers
from purpleteam.scan.formats import read_arrays
from purpleteam.scan.gate import GateVerdict, read_state_dict

__all__ = ["Imported", "import_model", "load_for", "open_dataset", "read_weights"]


@dataclass(frozen=True)
class Imported:
    """What became of a foreign checkpoint."""

    verdict: str
    reasons: tuple[str, ...]
    model: Path | None = None
    digest: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields of `purple import --json`."""
        return {
            "model": None if self.model is None else str(self.model),
            "digest": self.digest,
            "verdict": self.verdict,
            "reasons": list(self.reasons),
        }


def read_weights(path: Path) -> Weights:
    """Return the tensors of a state dict (.pt, .pth, .bin) or of a .safetensors file.

    Raises:
        Refused: the gate does not let the file in; the message says why.
    """
    found = read_state_dict(path)
    if found.verdict != "accepted":
        raise Refused(f"weights {str(path)!r} are refused: {'; '.join(found.reasons)}")
    return _weights(found)


def open_dataset(reference: str | Path, *, progress: Progress = SILENT) -> Dataset:
    """Return the dataset that `--dataset` means; files of arrays are read without unpickling."""
    return load_dataset(reference, read_arrays=read_arrays, progress=progress)


def load_for(
    dataset: Dataset,
    reference: str,
    *,
    weights: Path | None = None,
    device: torch.device | None = None,
    arch: str | None = None,
    normalise: str | None = None,
    classes: str | None = None,
) -> LoadedModel:
    """Return the model that `--model` means, seen to fit the dataset; its `notes` are to be told.

    Args:
        dataset: whose images it is to classify; a few are shown to it, none of the test split.
        reference: a zoo name, a stored model's path, a URL, an .onnx file or `module:factory`.
        weights: the file of weights for `module:factory`.
        device: where it goes; the default is the CPU.
        arch: what `--arch` says: the code of a stored model whose card names some.
        normalise: what `--normalise` says.
        classes: what `--classes` says.
    """
    layer = None if normalise is None else Normalisation.parse(normalise)
    names = None if classes is None else parse_classes(classes)
    height, width, channels = dataset.shape
    shape = (channels, height, width)
    loaded = load(
        reference,
        weights=weights,
        arch=arch,
        device=device,
        read_weights=read_weights,
        normalisation=layer,
        shape=shape,
    )
    images = _shown(dataset)
    loaded = _told(loaded, images, len(names or loaded.names or dataset.classes))
    loaded = opened(loaded.in_order_of(dataset.classes, dataset.name, names), images)
    loaded.check_fits(shape, len(dataset.classes), dataset.name)
    check_answers(loaded, dataset)
    asks_elsewhere = isinstance(loaded.module, BlackBox) and not isinstance(
        loaded.module, ObjectClassifier | OnnxFile
    )
    if asks_elsewhere or (loaded.card and loaded.card.recipe):
        return loaded  # each question may cost something there; and here it was trained by us
    return loaded.noting(*examine(loaded.module, images, dataset.classes))


def import_model(
    path: Path,
    architecture: str,
    out: Path,
    *,
    shape: Shape = (1, 28, 28),
    classes: int | tuple[str, ...] = 10,
    dataset: Dataset | None = None,
    normalisation: Normalisation | None = None,
) -> Imported:
    """Judge a checkpoint, put its arrays into the architecture, and store the model.

    Args:
        path: a PyTorch state dict or a .safetensors file; it is never unpickled.
        architecture: a registered name, `module:factory` or `path/to/module.py:factory`.
        out: where the stored model goes (stem, or any of its file names).
        shape: channels, height and width of the images that it takes.
        classes: number of its classes, or their names in the order of its outputs.
        dataset: what it is for, where that is known: gives shape and classes, and tells whether
            the model reads its images.
        normalisation: what it wants of images in [0, 1]; becomes part of the model.
    """
    if not path.is_file():
        raise UsageError(f"checkpoint {str(path)!r} does not exist or is no file")
    names = classes if isinstance(classes, tuple) else tuple(map(str, range(classes)))
    if dataset is not None:
        height, width, channels = dataset.shape
        shape = (channels, height, width)
        names = names if isinstance(classes, tuple) else dataset.classes
    net = build(architecture, shape, len(names), seed=0)
    found = read_state_dict(path)
    if found.verdict != "accepted":
        return Imported("refused", tuple(found.reasons))
    weights = _weights(found)
    provenance = Provenance(
        architecture=architecture,
        shape=shape,
        classes=names,
        recipe={},
        parent=sha256_file(path),
        converted_from=weights.other_floats,
    )
    try:
        notes = fill(net, weights, str(path))
        module = net if normalisation is None else normalisation.before(net)
        stored = store(module, out, provenance)
        model = LoadedModel(stored.card.name, stored.card.digest, module, stored.card)
        if dataset is not None:
            model = model.in_order_of(dataset.classes, dataset.name)
            notes += examine(model.module, _shown(dataset), dataset.classes)
    except ModelError as error:
        return Imported("refused", (*found.reasons, str(error)))
    if is_factory(architecture):
        notes += (
            f"its card names the code {stored.card.architecture!r}: from another folder, add "
            f"{arch_to_type(stored.card.architecture)}",
        )
    return Imported("accepted", notes, stored.weights, stored.card.digest)


def _told(loaded: LoadedModel, images: ImageSet, classes: int) -> LoadedModel:
    """Return the model with its scores told from what else it answers, where that is needed."""
    module, form = scored(loaded.module, images.images, classes)
    if not isinstance(module, Scored):
        return loaded
    return replace(loaded, module=module).noting(f"it returns {form}")


def _shown(dataset: Dataset) -> ImageSet:
    """Return images for a first look: of the validation split, if it holds enough of them."""
    few = len(dataset.validation) < min(SAMPLE, len(dataset.train))
    return dataset.train if few else dataset.validation


FOREIGN = ("float16", "bfloat16", "float64")


def _weights(found: GateVerdict) -> Weights:
    tensors = {name: torch.from_numpy(array.copy()) for name, array in found.tensors.items()}
    foreign = sorted({kind for kind in found.dtypes.values() if kind in FOREIGN})
    return Weights(tensors, tuple(found.reasons), ", ".join(foreign) or None)
