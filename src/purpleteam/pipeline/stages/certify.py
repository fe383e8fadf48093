"""Stage certify: what no adversary within a stated bound can change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from purpleteam.certify.partition import PartitionCertificate, certify_partitions, seeded
from purpleteam.core.records import Measurement, Record
from purpleteam.core.schema import model_note
from purpleteam.pipeline.work import Work

__all__ = ["certify_partition"]

NAME = "partitions"
"""What the classifier that votes is called in records: it is none of the trained models."""


def certify_partition(work: Work) -> None:
    """Certify the test images against changes of the training set, as one cell."""
    asked = work.config.certify
    if not asked.changes:
        return

    def look() -> Sequence[Record]:
        found = certify_partitions(
            work.train,
            work.dataset.test,
            classes=len(work.dataset.classes),
            parts=asked.parts,
            learner=seeded(asked.learner, work.config.seed),
            progress=work.progress,
        )
        return _measured(work, found)

    work.cell("certify", "partitions", asdict(asked), look)


def _measured(work: Work, found: PartitionCertificate) -> list[Record]:
    subject = {
        "model": found.digest,
        "model_name": NAME,
        "dataset": work.dataset.test.digest,
        "dataset_name": work.dataset.name,
        "training_set": work.dataset.train.digest,
        "split": "test",
        "selection": "all",
    }
    facts = found.to_json(work.config.certify.changes)
    how = {name: facts[name] for name in ("method", "norm", "layout", "learner")}
    cost = {"cpu_seconds": facts["seconds"]}
    clean = Measurement(
        name="clean_accuracy",
        value=found.clean_accuracy,
        subject=subject,
        how=how,
        detail={name: facts[name] for name in ("median_radius", "part_accuracy", "empty_parts")},
        cost=cost,
    )
    return [
        model_note(found.digest, NAME, "partitions"),
        clean,
        *(
            Measurement(
                name="certified_accuracy",
                value=found.certified_accuracy(changes),
                subject=subject,
                how=how | {"epsilon": changes},
                detail={"counts": found.counts(changes)},
                cost=cost,
            )
            for changes in sorted(set(work.config.certify.changes))
        ),
    ]
