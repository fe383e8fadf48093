"""Classifiers that answer and tell nothing else: no weights, no gradient; and ONNX files as such.

A deployed app and an ONNX file are asked like a net: images in [0, 1] go in, a row of scores for
each comes out. Who gives labels alone is written as one-hot rows, who gives confidences as
log-probabilities, so `argmax` means the label everywhere. An image that is refused ("this is no
digit") has a row of NaN: the adversary wanted another label and got none, so a refusal never
counts as an error that an attack made, and never as a right answer either.
"""

from __future__ import annotations

import copy
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from purpleteam.core.cards import ModelCard
from purpleteam.core.digest import sha256_bytes
from purpleteam.core.errors import MissingExtra, ModelError, Refused, UsageError
from purpleteam.models.adapters import Normalisation, check_count

Gives = Literal["labels", "scores"]
Shape = tuple[int | None, int | None, int | None]
"""Channels, height and width; None where any will do."""

REFUSED = -1
"""Stands in `answers` where a label would stand."""
LEVELS = 255


class BlackBox(nn.Module, ABC):
    """A classifier of which only the answers are known; it is a module without parameters.

    Attributes:
        name: what records call it.
        digest: what it was; see `notes` for how much that is worth.
        shape: channels, height and width of the images it takes; None where any will do.
        classes: number of scores that it gives an image.
        gives: whether it tells labels alone, or scores.
        card: the card of a stored model.
        notes: what a reader of its numbers should know.
        calls: images that were really sent and answered; `ask` counts them.
        refusals: images that were answered without a label.
    """

    differentiable = False
    quantised = True
    """Whether images reach it as bytes; the adversary's precision is lost on the way."""

    def __init__(
        self,
        name: str,
        *,
        digest: str,
        shape: Shape,
        classes: int,
        gives: Gives,
        card: ModelCard | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.name = name
        self.digest = digest
        self.shape = shape
        self.classes = classes
        self.gives: Gives = gives
        self.card = card
        self.notes = notes
        self.refusals = 0
        self.calls = 0
        self._order: tuple[tuple[str, ...], tuple[int, ...]] | None = None

    @property
    def waited(self) -> float:
        """Seconds that were spent waiting because the classifier asked for that."""
        return 0.0

    def forward(self, x: Tensor) -> Tensor:
        """Return scores (N, classes) for images (N, C, H, W); NaN where one was refused."""
        shape = tuple(x.shape[1:])
        if len(shape) != len(self.shape) or any(
            want not in (None, have) for want, have in zip(self.shape, shape, strict=True)
        ):
            takes = ", ".join("any" if side is None else str(side) for side in self.shape)
            raise ModelError(f"model {self.name!r} takes images ({takes}), not {shape}")
        images = x.detach().cpu().float()
        if self.quantised:
            images = torch.from_numpy(as_bytes(images)).float() / LEVELS
        scores = self.ask(images) if len(x) else images.new_empty(0, self.classes)
        if self._order is not None:
            names, order = self._order
            check_count(scores, names)
            scores = scores[:, order]
        self.refusals += int(scores.isnan().any(1).sum())
        return scores.to(x.device)

    def order(self, names: tuple[str, ...], order: tuple[int, ...]) -> None:
        """Give the scores in another order of classes from now on, or those of some classes.

        Args:
            names: of all scores, as they come.
            order: the places of the wanted ones.
        """
        if self.gives == "labels" and len(order) < len(names):
            raise ModelError(f"model {self.name!r} gives labels: it cannot choose among some")
        self._order = names, order

    @property
    def is_ordered(self) -> bool:
        """Whether its scores are brought into the order of the data's classes."""
        return self._order is not None

    def answers(self, x: Tensor) -> Tensor:
        """Return the labels (N,), int64, and `REFUSED` where there is none."""
        scores = self(x)
        labels = scores.nan_to_num().argmax(1)
        return torch.where(scores.isnan().any(1), REFUSED, labels)

    @abstractmethod
    def ask(self, images: Tensor) -> Tensor:
        """Return float32 scores (N, classes) for images on the CPU, in steps of 1/255."""

    def close(self) -> None:
        """Give back what is held open; nothing, here."""

    def __deepcopy__(self, memo: object) -> BlackBox:
        """Return the classifier itself: there is one app, and a copy would be the same one."""
        return self


def as_bytes(x: Tensor) -> NDArray[np.uint8]:
    """Return images in [0, 1] as the bytes that are sent: steps of 1/255, the nearest one."""
    if not torch.isfinite(x).all():
        raise ModelError("an image holds NaN or infinity, which cannot be sent")
    images: NDArray[np.uint8] = (x.clamp(0, 1) * LEVELS).round().byte().cpu().numpy()
    return images


def log_scores(probabilities: Tensor, faintest: float) -> Tensor:
    """Return the logarithm of probabilities (N, classes), none below `faintest`."""
    return probabilities.clamp_min(faintest).log().float()


FAINTEST = float(np.finfo(np.float32).tiny)
"""Probabilities below this are 0 in float32, and a logarithm must not be infinite."""
USUAL_SIDE = 28
"""Where the file leaves height or width open, it is tried with this."""
KINDS = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
}
CHANNELS = (1, 3)
"""What tells images (N, H, W, C) from (N, C, H, W)."""


