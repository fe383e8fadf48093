"""Stage certify: what no adversary within a stated bound can change."""

from __future__ import annotations

from dataclasses import asdict

from purpleteam import verbs
from purpleteam.core.records import Record
from purpleteam.pipeline.state import Run


def certify_partition(run: Run) -> None:
    """Certify the test images against changes of the training set, as one cell."""
    asked = run.config.certify
    if not asked.changes:
        return

    def look() -> tuple[Record, ...]:
        return verbs.certify(
            run.dataset,
            changes=asked.changes,
            parts=asked.parts,
            learner=asked.learner,
            seed=run.config.seed,
            threads=run.threads,
            run=run.folder,
            progress=run.progress,
        ).records

    run.cell("certify", "partitions", asdict(asked), look)
