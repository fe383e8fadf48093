"""detect: look for a backdoor in a trained model, or for poisoned images in a training set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from purpleteam.core.errors import UsageError
from purpleteam.core.progress import SILENT, Progress
from purpleteam.core.records import Note, Record
from purpleteam.core.runfolder import RunFolder
from purpleteam.verbs.options import (
    Classes,
    Code,
    Device,
    Images,
    ModelOrNone,
    Normalise,
    Out,
    Seed,
    Threads,
    Trusted,
    Weights,
)
from purpleteam.verbs.result import Result, table
from purpleteam.verbs.verb import Option, verb

if TYPE_CHECKING:
    from purpleteam.data.images import ImageSet
    from purpleteam.defences.detection.model import ModelScan
    from purpleteam.defences.detection.recovered import RecoveredTrigger
    from purpleteam.defences.detection.training_set import TrainingSetScan
    from purpleteam.verbs._subject import Subject

EXIT_CODES = {"nothing_found": 0, "backdoored": 1, "not_established": 2}
TRIGGER = "-trigger.safetensors"
"""How the file of a recovered trigger ends."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Detected(Result):
    """The verdict of a scan, and what it found."""

    stage = "defences"

    scan: ModelScan | TrainingSetScan
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What is told beside the scan: the subject, files that were written, a manifest's truth."""

    @property
    def verdict(self) -> str:
        """backdoored, nothing_found or not_established."""
        return self.scan.verdict

    @property
    def trigger(self) -> RecoveredTrigger | None:
        """The trigger that was recovered from a model."""
        return getattr(self.scan, "trigger", None)

    @property
    def exit_code(self) -> int:
        """0 nothing found, 1 found, 2 not established."""
        return EXIT_CODES[self.scan.verdict]

    def to_json(self) -> dict[str, Any]:
        """Return the fields of `purple detect --json`."""
        return self.scan.to_json() | dict(self.facts)

    def lines(self) -> list[str]:
        """Return the verdict with its reasons, and what was found."""
        values = self.to_json()
        rows: list[tuple[str, Any]] = [("verdict", values["verdict"].replace("_", " "))]
        rows += [("because", reason) for reason in values["reasons"]]
        rows += [("target label", values["target_label"])] if values["backdoored"] else []
        if values["score"] is not None:
            score = f"{values['score']:.3g} (flagged from {values['threshold']:.3g})"
            rows.append(("score", score))
        if values.get("student_success") is not None:
            moved, follows = values["trigger_success"], values["student_success"]
            on = f"moves {moved:.0%} of the images, in a student that never saw one {follows:.0%}"
            rows.append(("its trigger, weakened", on))
        for label in values.get("set_aside", ()):
            told = f"label {label['label']} by {label['kind']}: near by nature"
            rows.append(("set aside", told))
        rows.append(("seconds", f"{values['seconds']:.1f}"))
        shown = ("kind", "picture", "strip") if values["backdoored"] else ("strip",)
        rows += [(key, values[key]) for key in shown if values.get(key)]
        if "flagged" in values:
            rows.append(("flagged images", f"{len(values['flagged'])} of {values['images']}"))
        if "manifest" in values:
            truth = values["manifest"]
            told = f"{truth['poisoned']} poisoned, {truth['found']} of them flagged"
            rows.append(("manifest", told))
        return [*table(rows), *_most_suspicious(values)]