class OnnxFile(BlackBox):
    """A net as a file, run in ONNX Runtime. Beside a card it must have that model's digest."""

    normalisation: Normalisation | None = None
    """The layer that `behind` put in front of it."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            ModelError: it is missing or broken, reads its weights from elsewhere, or is no map
                from images (N, C, H, W) to scores (N, classes).
            Refused: it is not the file of the card beside it.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ModelError(f"model file {str(path)!r} cannot be read: {error.strerror}") from None
        digest = sha256_bytes(content)
        beside = path.with_suffix(".json")
        card = ModelCard.read(beside) if beside.is_file() else None
        if card is not None and card.onnx_digest != digest:
            raise Refused(f"{str(path)!r} is not the file of its card: {digest}")
        self._path = str(path)
        self._session = _session(self._path, content)
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type not in KINDS or len(inputs[0].shape) != 4:
            form = ", ".join(f"{one.name} {one.type} {one.shape}" for one in inputs)
            raise ModelError(
                f"{self._path!r} takes {form}; known: one input (N, C, H, W) or (N, H, W, C), "
                "of float32, float64, float16 or uint8: export it anew with such a one"
            )
        self._input = inputs[0]
        self._batch, *sides = (side if isinstance(side, int) else None for side in inputs[0].shape)
        self._channels_last = sides[2] in CHANNELS and sides[0] not in CHANNELS
        channels, height, width = sides[-1:] + sides[:-1] if self._channels_last else sides
        self._output, notes = self._scores_among(self._session.get_outputs())
        if self._channels_last:
            notes += ("it takes images (N, H, W, C): they are turned",)
        scores = self._run(_samples((channels, height, width)))
        super().__init__(
            card.name if card else path.stem,
            digest=digest,
            shape=(channels, height, width),
            classes=scores.shape[1],
            gives="scores",
            card=card,
            notes=(*notes, "the file is asked as a black box: no gradients"),
        )
        self._probabilities = _are_probabilities(scores)
        if card is not None and len(card.classes) != self.classes:
            raise ModelError(
                f"{self._path!r} scores {self.classes} classes, its card {len(card.classes)}"
            )

    def behind(self, normalisation: Normalisation) -> OnnxFile:
        """Return the file with a normalisation in front of it, which follows the bytes."""
        if KINDS[self._input.type] is np.uint8:
            raise UsageError(f"a normalisation goes before a net, and {self._path!r} takes bytes")
        made = copy.copy(self)
        made.normalisation = normalisation
        made._probabilities = _are_probabilities(made._run(_samples(self.shape)))
        return made

    def ask(self, images: Tensor) -> Tensor:
        """Return float32 scores (N, classes): logits, or the logarithm of probabilities."""
        scores = self._run(images)
        self.calls += len(images)
        return log_scores(scores, FAINTEST) if self._probabilities else scores

    def _run(self, images: Tensor) -> Tensor:
        """Return what the file answers, in batches of the size that it was made for."""
        if self.normalisation is not None:
            images = self.normalisation(images)
        kind = KINDS[self._input.type]
        pixels = as_bytes(images) if kind is np.uint8 else images.numpy().astype(kind)
        if self._channels_last:
            pixels = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
        size = self._batch or len(pixels)
        parts = []
        for start in range(0, len(pixels), size):
            part = pixels[start : start + size]
            full = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
            try:
                (scores,) = self._session.run([self._output], {self._input.name: full})
            except Exception as error:
                raise ModelError(f"{self._path!r} cannot be run: {_one_line(error)}") from None
            if not isinstance(scores, np.ndarray) or scores.ndim != 2 or len(scores) != size:
                form = getattr(scores, "shape", type(scores).__name__)
                raise ModelError(
                    f"{self._path!r} answered with {form}, not scores ({size}, classes)"
                )
            if not np.issubdtype(scores.dtype, np.floating) or not np.isfinite(scores).all():
                raise ModelError(f"{self._path!r} answered with NaN, infinity or no real numbers")
            parts.append(scores[: len(part)])
        return torch.from_numpy(np.concatenate(parts)).float()

    def _scores_among(self, outputs: list[Any]) -> tuple[str, tuple[str, ...]]:
        """Return the output that gives scores, and what is to be said of that."""
        if len(outputs) == 1:
            return outputs[0].name, ()
        floats = {kind for kind, number in KINDS.items() if np.issubdtype(number, np.floating)}
        fitting = [
            one.name
            for one in outputs
            if one.type in floats and len(one.shape) == 2 and one.shape[1] != 1
        ]
        if len(fitting) != 1:
            form = ", ".join(f"{one.name} {one.type} {one.shape}" for one in outputs)
            raise ModelError(
                f"{self._path!r} gives {form}; known: one output (N, classes) of scores: export "
                "it anew with that one alone"
            )
        name = fitting[0]
        return name, (f"of its {len(outputs)} outputs {name!r} is taken for the scores",)


def _session(name: str, content: bytes) -> Any:
    """Open the file; what it would read from other files is looked for where nothing is."""
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtra("onnxruntime", "lab") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory() as empty:
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", empty
        )
        try:
            return onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            reason = _one_line(error)
            if "xternal data" in reason:
                reason = "it reads its weights from other files, which is not allowed"
            raise ModelError(f"{name!r} cannot be opened by ONNX Runtime: {reason}") from None


def _samples(shape: Shape) -> Tensor:
    """Return two images to try the file on: a black one, and one from dark to bright."""
    channels, height, width = shape
    images = torch.zeros(2, channels or 1, height or USUAL_SIDE, width or USUAL_SIDE)
    images[1] = torch.linspace(0, 1, images[1].numel()).reshape(images[1].shape)
    return images


def _are_probabilities(scores: Tensor) -> bool:
    in_range = bool(((scores >= 0) & (scores <= 1)).all())
    return in_range and bool(((scores.sum(1) - 1).abs() < 1e-3).all())


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
