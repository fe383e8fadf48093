"""Stage certify: what no adversary within a stated bound can change."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from purpleteam import verbs
from purpleteam.certify.network import Unsupported, network_of
from purpleteam.core.errors import ModelError, RunError, UsageError
from purpleteam.core.records import Artefact, Measurement, Record, notes_of
from purpleteam.core.runfolder import RunFolder
from purpleteam.core.schema import MODEL
from purpleteam.models.loading import LoadedModel
from purpleteam.pipeline.stages.models import baseline
from purpleteam.pipeline.state import Piece, Run

METRICS = ("certified_accuracy", "robust_accuracy")


def certify_partition(run: Run) -> None:
    """Certify the test images against changes of the training set, as one cell."""
    config, seed = run.config.certify, run.config.seed
    asked = {key: getattr(config, key) for key in ("changes", "parts", "learner")}
    doing = {key: run.doing[key] for key in ("threads", "run", "progress")}
    if asked["changes"]:
        certify = partial(verbs.certify, run.dataset, method="dpa", **asked, seed=seed, **doing)
        try:
            run.cell("certify", "partitions", asked, lambda: certify().records)
        except UsageError as error:
            if asked["parts"] is not None:
                raise
            run.left_out("certify", "Certificates against poison", str(error))


def certify_baseline(run: Run) -> Iterator[Piece]:
    """Certify the model at hand within each radius."""
    if run.config.certify.epsilons:
        yield from certified(run, "certify", baseline(run))


def certified(run: Run, stage: str, model: LoadedModel) -> Iterator[Piece]:
    """Yield the certificates of a model; those that cannot be had are left out with the reason."""
    asked = run.config.certify
    if not asked.epsilons:
        return
    try:
        network_of(model.module, run.subject().shape)
    except (Unsupported, ModelError) as error:
        run.left_out(stage, f"Certificates of {model.name}", str(error))
        return
    yield Piece(f"certify {model.name}", partial(_certified, run, stage, model))


def _certified(run: Run, stage: str, model: LoadedModel) -> list[Record]:
    asked, seed = run.config.certify, run.config.seed
    options: dict[str, Any] = {"method": asked.method, "epsilon": sorted(asked.epsilons)}
    options |= {"seconds": asked.seconds, "limit": asked.limit}

    def prove() -> Sequence[Record]:
        doing = run.doing | {"seed": seed}
        found = verbs.certify(run.dataset, model=model, split="test", **options, **doing)
        parts = notes_of(found.records, MODEL)  # the model's part is recorded already
        return [record for record in found.records if record not in parts]

    depends_on = options | {"model": model.digest, "seed": seed}
    return run.cell(stage, f"certify {model.name}", depends_on, prove)


def check_bounds(folder: RunFolder) -> None:
    """Hold certified <= attacked <= clean, image by image, where all are of one classifier.

    Raises:
        RunError: an attack broke an image within a radius for which it is verified.
    """
    records = folder.records()
    files = {
        record.made_by: record.path
        for record in records
        if isinstance(record, Artefact) and record.path.endswith(".npz")
    }
    told = [
        (record, folder.path / files[record.id])
        for record in records
        if isinstance(record, Measurement) and record.name in METRICS and record.id in files
    ]
    for proof, proved in told:
        for attack, broken in told:
            same = all(
                proof.subject.get(key) == attack.subject.get(key)
                for key in ("model", "dataset", "normalisation")
            )
            if (
                same
                and (proof.name, attack.name) == METRICS
                and proof.how.get("norm") == attack.how.get("norm") == "linf"
                and attack.how["epsilon"] <= proof.how["epsilon"]
                and (wrong := _contradicted(proved, broken)) is not None
            ):
                name, epsilon = proof.subject.get("model_name"), attack.how["epsilon"]
                raise RunError(
                    f"test image {wrong} of {name} is verified ({proof.id}) and an attack broke "
                    f"it within {epsilon:g} ({attack.id}): one of the two is wrong"
                )


def _contradicted(proved: Path, broken: Path) -> int | None:
    """Return the first image that is verified in one file and broken in the other, if any."""
    with np.load(proved) as proofs, np.load(broken) as attacks:
        n = min(len(proofs["verdicts"]), len(attacks["broken_by"]))
        wrong = (proofs["verdicts"][:n] == "verified") & (attacks["broken_by"][:n] != -1)
    return int(np.flatnonzero(wrong)[0]) if wrong.any() else None
