"""detect: look for a backdoor in a trained model, or for poisoned images in a training set."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Unpack

from purpleteam.core.errors import UsageError
from purpleteam.core.records import Note, Record
from purpleteam.core.schema import MODEL_SCAN, TRAINING_SET_SCAN
from purpleteam.verbs.options import Images, Model, OnModel, Trusted
from purpleteam.verbs.result import Result, table
from purpleteam.verbs.verb import verb

if TYPE_CHECKING:
    from purpleteam.data.images import ImageSet
    from purpleteam.defences.detection.model import ModelScan
    from purpleteam.defences.detection.recovered import RecoveredTrigger
    from purpleteam.defences.detection.training_set import TrainingSetScan
    from purpleteam.verbs._subject import Subject

EXIT_CODES = {"nothing_found": 0, "backdoored": 1, "not_established": 2}
TRIGGER = "-trigger.safetensors"  # how the file of a recovered trigger ends


@dataclass(frozen=True, kw_only=True, repr=False)
class Detected(Result):
    """The verdict of a scan, and what it found."""

    stage = "defences"

    scan: ModelScan | TrainingSetScan

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

    def lines(self) -> list[str]:
        values = self.values
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
        rows += [
            ("set aside", "label {label} by {kind}: near by nature".format_map(label))
            for label in values.get("set_aside", ())
        ]
        rows.append(("seconds", f"{values['seconds']:.1f}"))
        shown = ("kind", "picture", "strip") if values["backdoored"] else ("strip",)
        rows += [(key, values[key]) for key in shown if values.get(key)]
        flagged = values.get("flagged", ())
        if "flagged" in values:
            rows.append(("flagged images", f"{len(flagged)} of {values['images']}"))
        if "manifest" in values:
            told = "{poisoned} poisoned, {found} of them flagged".format_map(values["manifest"])
            rows.append(("manifest", told))
        if not flagged:
            return table(rows)
        names = [f" ({name})" for name in values.get("flagged_files", [])[:10]] or [""] * 10
        first = ", ".join(f"{n}{name}" for n, name in zip(flagged, names, strict=False))
        return [*table(rows), f"most suspicious: {first}" + " ..." * (len(flagged) > 10)]


@verb(answers=True)
def detect(
    model: Model = None,
    images: Images = "digits",
    labels: Any = None,
    *,
    training_set: Annotated[Any, "Look for poisoned images in it instead."] = None,
    trusted: Trusted = 1000,
    picture: Annotated[Path | str | None, "PNG of the recovered trigger."] = None,
    strip: Annotated[
        Path | str | None, "Also fit STRIP for purple serve --strip, into this file."
    ] = None,
    **given: Unpack[OnModel],
) -> Detected:
    """Look for a backdoor: in a model by --model, in images by --training-set.

    Exit codes: 0 nothing found, 1 found, 2 not established (too little, or unlike the calibration).
    """
    from purpleteam.defences import fit_strip
    from purpleteam.verbs._pictures import save_picture
    from purpleteam.verbs._subject import open_subject
    from purpleteam.verbs.outputs import file_to_write

    if model is None and training_set is None:
        raise UsageError("nothing to look into: give --model M, or --training-set D, or both")
    if training_set is not None and (picture is not None or strip is not None):
        raise UsageError("--picture and --strip go with --model alone, not with --training-set")
    drawn, fitted = file_to_write(picture), file_to_write(strip)
    part: dict[str, Any] = {"split": "validation", "limit": trusted}
    if training_set is not None:
        images, part = training_set, {"training": True}
    subject = open_subject(images, labels, model=model, **part, **given)
    if model is not None:
        subject.check_white_box("--model", "a scan needs gradients")
    if training_set is not None:
        return detect_training_set(subject)
    result = detect_model(subject, trusted)
    told, notes, trigger = dict[str, Any](), list[str](), result.trigger
    if drawn is not None:
        told["picture"] = None if trigger is None else str(drawn)
        if trigger is None:
            notes.append(f"nothing was recovered, so {str(drawn)!r} is not written")
        else:
            save_picture(drawn, trigger.picture())
    if fitted is not None:
        loaded, (clean, _) = subject.loaded, subject.trusted(trusted)
        net = fit_strip(loaded.module, clean, seed=subject.seed, model_digest=loaded.digest)
        net.save(fitted)
        told["strip"] = str(fitted)
    return replace(result, values={**result.values, **told}, notes=(*result.notes, *notes))


def detect_model(subject: Subject, trusted: int, **more: Any) -> Detected:
    """Scan the subject's model for a backdoor with the first `trusted` validation images alone."""
    from purpleteam.defences.detection.model import scan_model
    from purpleteam.verbs._pictures import gallery

    loaded, classes, run = subject.loaded, subject.dataset.classes, subject.run
    images, few = subject.trusted(trusted)
    started = time.perf_counter(), time.process_time()
    scan = scan_model(
        loaded.module,
        images,
        classes=len(classes),
        seed=subject.seed,
        device=subject.device,
        progress=subject.progress,
    )
    note = _note(MODEL_SCAN, subject, loaded.digest, scan, started, more)
    records: list[Record] = [note]
    if scan.trigger is not None and run is not None:  # as a file and as a picture
        name = f"{loaded.name.replace('/', '-').replace(':', '-')}-{subject.seed}"
        path = scan.trigger.save(run.path / "exports" / f"{name}{TRIGGER}")
        caption = f"recovered: {scan.trigger.kind}, to {classes[scan.trigger.target_label]}"
        title = f"Recovered: {loaded.name}, seed {subject.seed}"
        picture = (f"{name}-recovered", scan.trigger.picture(), caption)
        records += [run.artefact(path, note.id), *gallery(run, "recovered", title, [picture])]
    facts = {"trusted": len(images), "subject": subject.about()}
    return Detected(
        scan=scan,
        values=scan.to_json() | facts | {"data": subject.data("validation")},
        records=tuple(records),
        notes=(*subject.notes, *few),
    )


