"""Stage serve: ask the real app, over HTTP, about digits redrawn as people draw them."""

import numpy as np

from purpleteam.core.cards import find_stored
from purpleteam.core.errors import MissingExtra
from purpleteam.core.records import Measurement, Note, Record
from purpleteam.core.schema import SERVED
from purpleteam.core.statistics import Rate
from purpleteam.data.drawing import CASES, FIELD
from purpleteam.models.inference import logits
from purpleteam.models.loading import load
from purpleteam.pipeline.stages.models import placed, redrawn
from purpleteam.pipeline.state import Run
from purpleteam.verbs._pictures import Picture, gallery

ASKED = 100
DIGITS = 10
SHOWN = 4


def ask_app(run: Run) -> None:
    """Draw test digits anywhere on the canvas, post them, and record how many are read."""
    from purpleteam.serve.main import running_app

    if (name := run.config.models.served) is None:
        return
    if run.subject().shape != (1, FIELD, FIELD) or len(run.dataset.classes) != DIGITS:
        shape, classes = "x".join(map(str, run.dataset.shape)), len(run.dataset.classes)
        has = f"dataset {run.dataset.name!r} has {classes} classes of {shape}"
        why = f"the app reads {DIGITS} digits of {FIELD}x{FIELD}x1 pixels, {has}"
        run.left_out("serve", "The app on these images", why)
        return
    card, case = find_stored(name).card, CASES[-1]
    test = run.dataset.test.first(min(ASKED, len(run.dataset.test)))

    def ask() -> list[Record]:
        drawn = list(redrawn(run, test, case))
        small = np.stack([placed(canvas) for canvas in drawn])[..., None]  # (N, 28, 28, 1)
        with running_app(name, without=("rate",)) as url:  # we ask faster than strangers may
            scores = logits(load(url).module, small)
        unread = np.asarray(np.isnan(scores).all(1))  # an image without a label
        read = np.where(unread, -1, scores.argmax(1))
        which = {"model": card.digest, "model_name": card.name, "selection": f"first {len(test)}"}
        measured = Measurement(
            name="served_accuracy",
            value=Rate.of(int((read == test.labels).sum()), len(test)),
            subject=run.subject().about(**which),
            how={"case": case.name, "preprocessing": "place", "over": "http"},
            seed=run.config.seed,
        )
        facts = {
            "model_name": card.name,
            "model": card.digest,
            "identity": card.identity,
            "body_bytes": 784,
            "answers": "label only",
            "unread": int(unread.sum()),
        }
        pictures: list[Picture] = []
        for number, canvas in enumerate(drawn[:SHOWN]):
            said = "not read" if unread[number] else f"read as {read[number]}"
            pictures += [
                (f"drawing-{number}", canvas[::2, ::2, None], "drawn on the canvas"),
                (f"drawing-{number}-seen", small[number], f"what the model sees, {said}"),
            ]
        title = "Digits drawn small and anywhere, as the app reads them"
        shown = gallery(run.folder, "drawing", title, pictures)
        return [measured, Note(name=SERVED, facts=facts), *shown]

    depends_on = {"model": card.identity, "n": len(test), "seed": run.config.seed}
    try:
        run.cell("serve", "ask", depends_on, ask)
    except MissingExtra as error:
        run.left_out("serve", "The app", str(error))
