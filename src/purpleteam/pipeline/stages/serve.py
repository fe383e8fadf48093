"""Stage serve: ask the real app, over HTTP, about digits redrawn as people draw them."""

from __future__ import annotations

import http.client
import json
from urllib.parse import urlsplit

import numpy as np

from purpleteam.core.cards import find_stored
from purpleteam.core.errors import MissingExtra
from purpleteam.core.records import Measurement, Note, Record
from purpleteam.core.statistics import Rate
from purpleteam.data.drawing import CASES, FIELD, redraw
from purpleteam.pipeline.stages.models import placed
from purpleteam.pipeline.state import Run
from purpleteam.verbs._pictures import Picture, gallery

ASKED = 100
DIGITS = 10


def ask_app(run: Run) -> None:
    """Draw test digits anywhere on the canvas, post them, and record how many are read."""
    from purpleteam.serve.main import running_app

    if run.config.models.served is None:
        return
    height, width, channels = run.dataset.shape
    if (height, width, channels) != (FIELD, FIELD, 1) or len(run.dataset.classes) != DIGITS:
        why = (
            f"the app reads {DIGITS} digits of {FIELD}x{FIELD}x1 pixels, dataset "
            f"{run.dataset.name!r} has {len(run.dataset.classes)} classes of "
            f"{height}x{width}x{channels}"
        )
        run.left_out("serve", "The app on these images", why)
        return
    name = run.config.models.served
    served = find_stored(name)
    test = run.dataset.test.first(min(ASKED, len(run.dataset.test)))
    case = CASES[-1]

    def ask() -> list[Record]:
        offsets = case.offsets(len(test), seed=run.config.seed)
        read, drawn = [], []
        with running_app(name) as url:
            address = urlsplit(url)
            for digit, (x, y) in zip(test.images[:, :, :, 0], offsets, strict=True):
                canvas = redraw(digit, size=case.size, offset_x=int(x), offset_y=int(y))
                small = placed(canvas)
                drawn.append((canvas, small))
                read.append(_predict(str(address.hostname), address.port or 80, small.tobytes()))
        right = sum(label == true for label, true in zip(read, test.labels.tolist(), strict=True))
        subject = {
            "model": served.card.digest,
            "model_name": served.card.name,
            "dataset": run.dataset.test.digest,
            "dataset_name": run.dataset.name,
            "split": "test",
            "selection": f"first {len(test)}",
        }
        how = {"case": case.name, "preprocessing": "place", "over": "http"}
        measured = Measurement(
            name="served_accuracy",
            value=Rate.of(right, len(test)),
            subject=subject,
            how=how,
            seed=run.config.seed,
        )
        note = Note(
            name="served",
            facts={
                "model_name": served.card.name,
                "model": served.card.digest,
                "body_bytes": 784,
                "answers": "label only",
                "unread": sum(label is None for label in read),
            },
        )
        pictures: list[Picture] = []
        for number, (canvas, small) in enumerate(drawn[:4]):
            label = read[number]
            said = "not read" if label is None else f"read as {label}"
            pictures += [
                (f"drawing-{number}", np.array(canvas)[::2, ::2, None], "drawn on the canvas"),
                (f"drawing-{number}-seen", small[:, :, None], f"what the model sees, {said}"),
            ]
        title = "Digits drawn small and anywhere, as the app reads them"
        return [measured, note, *gallery(run.folder, "drawing", title, pictures)]

    depends_on = {"model": served.card.digest, "n": len(test), "seed": run.config.seed}
    try:
        run.cell("serve", "ask", depends_on, ask)
    except MissingExtra as error:
        run.left_out("serve", "The app", str(error))


def _predict(host: str, port: int, body: bytes) -> int | None:
    connection = http.client.HTTPConnection(host, port, timeout=10)
    try:
        connection.request("POST", "/predict", body, {"Content-Type": "application/octet-stream"})
        answer = json.loads(connection.getresponse().read())
        label = answer.get("label")
        return None if label is None else int(label)
    finally:
        connection.close()
