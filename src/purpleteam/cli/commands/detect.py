"""detect: look for a backdoor in a trained model, or for poisoned images in a training set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from purpleteam.cli.options import (
    Classes,
    Code,
    DatasetOption,
    Debug,
    Device,
    Json,
    Normalise,
    Out,
    Quiet,
    Seed,
    Threads,
    Weights,
)
from purpleteam.cli.outputs import file_to_write
from purpleteam.cli.screen import answer, progress, say, table, write_answer
from purpleteam.core.errors import UsageError

if TYPE_CHECKING:
    from purpleteam.cli.lab import Lab
    from purpleteam.core.progress import Progress
    from purpleteam.data.images import ImageSet
    from purpleteam.models.loading import LoadedModel

__all__ = ["Trusted", "add_to", "trusted_of"]

EXIT_CODES = {"nothing_found": 0, "backdoored": 1, "not_established": 2}

Trusted = Annotated[
    int, typer.Option("--trusted", min=2, help="First so many validation images that are clean.")
]


def add_to(app: typer.Typer) -> None:
    """Add the verb of this file."""
    app.command()(detect)


def detect(
    model: Annotated[
        str | None,
        typer.Option("--model", help="Model to look into: zoo name, stored model, module:factory."),
    ] = None,
    dataset: DatasetOption = "digits",
    training_set: Annotated[
        str | None,
        typer.Option("--training-set", help="Look for poisoned images in it instead."),
    ] = None,
    trusted: Trusted = 1000,
    weights: Weights = None,
    arch: Code = None,
    normalise: Normalise = None,
    classes: Classes = None,
    picture: Annotated[
        Path | None, typer.Option("--picture", help="PNG of the recovered trigger.")
    ] = None,
    strip: Annotated[
        Path | None,
        typer.Option("--strip", help="Also fit STRIP for purple serve --strip, into this file."),
    ] = None,
    out: Out = None,
    seed: Seed = 0,
    threads: Threads = None,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Look for a backdoor: in a model by --model, in images by --training-set.

    Exit codes: 0 nothing found, 1 found, 2 not established (too little, or unlike the calibration).
    """
    from purpleteam.cli.lab import Asked, Lab

    if model is None and training_set is None:
        raise UsageError("nothing to look into: give --model M, or --training-set D, or both")
    if training_set is not None and (picture is not None or strip is not None):
        raise UsageError("--picture and --strip go with --model alone, not with --training-set")
    out, picture, strip = (file_to_write(path) for path in (out, picture, strip))
    asked = Asked(weights, arch, normalise, classes)
    lab = Lab.open(
        training_set or dataset,
        device=device,
        threads=threads,
        model=asked,
        training=training_set is not None,
    )
    with progress(quiet or as_json) as bar:
        look = _Look(lab, model, trusted, seed, bar)
        values = look.at_images() if training_set else look.at_model(picture, strip)
    values |= lab.data(lab.dataset.searched if training_set else "validation")
    if out is not None:
        write_answer(out, values)
    for note in values["notes"]:
        say(f"note: {note}")
    lines = [*_lines(values), f"note: {values['data']['summary']}"]
    answer(values, lines, as_json=as_json)
    if code := EXIT_CODES[values["verdict"]]:
        raise typer.Exit(code)


def trusted_of(lab: Lab, count: int) -> tuple[ImageSet, list[str]]:
    """Return the trusted images and, where there are fewer than asked for, a note."""
    validation = lab.dataset.validation
    if len(validation) >= count:
        return validation.first(count), []
    note = f"the validation split has {len(validation)} images, so {len(validation)} are trusted"
    return validation, [f"{note}, not {count}"]