def detect_training_set(
    subject: Subject, images: ImageSet | None = None, detectors: Sequence[str] = (), **more: Any
) -> Detected:
    """Look for poisoned training images; a manifest's truth is compared afterwards."""
    from purpleteam.defences.detection.training_set import scan_training_set

    dataset = subject.dataset
    looked_at = dataset.split(dataset.searched) if images is None else images
    started = time.perf_counter(), time.process_time()
    scan = scan_training_set(
        looked_at,
        classes=len(dataset.classes),
        model=None if subject.model is None else subject.model.module,
        detectors=detectors,
        seed=subject.seed,
        device=subject.device,
        progress=subject.progress,
    )
    note = _note(TRAINING_SET_SCAN, subject, looked_at.digest, scan, started, more)
    told: dict[str, Any] = {
        "split": dataset.searched,
        "dataset": looked_at.digest,
        "data": subject.data(dataset.searched),
    }
    if looked_at.files is not None:
        told["flagged_files"] = looked_at.files[scan.flagged].tolist()
    planted = dataset.origin.get("manifest", {}).get("indices")
    if planted is not None and images is None:
        n, both = len(scan.flagged), len({*scan.flagged.tolist()} & {*planted})
        told["manifest"] = {"poisoned": len({*planted}), "found": both, "wrongly_flagged": n - both}
    values = scan.to_json() | told
    return Detected(scan=scan, values=values, records=(note,), notes=subject.notes)


def _note(
    name: str,
    subject: Subject,
    about: str,
    scan: ModelScan | TrainingSetScan,
    started: tuple[float, float],
    more: Mapping[str, Any],
) -> Note:
    """Return the record of a scan: its answer, and its time apart from it."""
    wall, cpu = started
    facts = {
        "model_name": None if subject.model is None else subject.model.name,
        "model": None if subject.model is None else subject.model.digest,
        "subject": about,
        "own": True,
        "seed": subject.seed,
        **{key: value for key, value in scan.to_json().items() if key != "seconds"},
        "planted": {"poison": "unknown"},
        **more,
    }
    cost = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    return Note(name=name, facts=facts, cost=cost)