@verb()
def detect(
    model: ModelOrNone = None,
    images: Images = "digits",
    labels: Any = None,
    *,
    training_set: Annotated[Any, Option(help="Look for poisoned images in it instead.")] = None,
    trusted: Trusted = 1000,
    weights: Weights = None,
    arch: Code = None,
    normalise: Normalise = None,
    classes: Classes = None,
    picture: Annotated[
        Path | str | None, Option(kind=Path, help="PNG of the recovered trigger.")
    ] = None,
    strip: Annotated[
        Path | str | None,
        Option(kind=Path, help="Also fit STRIP for purple serve --strip, into this file."),
    ] = None,
    out: Out = None,
    seed: Seed = 0,
    threads: Threads = None,
    device: Device = "auto",
    run: RunFolder | None = None,
    progress: Progress = SILENT,
) -> Detected:
    """Look for a backdoor: in a model by --model, in images by --training-set.

    Exit codes: 0 nothing found, 1 found, 2 not established (too little, or unlike the calibration).
    """
    from purpleteam.verbs._subject import ModelOptions, open_subject
    from purpleteam.verbs.outputs import file_to_write, write_answer

    if model is None and training_set is None:
        raise UsageError("nothing to look into: give --model M, or --training-set D, or both")
    if training_set is not None and (picture is not None or strip is not None):
        raise UsageError("--picture and --strip go with --model alone, not with --training-set")
    target, drawn, fitted = (file_to_write(path) for path in (out, picture, strip))
    subject = open_subject(
        images if training_set is None else training_set,
        labels,
        model=model,
        options=ModelOptions(weights=weights, arch=arch, normalise=normalise, classes=classes),
        split="validation" if training_set is None else None,
        limit=trusted if training_set is None else None,
        device=device,
        threads=threads,
        training=training_set is not None,
        progress=progress,
    )
    if model is not None:
        subject.white_box("--model", "a scan needs gradients")
    if training_set is None:
        result = detect_model(
            subject, trusted, seed, picture=drawn, strip=fitted, run=run, progress=progress
        )
    else:
        result = detect_training_set(subject, seed, progress=progress)
    if target is not None:
        write_answer(target, result.answer())
    return result


def detect_model(
    subject: Subject,
    trusted: int,
    seed: int,
    *,
    picture: Path | None = None,
    strip: Path | None = None,
    facts: Mapping[str, Any] | None = None,
    stem: str | None = None,
    run: RunFolder | None = None,
    progress: Progress = SILENT,
) -> Detected:
    """Scan a model for a backdoor with trusted images alone.

    Args:
        subject: the model, and the dataset whose validation images are trusted.
        trusted: how many of them.
        seed: the same seed and model give the same answer.
        picture: a PNG of the recovered trigger to write.
        strip: a file to fit STRIP into.
        facts: what the record says beside, such as what was planted.
        stem: what files in the run are called; by default the model.
        run: the run folder that the trigger is written into.
        progress: where to report.
    """
    import time

    from purpleteam.core.schema import MODEL_SCAN
    from purpleteam.defences.detection.model import scan_model

    loaded, dataset = subject.loaded, subject.dataset
    images, notes = subject.trusted(trusted)
    wall, cpu = time.perf_counter(), time.process_time()
    scan = scan_model(
        loaded.module,
        images,
        classes=len(dataset.classes),
        seed=seed,
        device=subject.device,
        progress=progress,
    )
    cost = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    note = Note(
        name=MODEL_SCAN,
        facts=_scan_facts(subject, loaded.digest, seed, scan.to_json(), facts),
        cost=cost,
    )
    told: dict[str, Any] = {"trusted": len(images), "subject": subject.about()}
    if picture is not None:
        told["picture"] = _drawn(scan.trigger, picture)
        if scan.trigger is None:
            notes.append(f"nothing was recovered, so {str(picture)!r} is not written")
    if strip is not None:
        from purpleteam.defences import fit_strip

        fit_strip(loaded.module, images, seed=seed, model_digest=loaded.digest).save(strip)
        told["strip"] = str(strip)
    records: list[Record] = [note, *_trigger_files(subject, scan, note, seed, stem, run)]
    return Detected(
        scan=scan,
        facts=told | {"data": subject.data("validation")},
        records=tuple(records),
        notes=(*subject.notes, *notes),
    )


