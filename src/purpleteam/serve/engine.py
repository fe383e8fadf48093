"""A stored model in ONNX Runtime: 784 bytes in, a label or a reason out.

Plain rules, whose limits lie outside what 99.9 % of the MNIST images show, send away what is
clearly no digit, to which a net would give a label all the same. A second net (`doubt`) finds more,
where the model's card has thresholds for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.cards import ModelCard, StoredModel, find_stored
from purpleteam.core.digest import sha256_bytes
from purpleteam.core.errors import MissingExtra, ModelError, Refused, UsageError, reason_of
from purpleteam.defences.detection.squeeze import distances
from purpleteam.defences.detection.strip import Strip
from purpleteam.serve.doubt import DigitOrNot, Thresholds, read_net, softmax
from purpleteam.serve.weights import Held, held

if TYPE_CHECKING:
    from purpleteam.serve.sandbox import Confinement

Reason = Literal["empty", "not_a_digit", "unsure", "triggered", "adversarial"]
"""Why there is no label; the last two are said only where they were asked for."""
FAINT = 32  # below this brightness everywhere, nothing was drawn
INKED = 128  # a pixel at least this bright counts as ink
LEAST, MOST = 0.01, 0.35  # share of the pixels that a digit inks
EXTENT = 24  # most rows, and most columns, that a digit reaches over; it is placed in a box of 20
COHERENCE = 1.3  # fewest inked neighbours, of four, of an inked pixel; strokes have 3
SIDE = 28
IMAGE_BYTES = SIDE * SIDE
INK = bytes(INKED) + b"\1" * (256 - INKED)  # 1 for ink, as bytes.translate takes it
ROW = 8 * SIDE  # bits
NOT_LAST = int.from_bytes((b"\1" * (SIDE - 1) + b"\0") * SIDE, "little")  # of each row
UNSURE = 0.5  # without thresholds, no label is told below this probability of the likeliest class
TOGETHER = 8  # images in one run of the nets
MOST_LOOKS = 16  # most overlays of a STRIP: each is one more look at every image
GOLDEN = np.zeros((SIDE, SIDE), np.uint8)  # a stroke, to which the answer must stay the same
GOLDEN[4:24, 13:15] = 255
GOLDEN.flags.writeable = False


def refuse(image: NDArray[np.uint8] | bytes) -> Reason | None:
    """Return why this image (28, 28) is no digit, or None where it may be one."""
    content = bytes(image)
    ink = content.translate(INK)
    inked = ink.count(1)
    if not LEAST <= inked / IMAGE_BYTES <= MOST:
        return "not_a_digit" if inked or max(content) >= FAINT else "empty"
    # One long number, a byte for each pixel: a few operations on it are a tenth of NumPy's calls.
    pixels = columns = int.from_bytes(ink, "little")
    for rows in (14, 7, 4, 2, 1):  # all rows are laid over the first
        columns |= columns >> ROW * rows
    columns &= (1 << ROW) - 1
    first, last = (columns & -columns).bit_length() - 1, columns.bit_length() - 1
    across, down = (last - first) // 8 + 1, ink.rfind(1) // SIDE - ink.find(1) // SIDE + 1
    if max(across, down) > EXTENT:
        return "not_a_digit"
    beside = (pixels & pixels >> 8 & NOT_LAST).bit_count() + (pixels & pixels >> ROW).bit_count()
    return "not_a_digit" if 2 * beside / inked < COHERENCE else None


class Answer(NamedTuple):
    """What the engine says of one image: a label, or the reason why there is none."""

    label: int | None
    reason: Reason | None = None
    nearest: int | None = None  # the label that was nearly told, where the reason is `unsure`
    confidences: tuple[float, ...] = ()  # softmax; empty where the net was not asked or believed


class Engine:
    """A verified model, ready to classify images of 28x28 grey pixels, ink bright."""

    squeeze: float | None = None  # the distance at which squeezed images call it adversarial
    leaving = False  # the server is about to end: see `purpleteam.serve.server`

    def __init__(
        self,
        card: ModelCard,
        session: Any,
        strip: Strip | None = None,
        held: Held | None = None,
        digit_or_not: DigitOrNot | None = None,
    ) -> None:
        """Take a net and what guards it; `digit_or_not` needs thresholds in the card."""
        self.card, self.strip, self._session = card, strip, session
        self._digit_or_not, self._thresholds = digit_or_not, None
        if digit_or_not is not None:
            self._thresholds = Thresholds.of(card.refusal or {}, card.name)
        self.held = held  # of the weights on record, what the net holds; None if it cannot be said
        self.confinement: Confinement | None = None  # of the process, once it is confined
        inputs = session.get_inputs()
        shapes = [list(row.shape) for row in inputs]
        if len(inputs) != 1 or shapes[0][1:] != [1, SIDE, SIDE]:
            takes = f"takes {shapes}, and the app serves (N, 1, 28, 28) only"
            raise ModelError(f"model {card.name!r} {takes}")
        if inputs[0].type != "tensor(float)" or len(session.get_outputs()) != 1:
            no_map = "is no map from one float32 image to one set of logits"
            raise ModelError(f"model {card.name!r} {no_map}")
        self._input, self._outputs = str(inputs[0].name), [str(session.get_outputs()[0].name)]
        self.together = 1 if shapes[0][0] == 1 else TOGETHER  # an exporter may fix the batch
        self._golden = self.logits(GOLDEN)
        if self._golden.shape != (len(card.classes),):
            wanted = f"not one for each of its {len(card.classes)} classes"
            got = f"answers with {self._golden.shape} logits"
            raise ModelError(f"model {card.name!r} {got}, {wanted}")

    @classmethod
    def load(
        cls,
        reference: str,
        strip: Path | None = None,
        identity: str | None = None,
        squeeze: float | None = None,
        signer: Path | None = None,
    ) -> Engine:
        """Load the stored model of a zoo name or a path, and the STRIP that was fitted to it.

        A model of another `identity`, or not signed by the public key in the file `signer`, is
        refused. `squeeze` is from `defences.detection.squeeze`.
        """
        stored = find_stored(reference)
        if signer is not None:
            # Imported where it is asked for: each worker would pay for it.
            from purpleteam.core.provenance import require_signature
            from purpleteam.core.signing import public_key

            require_signature(stored, public_key(signer))
        stored.verify()
        if identity not in (None, stored.card.identity):
            raise Refused(f"model {reference!r} is {stored.card.identity}, not {identity}")
        card, guard = stored.card, None if strip is None else Strip.load(strip)
        if guard is not None:
            looks, *shape = guard.overlays.shape
            if guard.model_digest not in (None, card.digest):
                other = f"the model {guard.model_digest}, not to {card.name!r}, {card.digest}"
                raise UsageError(f"{str(strip)!r} was fitted to {other}")
            if shape != [SIDE, SIDE, 1]:
                served = f"{tuple(shape)}, and the app serves (28, 28, 1) only"
                raise UsageError(f"{str(strip)!r} has overlays {served}")
            if looks > MOST_LOOKS:
                most = f"{looks} overlays; the app takes up to {MOST_LOOKS}"
                raise UsageError(f"{str(strip)!r} has {most}")
        content, found = stored.onnx.read_bytes(), None
        session = open_session(stored, content)
        with suppress(ModelError):
            found = held(content, stored.weights.read_bytes())
        second = None if card.refusal is None else open_digit_or_not()
        engine = cls(card, session, guard, found, second)
        engine.squeeze = squeeze
        return engine

    def classify(self, pixels: bytes) -> Answer:
        """Answer one image of 784 bytes."""
        return self.classify_all([pixels])[0]

    def classify_all(self, images: Sequence[bytes]) -> list[Answer]:
        """Answer images of 784 bytes each, as each would be answered alone.

        The nets look at up to `together` of them in one run, which is what costs the least.
        """
        reasons = [refuse(pixels) for pixels in images]
        asked = [pixels for pixels, reason in zip(images, reasons, strict=True) if reason is None]
        answers: list[Answer] = []
        for start in range(0, len(asked), self.together):
            answers += self._look(asked[start : start + self.together])
        looked_at = iter(answers)
        return [next(looked_at) if reason is None else Answer(None, reason) for reason in reasons]

    def _look(self, images: Sequence[bytes]) -> list[Answer]:
        """Answer images that may be digits."""
        pixels = np.frombuffer(b"".join(images), np.uint8).reshape(len(images), IMAGE_BYTES)
        batch = _batch(pixels)
        shares = [softmax(logits) for logits in self._run(batch).tolist()]
        doubts = self._doubts(batch, [max(likely) for likely in shares])
        return [
            self._answer(image, likely, doubt)
            for image, likely, doubt in zip(pixels, shares, doubts, strict=True)
        ]

    def _answer(
        self, image: NDArray[np.uint8], likely: tuple[float, ...], doubt: Reason | None
    ) -> Answer:
        label = likely.index(max(likely))
        if doubt == "not_a_digit":
            return Answer(label=None, reason=doubt, confidences=likely)
        one = image.reshape(1, SIDE, SIDE, 1)
        if self.squeeze is not None:
            apart = distances(self._answers, one, np.array([likely]))[0]
            if apart > self.squeeze:
                return Answer(label=None, reason="adversarial")
        if self.strip is not None and self.strip.triggered(self._answers, one)[0]:
            # its confidences would tell the label that the trigger forces
            return Answer(label=None, reason="triggered")
        if doubt is not None:
            return Answer(label=None, reason=doubt, nearest=label, confidences=likely)
        return Answer(label=label, confidences=likely)

    def _doubts(
        self, batch: NDArray[np.float32], likely: Sequence[float]
    ) -> Sequence[Reason | None]:
        """Return why the likeliest labels of images, of these probabilities, are not told."""
        if self._digit_or_not is None or self._thresholds is None:
            return [None if share >= UNSURE else "not_a_digit" for share in likely]
        sure, nearest = self._thresholds.sure, self._thresholds.nearest
        return [
            None if score >= sure else "unsure" if score >= nearest else "not_a_digit"
            for score in self._digit_or_not.scores(batch, likely)
        ]

    def score(self, image: NDArray[np.uint8]) -> float:
        """Return how surely an image (28, 28) is a digit, and the one that the model takes it for.

        It is a logarithm of probabilities, at most 0 (`serve.doubt`).
        """
        if self._digit_or_not is None:
            raise ModelError(f"model {self.card.name!r} is served without a second net")
        likely = max(softmax(self.logits(image).tolist()))
        return self._digit_or_not.scores(_batch(image), [likely])[0]

    def logits(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the logits (classes,) of an image (28, 28)."""
        logits: NDArray[np.float32] = self._run(_batch(image))[0]
        return logits

    def _run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self._session.run(self._outputs, {self._input: batch})[0]
        return logits

    def _answers(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return probabilities (N, classes) for images (N, 28, 28, 1), one look at a time."""
        return np.array([softmax(self.logits(image[..., 0]).tolist()) for image in images])

    def healthy(self) -> bool:
        """Return whether GOLDEN still gives the logits that it gave at the start."""
        logits = self.logits(GOLDEN)
        return bool(np.isfinite(logits).all() and np.array_equal(logits, self._golden))


def _batch(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return images of 784 pixels as a net takes them: (N, 1, 28, 28), in [0, 1]."""
    return np.divide(images, np.float32(255), dtype=np.float32).reshape(-1, 1, SIDE, SIDE)


def open_session(stored: StoredModel, content: bytes | None = None) -> Any:
    """Open the stored net in ONNX Runtime, from bytes that are those of its card."""
    # The bytes that are digested are the bytes that run, also where the file is exchanged.
    content = stored.onnx.read_bytes() if content is None else content
    if (digest := sha256_bytes(content)) != stored.card.onnx_digest:
        raise Refused(f"{str(stored.onnx)!r} is not the file of its card: {digest}")
    return _session(content, str(stored.onnx))


def open_digit_or_not() -> DigitOrNot:
    """Open the second net, which all models share."""
    return DigitOrNot(_session(read_net(), "digit_or_not"))


def _session(content: bytes, name: str) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtra("onnxruntime", "serve") from None
    options = onnxruntime.SessionOptions()
    # The net takes some 60 microseconds: more threads only fight over the cores.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        why = f"cannot be run by ONNX Runtime: {reason_of(error)}"
        raise ModelError(f"{name!r} {why}") from None
