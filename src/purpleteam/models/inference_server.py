"""A classifier behind an inference server, asked in JSON; the address says in which form.

- `.../v2/models/NAME`: the Open Inference Protocol, KServe's second (Triton, MLServer, OpenVINO).
  The server says what it takes. https://github.com/kserve/open-inference-protocol
- `...:predict`, `.../invocations`: `{"instances": [IMAGE]}` is answered by `{"predictions": [...]}`
  (TensorFlow Serving, KServe's first, MLflow). What it takes is found by trying.

An image is numbers in [0, 1], or whole ones to 255 where the server says that it takes bytes; its
answer is scores, probabilities or a label.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from purpleteam.core.address import Address
from purpleteam.core.arrays import Singles
from purpleteam.core.digest import canonical_json, sha256_bytes
from purpleteam.core.errors import ModelError, UsageError
from purpleteam.models.black_box import CHANNELS, Shape, as_bytes, distributions, log_scores
from purpleteam.models.endpoint import (
    CONNECTIONS,
    FAINTEST,
    JSON,
    LABELS_ALONE,
    PATIENCE,
    USUAL_CLASSES,
    App,
    Remote,
)

V2, INSTANCES = "/v2/models/", (":predict", "/invocations")
FLOATS = ("FP32", "FP64", "FP16")
FIRST, LAST, PLAIN, ROW = "(C, H, W)", "(H, W, C)", "(H, W)", "a row of C * H * W"
FORMS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    LAST: lambda pixels: pixels.transpose(1, 2, 0),
    FIRST: lambda pixels: pixels,
    PLAIN: lambda pixels: pixels[0],
    ROW: lambda pixels: pixels.reshape(-1),
}
"""How an image (C, H, W) is sent: where nothing is said of it, the first that is answered."""
TAKES = "one input of FP32, FP64, FP16 or UINT8, of images (C, H, W) or (H, W, C)"


def is_served(url: str) -> bool:
    """Say whether an address has the form of an inference server's."""
    path = Address.of(url).path
    return V2 in path or path.endswith(INSTANCES)


