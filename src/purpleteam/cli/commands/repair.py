"""repair: take a backdoor out of a model, with what a scan of it or of its training set finds."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from purpleteam.cli.commands.detect import Trusted, trusted_of
from purpleteam.cli.options import (
    Classes,
    Code,
    DatasetOption,
    Debug,
    Device,
    Epochs,
    Json,
    Model,
    Normalise,
    Out,
    Quiet,
    Seed,
    Threads,
    Weights,
)
from purpleteam.cli.outputs import stem_to_write
from purpleteam.cli.screen import answer, progress, say, table
from purpleteam.core.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from purpleteam.cli.lab import Lab
    from purpleteam.core.progress import Progress
    from purpleteam.data.images import ImageSet
    from purpleteam.defences.detection.recovered import RecoveredTrigger
    from purpleteam.defences.repair import Repair, Repairing
    from purpleteam.models.loading import LoadedModel
    from purpleteam.models.recipes import Recipe

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the verb of this file."""
    app.command()(repair)


def repair(
    model: Model,
    dataset: DatasetOption = "digits",
    method: Annotated[
        str,
        typer.Option("--method", help="unlearn, retrain, ..., with [:field=value,...]."),
    ] = "unlearn",
    detection: Annotated[
        Path | None,
        typer.Option("--detection", help="What purple detect --training-set --out wrote."),
    ] = None,
    recipe: Annotated[
        str, typer.Option("--recipe", help="For retrain: training recipe.")
    ] = "plain",
    epochs: Epochs = None,
    trusted: Trusted = 1000,
    weights: Weights = None,
    arch: Code = None,
    normalise: Normalise = None,
    classes: Classes = None,
    out: Out = None,
    seed: Seed = 0,
    threads: Threads = None,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Take a backdoor out of a model; --dataset is what it learned, validation is trusted."""
    from purpleteam.cli.lab import Asked, Lab, recipe_from
    from purpleteam.core.config import build, parse_part
    from purpleteam.defences.repair import REPAIRS
    from purpleteam.models.recipes import RECIPES

    name, fields = parse_part(method)
    chosen = build(REPAIRS[name], fields, f"--method {name}")
    _, taught = recipe_from(RECIPES, recipe, epochs)
    asked = Asked(weights, arch, normalise, classes)
    lab = Lab.open(dataset, device=device, threads=threads, model=asked, training=True)
    loaded = lab.load(model)
    stem = stem_to_write(out, f"{lab.dataset.name}-{name}")
    started = time.perf_counter()
    with progress(quiet or as_json) as bar:
        work = _Bench(lab, loaded, _architecture(loaded, model, arch), taught, trusted, seed, bar)
        values = work.repaired(chosen, detection, stem)
    values["seconds"] = round(time.perf_counter() - started, 2)
    for note in values["notes"]:
        say(f"note: {note}")
    answer(
        values | lab.data(), [*_lines(values), f"note: {lab.dataset.summary()}"], as_json=as_json
    )


@dataclass
class _Bench:
    """A model to repair, and what there is to repair it with."""

    lab: Lab
    loaded: LoadedModel
    architecture: str
    recipe: Recipe
    trusted: int
    seed: int
    bar: Progress
    notes: list[str] = field(default_factory=list)

    def repaired(self, chosen: Repair, detection: Path | None, stem: Path) -> dict[str, Any]:
        """Find what the repair needs, repair, store, and say what it did to clean accuracy."""
        from purpleteam.models.inference import correct

        given = self._given(chosen, detection)
        module = chosen.repair(given)
        held = self.lab.dataset.validation
        before = float(correct(self.loaded.module, held).mean())
        return self._stored(module, chosen, stem) | {
            "method": chosen.name,
            "validation_accuracy_before": before,
            "target_label": given.target_label,
            "notes": [*self.lab.notes, *self.loaded.notes, *self.notes],
        }

    def _given(self, chosen: Repair, detection: Path | None) -> Repairing:
        from purpleteam.defences.repair import Repairing

        flagged = self._flagged(detection) if "flagged" in chosen.needs else None
        dataset = self.lab.dataset
        images, notes = trusted_of(self.lab, self.trusted)
        self.notes += notes
        trigger = self._trigger() if "trigger" in chosen.needs else None
        return Repairing(
            model=self.loaded.module,
            net=lambda: self.lab.net(self.architecture, self.seed, self.loaded),
            train=dataset.train,
            flagged=flagged,
            trusted=images,
            trigger=trigger,
            target_label=None if trigger is None else trigger.target_label,
            recipe=self.recipe,
            validation=dataset.validation,
            seed=self.seed,
            device=self.lab.device,
            progress=self.bar,
        )

    def _trigger(self) -> RecoveredTrigger | None:
        """Scan the model, and say where the scan itself would not have raised an alarm."""
        from purpleteam.defences.detection.model import scan_model

        images, _ = trusted_of(self.lab, self.trusted)
        found = scan_model(
            self.loaded.module,
            images,
            classes=len(self.lab.dataset.classes),
            seed=self.seed,
            device=self.lab.device,
            progress=self.bar,
        )
        if found.trigger is None:
            why = "; ".join(found.reasons) or (
                f"score {found.score or 0:.3g}, flagged from {found.threshold:.3g}"
            )
            raise UsageError(
                f"the scan recovered no trigger to unlearn ({found.verdict.replace('_', ' ')}: "
                f"{why}); --method retrain needs none"
            )
        return found.trigger

    def _flagged(self, detection: Path | None) -> NDArray[np.int64]:
        """Return the places of flagged training images, from the file or by a search.

        Where a set without splits was searched whole, what is flagged elsewhere validates no more.
        """
        import numpy as np

        dataset = self.lab.dataset
        searched = dataset.split(dataset.searched)
        if detection is not None:
            flagged = np.array(_read(detection, searched), np.int64)
        else:
            flagged = self._search(searched)
        if dataset.whole is None:
            return flagged
        marks = set(_marks(searched.take(flagged)))
        bad = {name: np.array([one in marks for one in _marks(dataset.split(name))], np.bool_)
               for name in ("train", "validation")}  # fmt: skip
        kept = dataset.validation.take(np.flatnonzero(~bad["validation"]))
        if not len(kept):
            raise UsageError(
                f"all {len(dataset.validation)} validation images are flagged: none is left to "
                "trust; bring clean images in validation/<class>/"
            )
        self.notes.append(
            f"of {len(flagged)} flagged images, {bad['train'].sum()} are left out of training and "
            f"{bad['validation'].sum()} of validation"
        )
        self.lab = replace(self.lab, dataset=replace(dataset, validation=kept))
        return np.flatnonzero(bad["train"])

    def _search(self, images: ImageSet) -> NDArray[np.int64]:
        from purpleteam.defences.detection.training_set import scan_training_set

        found = scan_training_set(
            images,
            classes=len(self.lab.dataset.classes),
            model=self.loaded.module,
            seed=self.seed,
            device=self.lab.device,
            progress=self.bar,
        )
        self.notes.append(f"the search flagged {len(found.flagged)} of {len(images)} images")
        return found.flagged

    def _stored(self, module: nn.Module, chosen: Repair, stem: Path) -> dict[str, Any]:
        from purpleteam.models.inference import correct
        from purpleteam.models.store import Provenance, store

        accuracy = float(correct(module, self.lab.dataset.validation).mean())
        provenance = Provenance(
            architecture=self.architecture,
            shape=self.lab.shape,
            classes=self.lab.dataset.classes,
            recipe={"repair": chosen.name, **asdict(chosen), "seed": self.seed},
            data_digest=self.lab.dataset.train.digest,
            parent=self.loaded.digest,
            validation_accuracy=accuracy,
        )
        stored = store(module, stem, provenance)
        return {
            "model": str(stored.weights),
            "digest": stored.card.digest,
            "validation_accuracy": accuracy,
        }


def _architecture(loaded: LoadedModel, reference: str, arch: str | None) -> str:
    """Return what the model is built by: its card's architecture, or the user's own code."""
    return reference if loaded.card is None else arch or loaded.card.architecture


def _marks(images: ImageSet) -> Iterator[tuple[bytes, int]]:
    """Yield by what each image is known again in another order."""
    return (
        (one.tobytes(), int(label)) for one, label in zip(images.images, images.labels, strict=True)
    )


def _read(path: Path, images: ImageSet) -> list[int]:
    """Return the flagged places in what `purple detect --training-set --out` wrote."""
    try:
        answer = json.loads(path.read_text(encoding="utf-8"))
        places = [int(place) for place in answer["flagged"]]
        digest = answer.get("dataset", images.digest)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"--detection {str(path)!r} is no answer of purple detect --training-set: {error}"
        ) from None
    if wrong := [place for place in places if not 0 <= place < len(images)]:
        raise UsageError(
            f"--detection {str(path)!r} flags image {wrong[0]}, and there are {len(images)}: was "
            "another set searched?"
        )
    if digest != images.digest:
        raise UsageError(
            f"--detection {str(path)!r} is about other images, {digest}, than those to search, "
            f"{images.digest}: search them with purple detect --training-set"
        )
    return places


def _lines(values: Mapping[str, Any]) -> list[str]:
    shown = ("model", "method", "target_label", "validation_accuracy_before", "validation_accuracy")
    rows = [(key.replace("_", " "), values[key]) for key in shown if values[key] is not None]
    return table([*rows, ("seconds", values["seconds"])])
