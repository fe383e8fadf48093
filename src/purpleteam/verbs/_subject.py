"""What a verb works on: images and, mostly, a model, in whatever form they are given."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import nn

from purpleteam import __version__
from purpleteam.attacks.evaluate import Journal
from purpleteam.core.errors import ModelError, Refused, UsageError
from purpleteam.core.factory import is_factory
from purpleteam.core.progress import SILENT, Progress
from purpleteam.core.records import Note
from purpleteam.core.runfolder import RunFolder
from purpleteam.core.schema import Role, model_note
from purpleteam.data import dataset_from
from purpleteam.data.folders import load_dataset
from purpleteam.data.images import SPLITS, Dataset, ImageSet, check_split
from purpleteam.models.adapters import Normalisation, parse_classes, scored
from purpleteam.models.architectures import Shape
from purpleteam.models.black_box import NEAR, BlackBox, ObjectClassifier, OnnxFile
from purpleteam.models.devices import choose_device, to_batch, use_threads
from purpleteam.models.fit import SAMPLE, examine
from purpleteam.models.guard import Guarded
from purpleteam.models.inference import logits
from purpleteam.models.loading import BY_NAME, LoadedModel, build, load, opened
from purpleteam.models.weights import Weights
from purpleteam.scan.formats import read_arrays
from purpleteam.scan.gate import GateVerdict, read_state_dict
from purpleteam.verbs.options import Measuring, OfModel
from purpleteam.verbs.verb import UNREAD, Checked

FOREIGN = ("float16", "bfloat16", "float64")


@dataclass(frozen=True, eq=False)
class Subject:
    """A dataset, the model that is worked on, and how and where the work is done."""

    dataset: Dataset
    device: torch.device
    model: LoadedModel | None = None
    split: str = "test"
    limit: int | None = None
    seed: int = 0
    run: RunFolder | None = None  # where files go, and whose records are kept
    progress: Progress = SILENT

    @property
    def images(self) -> ImageSet:
        """The images that are measured on."""
        return self.dataset.split(self.split).first(self.limit)

    @property
    def shape(self) -> Shape:
        """Channels, height and width of the images."""
        height, width, channels = self.dataset.shape
        return channels, height, width

    @property
    def loaded(self) -> LoadedModel:
        """The model, where one was given."""
        if self.model is None:
            raise UsageError("no model is given")
        return self.model

    @property
    def without_ramp(self) -> "Subject | None":
        """The same about the model's weights without its input ramp, which stand beside it."""
        bare = self.loaded.without_ramp()
        return None if bare is None else replace(self, model=bare)

    def net(self, arch: str) -> nn.Module:
        """Return a seeded net in float32; the user's own gets the input of the model at hand."""
        net = build(arch, self.shape, len(self.dataset.classes), seed=self.seed).float()
        return net if self.model is None or not is_factory(arch) else self.model.behind(net)

    def about(self, **more: Any) -> dict[str, Any]:
        """Return what a number about the model on these images is about, digests included."""
        images = self.dataset.split(self.split)
        few = self.limit is not None and self.limit < len(images)
        about: dict[str, Any] = {
            "dataset": images.digest,
            "dataset_name": self.dataset.name,
            "split": self.split,
            "selection": f"first {self.limit}" if few else "all",
        }
        if (model := self.model) is not None:
            about |= {"model": model.digest, "model_name": model.name}
            if (layer := model.normalisation) is not None:  # the same weights, another input
                about["normalisation"] = layer.numbers()
        return about | more

    def part(self, role: Role = "brought") -> Note:
        """Return the record of the part that the model plays."""
        return model_note(self.loaded.digest, self.loaded.name, role)

    def journal(self, **facts: Any) -> Journal:
        """Return where this very work, which `facts` name, keeps what is done until all of it is.

        Within a run that is the run's own folder, else a cache.
        """
        run = self.run
        of_a_run = run is not None and "verb" not in run.info["asked"]
        common = {
            "version": __version__,
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "seed": self.seed,
        }
        return Journal.of(
            common | facts, run.path / "under-way" if run is not None and of_a_run else None
        )

    def data(self, used: str | None = None) -> dict[str, Any]:
        """Return what images there are, by split, and which are used, for --json."""
        return {
            "name": self.dataset.name,
            "classes": len(self.dataset.classes),
            "images": {name: len(self.dataset.split(name)) for name in SPLITS},
            "dealt": self.dataset.whole is not None,
            "used": used,
            "summary": self.dataset.summary(used),
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """What to say of the images, the model and the part that is looked at."""
        notes = [*self.dataset.origin.get("notes", ()), *(self.model.notes if self.model else ())]
        images = self.dataset.split(self.split)
        if self.limit is not None and self.limit < len(images):
            shown = set(images.labels[: self.limit].tolist())
            absent = len(set(images.labels.tolist()) - shown)
            without = f", with none of {absent} of the classes" if absent else ""
            notes.append(
                f"the first {self.limit} of {len(images)} images are no random sample{without}"
            )
        return tuple(notes)

    def trusted(self, count: int) -> tuple[ImageSet, list[str]]:
        """Return the first validation images and, where there are fewer than asked, a note."""
        n = len(self.dataset.validation)
        note = f"the validation split has {n} images, so {n} are trusted, not {count}"
        return self.dataset.validation.first(count), [note] if n < count else []

    def check_white_box(self, option: str, why: str) -> None:
        """Refuse a model that only answers."""
        if not getattr(self.loaded.module, "differentiable", True):
            remedy = "give a stored model or module:factory"
            blind = getattr(self.loaded.module, "blind", "")
            alone = f"only answers ({blind})" if blind else "only answers"
            raise UsageError(f"{option} {self.loaded.name!r} {alone}; {why}: {remedy}")


def open_subject(
    images: Any,
    labels: Any = None,
    *,
    model: Any = None,
    training: bool = False,
    measured: bool = False,
    **given: Unpack[Measuring],
) -> Subject:
    """Load the images and the model, and choose device and threads.

    `training`: training images are needed. `measured`: a set without splits is used whole, unless
    the model has learned a part of it.
    """
    device: Any = given.get("device", "auto")
    device = device if isinstance(device, torch.device) else choose_device(device)
    progress, split, run = given.get("progress", SILENT), given.get("split"), given.get("run")
    if split is not None:
        check_split(split)
    if (layer := given.get("normalise")) is not None:
        Normalisation.parse(layer)
    if (names := given.get("classes")) is not None:
        parse_classes(names)
    if images is UNREAD:
        raise Checked
    use_threads(given.get("threads") or 1)
    dataset = open_dataset(images, labels, progress=progress)
    if training:
        dataset.check_trainable()
    loaded = None if model is None else _load_for(dataset, model, device, given)
    if measured and split is None:
        card = None if loaded is None else loaded.card
        known = () if card is None else (card.data_digest, (card.recipe or {}).get("drawn_from"))
        learned = dataset.train.digest in known
        split = "test" if learned else dataset.tested  # whole, unless a part of it was learned
    folder = run if isinstance(run, RunFolder) else None
    seed, limit = given.get("seed", 0), given.get("limit")
    return Subject(dataset, device, loaded, split or "test", limit, seed, folder, progress)


def open_dataset(
    images: Any, labels: Any = None, *, classes: Any = None, progress: Progress = SILENT
) -> Dataset:
    """Return the dataset that is meant; files of arrays are read without unpickling."""
    if isinstance(images, Dataset):
        return images
    if isinstance(images, str | Path):
        return load_dataset(images, read_arrays=read_arrays, progress=progress)
    return dataset_from(images, labels, classes=classes)


def read_weights(path: Path) -> Weights:
    """Return the tensors of a state dict (.pt, .pth, .bin) or of a .safetensors file."""
    verdict = read_state_dict(path)
    if verdict.verdict != "accepted":
        raise Refused(f"weights {str(path)!r} are refused: {'; '.join(verdict.reasons)}")
    return weights_of(verdict)


def weights_of(verdict: GateVerdict) -> Weights:
    """Return the arrays of an accepted file as tensors."""
    tensors = {name: torch.from_numpy(array.copy()) for name, array in verdict.tensors.items()}
    foreign = sorted({kind for kind in verdict.dtypes.values() if kind in FOREIGN})
    return Weights(tensors, tuple(verdict.reasons), ", ".join(foreign) or None)


def loaded_from(
    model: Any,
    given: OfModel,
    device: torch.device | None = None,
    shape: Shape | None = None,
    classes: int | None = None,
) -> LoadedModel:
    """Return the model that a reference and what is said beside it mean."""
    weights, layer = given.get("weights"), given.get("normalise")
    return load(
        str(model) if isinstance(model, Path) else model,
        weights=None if weights is None else Path(weights),
        arch=given.get("arch"),
        device=device,
        read_weights=read_weights,
        normalisation=None if layer is None else Normalisation.parse(layer),
        shape=shape,
        classes=classes,
    )


def _load_for(dataset: Dataset, model: Any, device: torch.device, given: OfModel) -> LoadedModel:
    """Return the model that is meant, seen to fit the dataset; its `notes` are to be told."""
    if isinstance(model, LoadedModel):
        return model
    names = given.get("classes")
    names = None if names is None else parse_classes(names)
    height, width, channels = dataset.shape
    shape, classes = (channels, height, width), dataset.classes
    loaded = loaded_from(model, given, device, shape, len(names or classes))
    images = shown_of(dataset)
    told, form = scored(loaded.module, images.images, len(names or loaded.names or dataset.classes))
    if isinstance(told, Guarded):
        loaded = replace(loaded, module=told).noting(f"it returns {form}")
    loaded = opened(loaded.in_order_of(classes, dataset.name, names), images)
    loaded = _with_gradients(loaded, images, shape)
    loaded.check_fits(shape, len(classes), dataset.name)
    scores = logits(loaded.module, dataset.validation.images[:1]).shape[1]
    if scores != len(classes):
        raise ModelError(
            f"model {loaded.name!r} scores {scores} classes, "
            f"dataset {dataset.name!r} has {len(classes)}{BY_NAME}"
        )
    here = isinstance(loaded.module, ObjectClassifier | OnnxFile)
    if not here and isinstance(loaded.module, BlackBox):  # each question may cost something there
        return loaded
    if loaded.card and loaded.card.recipe:  # we trained it
        return loaded
    return loaded.noting(*examine(loaded.module, images, classes))


def _with_gradients(loaded: LoadedModel, images: ImageSet, shape: Shape) -> LoadedModel:
    """Return an ONNX file with the gradients of its layers, where they answer as the file does."""
    file = loaded.module
    if not isinstance(file, OnnxFile):
        return loaded
    from purpleteam.certify.network import network_of  # and onnx, which is slow to import

    x, why = to_batch(images.images[:8]), "on these images its layers answer otherwise"
    try:
        layers = network_of(file, shape).to(torch.float32)
        with torch.no_grad():
            ours, told = layers(x).softmax(1), file(x).softmax(1)
        if torch.allclose(ours, told, rtol=0, atol=NEAR):
            white = (
                "its layers are read from its graph for gradients, ONNX Runtime answers: white-box"
            )
            return replace(loaded, module=file.with_layers(layers)).noting(white)
    except ModelError as error:
        why = str(error).partition("; known: ")[0]
    file.blind = why
    return loaded.noting(f"the file is asked as a black box: {why}")


def code_of(arch: str | None, model: Any) -> str | None:
    """Return `--arch` where it names the code of a stored `--model`, not a net to train."""
    stored = isinstance(model, str) and not is_factory(model) and "://" not in model
    named = stored and arch is not None and is_factory(arch) and not str(model).endswith(".onnx")
    return arch if named else None


def shown_of(dataset: Dataset) -> ImageSet:
    """Return images for a first look: of the validation split, if it holds enough of them."""
    few = len(dataset.validation) < min(SAMPLE, len(dataset.train))
    return dataset.train if few else dataset.validation
