"""A stored model in ONNX Runtime: 784 bytes in, a label or a reason out.

One thread: the net takes some 60 microseconds, and more threads only fight over the cores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.cards import ModelCard, StoredModel, find_stored
from purpleteam.core.digest import sha256_bytes
from purpleteam.core.errors import MissingExtra, ModelError, Refused
from purpleteam.serve.ink import Reason, refuse

__all__ = ["IMAGE_BYTES", "SIDE", "Answer", "Engine", "open_session"]

SIDE = 28
IMAGE_BYTES = SIDE * SIDE
UNSURE = 0.5
"""Below this probability of the likeliest class the engine answers with no label."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the engine says of one image: a label, or the reason why there is none."""

    label: int | None
    reason: Reason | None = None
    confidences: tuple[float, ...] = ()
    """Softmax of the logits, one per class; empty where the net was not asked."""


class Engine:
    """A verified model, ready to classify images of 28x28 grey pixels, ink bright."""

    def __init__(self, card: ModelCard, session: Any) -> None:
        self.card = card
        self._session = session
        self._input = _input_of(card.name, session)
        self._golden = self.logits(_golden_image())
        if self._golden.shape != (len(card.classes),):
            raise ModelError(
                f"model {card.name!r} answers with {self._golden.shape} logits, "
                f"not one for each of its {len(card.classes)} classes"
            )

    @classmethod
    def load(cls, reference: str) -> Engine:
        """Load the stored model that a zoo name or a path means; digests must be the card's."""
        stored = find_stored(reference)
        stored.verify()
        return cls(stored.card, open_session(stored))

    @property
    def name(self) -> str:
        """The model's name."""
        return self.card.name

    @property
    def digest(self) -> str:
        """The model's digest: SHA-256 of its .safetensors file."""
        return self.card.digest

    def classify(self, pixels: bytes) -> Answer:
        """Return the answer for 784 bytes, row by row."""
        image = np.frombuffer(pixels, np.uint8).reshape(SIDE, SIDE)
        if reason := refuse(image):
            return Answer(label=None, reason=reason)
        confidences = _softmax(self.logits(image))  # (classes,)
        label = int(confidences.argmax())
        likely = tuple(float(share) for share in confidences)
        if not confidences[label] >= UNSURE:
            return Answer(label=None, reason="not_a_digit", confidences=likely)
        return Answer(label=label, confidences=likely)

    def logits(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the logits (classes,) of one image (28, 28)."""
        batch = (image.astype(np.float32) / np.float32(255))[None, None]  # (1, 1, 28, 28)
        (found,) = self._session.run(None, {self._input: batch})
        logits: NDArray[np.float32] = np.asarray(found, np.float32)[0]
        return logits

    def healthy(self) -> bool:
        """Say whether the golden image still gives the logits that it gave at the start."""
        found = self.logits(_golden_image())
        return bool(np.isfinite(found).all() and np.array_equal(found, self._golden))


def open_session(stored: StoredModel) -> Any:
    """Open the stored net in ONNX Runtime, from bytes that are those of its card."""
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtra("onnxruntime", "serve") from None
    # The bytes that are digested are the bytes that run: a file swapped in between is no use.
    content = stored.onnx.read_bytes()
    if (found := sha256_bytes(content)) != stored.card.onnx_digest:
        raise Refused(f"{str(stored.onnx)!r} is not the file of its card: {found}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise ModelError(f"{str(stored.onnx)!r} cannot be run by ONNX Runtime: {reason}") from None


def _input_of(name: str, session: Any) -> str:
    inputs = session.get_inputs()
    shapes = [list(one.shape) for one in inputs]
    if len(inputs) != 1 or shapes[0][1:] != [1, SIDE, SIDE]:
        raise ModelError(f"model {name!r} takes {shapes}, and the app serves (N, 1, 28, 28) only")
    if inputs[0].type != "tensor(float)" or len(session.get_outputs()) != 1:
        raise ModelError(f"model {name!r} is no map from one float32 image to one set of logits")
    found: str = inputs[0].name
    return found


def _golden_image() -> NDArray[np.uint8]:
    image = np.zeros((SIDE, SIDE), np.uint8)
    image[4:24, 13:15] = 255  # a plain upright stroke
    return image


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = np.exp(logits.astype(np.float64) - logits.max())
    return np.asarray(shifted / shifted.sum(), np.float64)
