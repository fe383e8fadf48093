"""A deployed classifier that is asked over HTTP, as `purple serve` answers.

`POST /predict` takes the 784 bytes of one 28x28 grey image and answers `{"label": 7}`, or a null
label where it refuses, and with `confidences` where they are exposed. `GET /version` says what is
behind it, where the app has one, and `GET /readyz` whether it is ready. Nothing is followed
elsewhere: a redirect is an error that names where it points to.
"""

from __future__ import annotations

import json
import math
import re
import threading
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from purpleteam.core.address import Address
from purpleteam.core.digest import sha256_bytes
from purpleteam.models.black_box import BlackBox, as_bytes, log_scores
from purpleteam.models.connection import PATIENCE, Connection, Stopped, Traffic

SIDE = 28
CONNECTIONS = 4
"""Requests under way at once: an app far away answers as often more per second."""
USUAL_CLASSES = 10
FAINTEST = 5e-7
"""Confidences have six digits: what is rounded to 0 is below this."""


class Endpoint(BlackBox):
    """An app at an address. It is asked once when it is opened, to see what it answers."""

    def __init__(
        self,
        url: str,
        *,
        classes: int | None = None,
        patience: float = PATIENCE,
        connections: int = CONNECTIONS,
    ) -> None:
        """Open an app.

        Args:
            url: `http://HOST:PORT`, or https; a user and password in it are sent and never shown.
            classes: how many there are; by default what the app says, else 10.
            patience: seconds that one image may wait for a busy app.
            connections: requests under way at once.

        Raises:
            UsageError: that is no such address.
            ModelError: nobody answers there, or not what a classifier answers.
        """
        address = Address.of(url)
        traffic = Traffic(patience)
        lines = [Connection(address, traffic) for _ in range(connections)]
        weakref.finalize(self, _close, lines)
        facts = _facts(lines[0])
        stroke = np.zeros((SIDE, SIDE), np.uint8)  # upright: an app for digits takes it for one
        stroke[4:24, 13:15] = 255
        first = _answer(lines[0], stroke.tobytes())
        tells = facts.get("confidences") is True or "confidences" in first
        stated = facts.get("digest")
        if not isinstance(stated, str) or not re.fullmatch(r"sha256:[0-9a-f]{64}", stated):
            stated = None
        note = "the model's digest is the one that the app states of itself"
        if stated is None:
            note = "the app states no digest: the model's is of its address, and may hide a change"
        lists = (facts.get("classes"), first.get("confidences"))
        shown = next((len(one) for one in lists if isinstance(one, list) and one), USUAL_CLASSES)
        super().__init__(
            address.name,
            digest=stated or sha256_bytes(address.name.encode()),
            shape=(1, SIDE, SIDE),
            classes=classes or shown,
            gives="scores" if tells else "labels",
            notes=(note,) if tells else (note, "the app tells labels alone, no scores"),
        )
        self.traffic = traffic
        self.calls = traffic.answered  # one
        self._lines = lines
        self._row(lines[0], first)  # an answer that means nothing is an error now, not later

    @property
    def waited(self) -> float:
        """Seconds that were spent waiting because the app was busy."""
        return self.traffic.waited

    def ask(self, images: Tensor) -> Tensor:
        """Return float32 scores (N, classes), a row of NaN where the app refused an image."""
        pixels = as_bytes(images)
        lines = self._lines[: len(pixels)]
        scores = np.empty((len(pixels), self.classes), np.float32)
        try:
            for place, rows in enumerate(self._parts(lines, pixels)):
                scores[place :: len(lines)] = rows
        finally:
            self.calls = self.traffic.answered
        return torch.from_numpy(scores)

    def close(self) -> None:
        """Close the connections; asking opens them again."""
        _close(self._lines)

    def _parts(
        self, lines: Sequence[Connection], pixels: NDArray[np.uint8]
    ) -> list[list[NDArray[np.float32]]]:
        """Return the scores of each connection's share of the images, asked side by side."""
        stop = threading.Event()
        if len(lines) == 1:
            return [self._rows(lines[0], pixels, stop)]
        with ThreadPoolExecutor(len(lines)) as pool:
            parts = [
                pool.submit(self._rows, line, pixels[place :: len(lines)], stop)
                for place, line in enumerate(lines)
            ]
            try:
                wait(parts, return_when=FIRST_EXCEPTION)
            finally:
                stop.set()  # all are done, or one failed, or the user stopped
        return [part.result() for part in parts]

    def _rows(
        self, line: Connection, pixels: NDArray[np.uint8], stop: threading.Event
    ) -> list[NDArray[np.float32]]:
        """Return a row of scores for each image, in order; fewer where it is told to stop."""
        rows: list[NDArray[np.float32]] = []
        with suppress(Stopped):
            for image in pixels:
                if stop.is_set():
                    break
                rows.append(self._row(line, _answer(line, image.tobytes(), stop)))
        return rows

    def _row(self, line: Connection, answer: Mapping[str, Any]) -> NDArray[np.float32]:
        """Return the scores (classes,) that an answer means."""
        label, shares = answer["label"], answer.get("confidences")
        if label is None:
            return np.full(self.classes, np.nan, np.float32)
        if type(label) is not int or not 0 <= label < self.classes:
            raise line.error(
                f"answered with label {label!r:.50}, not one of 0 to {self.classes - 1}"
            )
        if self.gives == "labels":
            row: NDArray[np.float32] = np.eye(self.classes, dtype=np.float32)[label]
            return row
        if not _is_distribution(shares, self.classes):
            raise line.error(
                f"answered with confidences {shares!r:.60}, not {self.classes} that sum to 1"
            )
        scores: NDArray[np.float32] = log_scores(torch.tensor(shares), FAINTEST).numpy()
        if scores.argmax() != label:  # the app decides otherwise than by the largest
            scores[label] = np.nextafter(scores.max(), np.float32(np.inf))
        return scores


def _facts(line: Connection) -> dict[str, Any]:
    """Return what the app says of itself; nothing where it is another kind of app."""
    ready = line.send("GET", "/readyz")
    if ready.status >= 500:
        raise line.error(f"is not ready (status {ready.status}): {ready.shown}")
    version = line.ask("GET", "/version")
    if version.status != 200:
        return {}
    with suppress(ValueError, RecursionError):
        facts = json.loads(version.body)
        return facts if isinstance(facts, dict) else {}
    return {}


def _answer(line: Connection, pixels: bytes, stop: threading.Event | None = None) -> dict[str, Any]:
    """Return what the app answers for one image: an object with a label, maybe null."""
    reply = line.ask("POST", "/predict", pixels, stop)
    if 300 <= reply.status < 400:
        place = (reply.location or "nowhere")[:100]
        raise line.error(f"points elsewhere (status {reply.status}): {place!r}")
    if reply.status != 200:
        raise line.error(f"answered POST /predict with status {reply.status}: {reply.shown}")
    try:
        answer = json.loads(reply.body)
    except (ValueError, RecursionError):
        raise line.error(f"answered with what is no JSON: {reply.shown}") from None
    if not isinstance(answer, dict) or "label" not in answer:
        raise line.error(f"answered without a label: {reply.shown}")
    line.traffic.count()
    return answer


def _close(lines: Sequence[Connection]) -> None:
    for line in lines:
        line.close()


def _is_distribution(shares: object, classes: int) -> bool:
    if not isinstance(shares, list) or len(shares) != classes:
        return False
    if not all(type(share) in (int, float) and 0 <= share <= 1 for share in shares):
        return False
    return math.isclose(sum(shares), 1, abs_tol=0.01)
