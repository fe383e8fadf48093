"""Stage privacy: what the model at hand gives away of its training images, and to copies."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from purpleteam import verbs
from purpleteam.core.errors import UsageError
from purpleteam.core.records import Record, notes_of
from purpleteam.core.schema import MODEL
from purpleteam.models.loading import LoadedModel
from purpleteam.pipeline.stages.models import baseline
from purpleteam.pipeline.state import Piece, Run
from purpleteam.privacy.membership import MEMBERSHIP

ALIKE = "membership inference"
"""What the attacks are called together that share shadow models."""


def measure_privacy(run: Run) -> Iterator[Piece]:
    """Attack the privacy of the model at hand; those that share shadow models in one piece."""
    asked = run.config.privacy
    if not asked.attacks:
        return
    model, parts = baseline(run), dict[str, list[str]]()
    for text in asked.attacks:
        name = text.partition(":")[0]
        parts.setdefault(ALIKE if name in MEMBERSHIP else text, []).append(text)
    for what, attacks in parts.items():
        called = f"{what} of {model.name}"
        yield Piece(called, partial(_given_away, run, model, called, attacks))


def _given_away(run: Run, model: LoadedModel, what: str, attacks: list[str]) -> list[Record]:
    asked, seed = run.config.privacy, run.config.seed
    options: dict[str, Any] = {"attack": attacks, "shadows": asked.shadows}
    options |= {"epochs": asked.epochs, "queries": asked.queries}
    if run.config.models.use is None:  # what nets are trained here, copies and shadow models too
        options |= {"arch": run.config.architecture}

    def measure() -> Sequence[Record]:
        doing = run.doing | {"seed": seed}
        found = verbs.privacy(model, run.dataset, **options, **doing)
        parts = notes_of(found.records, MODEL)  # the model's part is recorded already
        return [record for record in found.records if record not in parts]

    depends_on = options | {"model": model.digest, "seed": seed}
    try:
        return run.cell("privacy", what, depends_on, measure)
    except UsageError as error:  # such as a set too small to tell members from others
        run.left_out("privacy", what, str(error))
        return []
