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


def measure_privacy(run: Run) -> Iterator[Piece]:
    """Attack the privacy of the model at hand, one piece an attack; shadow models are shared."""
    asked = run.config.privacy
    if not asked.attacks:
        return
    model = baseline(run)
    yield Piece(f"privacy of {model.name}", partial(_given_away, run, model))


def _given_away(run: Run, model: LoadedModel) -> list[Record]:
    asked, seed = run.config.privacy, run.config.seed
    options: dict[str, Any] = {"attack": list(asked.attacks), "shadows": asked.shadows}
    options |= {"epochs": asked.epochs}

    def measure() -> Sequence[Record]:
        doing = run.doing | {"seed": seed}
        found = verbs.privacy(model, run.dataset, **options, **doing)
        parts = notes_of(found.records, MODEL)  # the model's part is recorded already
        return [record for record in found.records if record not in parts]

    depends_on = options | {"model": model.digest, "seed": seed}
    try:
        return run.cell("privacy", f"privacy of {model.name}", depends_on, measure)
    except UsageError as error:  # such as a set too small to tell members from others
        run.left_out("privacy", f"Privacy of {model.name}", str(error))
        return []