class InferenceServer(Remote):
    """A model of an inference server. It is asked once when it is opened, to see what it answers.

    `sends` says in which form an image goes out: channels first or last, without channels, a row.
    """

    def __init__(
        self,
        url: str,
        *,
        images: tuple[int, int, int] | None = None,
        classes: int | None = None,
        patience: float = PATIENCE,
        connections: int = CONNECTIONS,
    ) -> None:
        """Open an address; `images` is the shape (C, H, W) of those that it will be asked about.

        Of a server that tells labels alone there are as many `classes` as are given, else 10.
        """
        address = Address.of(url)
        address = replace(address, path=address.path.removesuffix("/infer"))
        app = App(address, patience, connections)
        said, self.sends = dict[str, Any](), ""
        shape: Shape = images or (None, None, None)
        self._name = self._output = ""
        self._kind, self._batched = FLOATS[0], True
        if V2 in address.path:
            said = app.answer("", None, "inputs")
            shape = self._read(app, said)
        known = zip(shape, images or shape, strict=True)
        sample = torch.zeros([side or usual or 1 for side, usual in known])
        if None in shape and images is None:
            raise UsageError(f"{address.name} does not say which images it takes: give their shape")
        first = self._first(app, sample)
        scores = isinstance(first, list)
        about = canonical_json({"address": address.name, "says": said}).encode()
        notes = [
            "the server states no digest: the model's is of its address, and may hide a change"
        ]
        notes.append(f"each image is sent as {self.sends}{'' if scores else f'; {LABELS_ALONE}'}")
        super().__init__(
            app,
            digest=sha256_bytes(about),
            shape=shape,
            classes=len(first) if scores else classes or USUAL_CLASSES,
            gives="scores" if scores else "labels",
            notes=tuple(notes),
        )
        self.quantised = self.takes_bytes
        self._scores(first)

    @property
    def takes_bytes(self) -> bool:
        """Whether its images are bytes, not numbers in [0, 1]."""
        return self._kind == "UINT8"

    def _read(self, app: App, said: dict[str, Any]) -> Shape:
        """Return the shape (C, H, W) of images that a server says it takes; None for any side."""
        try:
            (taken,), given = said["inputs"], said["outputs"]
            name, kind, sides = str(taken["name"]), taken["datatype"], [*map(int, taken["shape"])]
            floats = [one for one in given if one["datatype"] in FLOATS]
            self._output = str((given if len(given) == 1 else floats)[0]["name"])
        except (ValueError, TypeError, KeyError, LookupError):
            raise app.error(f"takes {said['inputs']!r:.200}; known: {TAKES}") from None
        if kind not in (*FLOATS, "UINT8") or len(sides) not in (3, 4):
            raise app.error(f"takes {kind} {sides}; known: {TAKES}")
        self._name, self._kind, self._batched = name, kind, len(sides) == 4
        first, second, third = (side if side > 0 else None for side in sides[-3:])
        last = third in CHANNELS and first not in CHANNELS
        self.sends = LAST if last else FIRST
        return (third, first, second) if last else (first, second, third)

    def _first(self, app: App, sample: Tensor) -> Any:
        """Return the answer to a sample, and keep the form in which it was sent."""
        forms = [self.sends] if self.sends else list(FORMS)
        problem = ModelError("")
        for self.sends in forms:
            if self.sends == PLAIN and len(sample) > 1:
                continue
            try:
                return self._answer(app, sample)
            except ModelError as error:
                if app.answered:  # it takes this form, and its answer means nothing
                    raise
                problem = problem if str(problem) else error
        raise problem

    def _asked(self, image: Tensor) -> Singles:
        return self._scores(self._answer(self._app, image))

    def _answer(self, app: App, image: Tensor) -> Any:
        """Return what it says of an image (C, H, W): a list of numbers, or a label."""
        pixels = as_bytes(image) if self.takes_bytes else image.numpy()
        sent = FORMS[self.sends](pixels)
        if not self._name:
            body = json.dumps({"instances": [sent.tolist()]}).encode()
            told = app.answer("", body, "predictions", JSON)["predictions"]
            if not isinstance(told, list):
                raise app.error(f"answered with predictions {told!r:.60}, not a list")
            (said, *more) = told or [None]
            if more:
                raise app.error(f"gave {1 + len(more)} predictions for one image")
            return _told(app, said)
        part = {"name": self._name, "datatype": self._kind, "data": sent.ravel().tolist()}
        part["shape"] = [*([1] if self._batched else []), *sent.shape]
        asked = {"inputs": [part], "outputs": [{"name": self._output}]}
        outputs = app.answer("/infer", json.dumps(asked).encode(), "outputs", JSON)["outputs"]
        named = [
            one for one in outputs if isinstance(one, dict) and one.get("name") == self._output
        ]
        if len(named) != 1:
            raise app.error(f"answered without output {self._output!r}: {outputs!r:.100}")
        return _told(app, named[0].get("data"))

    def _scores(self, told: Any) -> Singles:
        """Return the scores (classes,) that an answer means."""
        if isinstance(told, list) != (self.gives == "scores"):
            raise self._app.error(f"answered with {told!r:.60}, and with {self.gives} before")
        if self.gives == "labels":
            if not 0 <= told < self.classes:
                wrong = f"label {told}, not one of 0 to {self.classes - 1}"
                raise self._app.error(f"answered with {wrong}")
            return np.asarray(np.arange(self.classes) == told, np.float32)
        if len(told) != self.classes:
            raise self._app.error(f"answered with {len(told)} scores, and {self.classes} before")
        row = torch.tensor(told, dtype=torch.float64)
        if distributions(row[None]).all():
            row = log_scores(row, FAINTEST)
        scores: Singles = row.float().numpy()
        return scores


def _told(app: App, said: Any) -> Any:
    """Return the scores, a list, or the label, a number, in an answer."""
    if isinstance(said, dict):  # of named parts the one that is a list, a label, or all numbers
        lists = [part for part in said.values() if isinstance(part, list)]
        said = lists[0] if len(lists) == 1 else said.get("label", [*said.values()])
    while isinstance(said, list) and len(said) == 1:
        said = said[0]
    numbers = said if isinstance(said, list) else [said]
    if not all(type(one) in (int, float) and np.isfinite(one) for one in numbers) or not numbers:
        raise app.error(f"answered with {said!r:.60}, not with scores or a label")
    if isinstance(said, float):
        raise app.error(f"answered with {said!r:.60} alone: two scores or a whole label are wanted")
    return said