@dataclass
class _Look:
    """What is looked into, and what there is to tell beside the answer."""

    lab: Lab
    model: str | None
    trusted: int
    seed: int
    bar: Progress
    notes: list[str] = field(default_factory=list)

    def at_model(self, picture: Path | None, strip: Path | None) -> dict[str, Any]:
        """Scan the model for a backdoor; write the pictures and files that are asked for."""
        from purpleteam.defences.detection.model import scan_model

        loaded = self._loaded()
        images, notes = trusted_of(self.lab, self.trusted)
        self.notes += notes
        found = scan_model(
            loaded.module,
            images,
            classes=len(self.lab.dataset.classes),
            seed=self.seed,
            device=self.lab.device,
            progress=self.bar,
        )
        values = found.to_json() | {"trusted": len(images), "notes": self.notes}
        if picture is not None:
            values["picture"] = _drawn(found.trigger, picture)
            if values["picture"] is None:
                self.notes.append(f"nothing was recovered, so {str(picture)!r} is not written")
        if strip is not None:
            values["strip"] = self._stripped(loaded, images, strip)
        return values | {"subject": self.lab.subject(loaded, "validation", self.trusted)}

    def at_images(self) -> dict[str, Any]:
        """Search for poisoned images; compare with a manifest afterwards."""
        from purpleteam.defences.detection.training_set import scan_training_set

        dataset = self.lab.dataset
        loaded = self._loaded() if self.model is not None else None
        images = dataset.split(dataset.searched)
        found = scan_training_set(
            images,
            classes=len(dataset.classes),
            model=None if loaded is None else loaded.module,
            seed=self.seed,
            device=self.lab.device,
            progress=self.bar,
        )
        values = found.to_json() | {"notes": self.notes, "split": dataset.searched}
        if images.files is not None:
            values["flagged_files"] = images.files[found.flagged].tolist()
        manifest = dataset.origin.get("manifest", {})
        if "indices" in manifest:
            values["manifest"] = _compared(values["flagged"], manifest["indices"])
        return values | {"dataset": images.digest}

    def _loaded(self) -> LoadedModel:
        from purpleteam.models.black_box import BlackBox

        loaded = self.lab.load(self.model or "")
        if isinstance(loaded.module, BlackBox):
            raise UsageError(
                f"--model {self.model!r} only answers; a scan needs gradients: give a stored "
                "model or module:factory"
            )
        self.notes += [*self.lab.notes, *loaded.notes]
        return loaded

    def _stripped(self, loaded: LoadedModel, images: ImageSet, path: Path) -> str:
        from purpleteam.defences import fit_strip

        fitted = fit_strip(loaded.module, images, seed=self.seed, model_digest=loaded.digest)
        fitted.save(path)
        return str(path)


def _drawn(trigger: Any, path: Path) -> str | None:
    """Write the picture of a recovered trigger; there is none where nothing was recovered."""
    from purpleteam.report.png import write_png

    if trigger is None:
        return None
    pixels = trigger.picture()
    write_png(path, pixels[:, :, 0] if pixels.shape[2] == 1 else pixels[:, :, :3])
    return str(path)


def _compared(flagged: Sequence[int], planted: Sequence[int]) -> dict[str, int]:
    """Return what a poisoned set's own manifest says to what was flagged without it."""
    both = len(set(flagged) & set(planted))
    return {"poisoned": len(planted), "found": both, "wrongly_flagged": len(flagged) - both}


def _lines(values: Mapping[str, Any]) -> list[str]:
    rows: list[tuple[str, Any]] = [("verdict", values["verdict"].replace("_", " "))]
    rows += [("because", reason) for reason in values["reasons"]]
    rows += [("target label", values["target_label"])] if values["backdoored"] else []
    if values["score"] is not None:
        rows.append(("score", f"{values['score']:.3g} (flagged from {values['threshold']:.3g})"))
    if values.get("student_success") is not None:
        moved, follows = values["trigger_success"], values["student_success"]
        on = f"moves {moved:.0%} of the images, in a student that never saw one {follows:.0%}"
        rows.append(("its trigger, weakened", on))
    for one in values.get("set_aside", ()):
        rows.append(("set aside", f"label {one['label']} by {one['kind']}: near by nature"))
    rows.append(("seconds", f"{values['seconds']:.1f}"))
    told = ("kind", "picture", "strip") if values["backdoored"] else ("strip",)
    rows += [(key, values[key]) for key in told if values.get(key)]
    if "flagged" in values:
        rows.append(("flagged images", f"{len(values['flagged'])} of {values['images']}"))
    if "manifest" in values:
        told = values["manifest"]
        rows.append(("manifest", f"{told['poisoned']} poisoned, {told['found']} of them flagged"))
    lines = table(rows)
    if values.get("flagged"):
        files = values.get("flagged_files") or []
        named = [f" ({one})" for one in files[:10]] or [""] * 10
        shown = zip(values["flagged"], named, strict=False)
        first = ", ".join(f"{number}{name}" for number, name in shown)
        lines.append(f"most suspicious: {first}" + " ..." * (len(values["flagged"]) > 10))
    return lines