def detect_training_set(
    subject: Subject,
    seed: int,
    *,
    images: ImageSet | None = None,
    facts: Mapping[str, Any] | None = None,
    detectors: Sequence[str] = (),
    progress: Progress = SILENT,
) -> Detected:
    """Look for poisoned training images; a manifest's truth is compared afterwards.

    Args:
        subject: the dataset and, where there is one, a model that has learned it.
        seed: the same seed and images give the same answer.
        images: the training images, where not the dataset's own.
        facts: what the record says beside, such as what was planted.
        detectors: whose rankings are told too; the verdict needs none, and no answer shows any.
        progress: where to report.
    """
    import time

    from purpleteam.core.schema import TRAINING_SET_SCAN
    from purpleteam.defences.detection.training_set import scan_training_set

    dataset = subject.dataset
    looked_at = dataset.split(dataset.searched) if images is None else images
    wall, cpu = time.perf_counter(), time.process_time()
    scan = scan_training_set(
        looked_at,
        classes=len(dataset.classes),
        model=None if subject.model is None else subject.model.module,
        detectors=detectors,
        seed=seed,
        device=subject.device,
        progress=progress,
    )
    cost = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    note = Note(
        name=TRAINING_SET_SCAN,
        facts=_scan_facts(subject, looked_at.digest, seed, scan.to_json(), facts),
        cost=cost,
    )
    told: dict[str, Any] = {
        "split": dataset.searched,
        "dataset": looked_at.digest,
        "data": subject.data(dataset.searched),
    }
    if looked_at.files is not None:
        told["flagged_files"] = looked_at.files[scan.flagged].tolist()
    manifest = dataset.origin.get("manifest", {})
    if "indices" in manifest and images is None:
        flagged, planted = set(scan.flagged.tolist()), set(manifest["indices"])
        both = len(flagged & planted)
        told["manifest"] = {
            "poisoned": len(planted),
            "found": both,
            "wrongly_flagged": len(flagged) - both,
        }
    return Detected(scan=scan, facts=told, records=(note,), notes=subject.notes)


def _scan_facts(
    subject: Subject,
    about: str,
    seed: int,
    answer: Mapping[str, Any],
    more: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return a scan's answer without its time, as its record has it."""
    model = subject.model
    return {
        "model_name": None if model is None else model.name,
        "model": None if model is None else model.digest,
        "subject": about,
        "own": True,
        "seed": seed,
        **{key: value for key, value in answer.items() if key != "seconds"},
        "planted": {"poison": "unknown"},
        **(more or {}),
    }


def _trigger_files(
    subject: Subject, scan: ModelScan, note: Note, seed: int, stem: str | None, run: Any
) -> list[Record]:
    """Write the recovered trigger into the run, as a file and as a picture."""
    if scan.trigger is None or run is None:
        return []
    from purpleteam.verbs._pictures import gallery

    name = stem or f"{subject.loaded.name.replace('/', '-').replace(':', '-')}-{seed}"
    path = scan.trigger.save(run.path / "exports" / f"{name}{TRIGGER}")
    label = subject.dataset.classes[scan.trigger.target_label]
    caption = f"recovered: {scan.trigger.kind}, to {label}"
    title = f"Recovered: {subject.loaded.name}, seed {seed}"
    picture = (f"{name}-recovered", scan.trigger.picture(), caption)
    return [run.artefact(path, note.id), *gallery(run, "recovered", title, [picture])]


def _drawn(trigger: RecoveredTrigger | None, path: Path) -> str | None:
    """Write the picture of a recovered trigger; there is none where nothing was recovered."""
    from purpleteam.report.png import write_png

    if trigger is None:
        return None
    pixels = trigger.picture()
    write_png(path, pixels[:, :, 0] if pixels.shape[2] == 1 else pixels[:, :, :3])
    return str(path)


def _most_suspicious(values: Mapping[str, Any]) -> list[str]:
    if not values.get("flagged"):
        return []
    files = values.get("flagged_files") or []
    named = [f" ({name})" for name in files[:10]] or [""] * 10
    pairs = zip(values["flagged"], named, strict=False)
    first = ", ".join(f"{number}{name}" for number, name in pairs)
    return [f"most suspicious: {first}" + " ..." * (len(values["flagged"]) > 10)]
