"""Classifiers that answer and tell nothing else: no weights, no gradient; and ONNX files as such.

They are asked like a net: images in [0, 1] go in, a row of scores for each comes out. Labels alone
are written as one-hot rows, confidences as log-probabilities, so `argmax` means the label. A
refused image ("this is no digit") has a row of NaN: neither a right answer nor an attack's success.

A Python object is one too, unless its call lets gradients through, or the `model` of a MAITE model
(https://mit-ll-ai-technology.github.io/maite; it gets a sequence of images) is a net that answers
the same. A classifier with scikit-learn's methods is asked as those are (`estimators`).
"""

import copy
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from purpleteam.core.arrays import Pixels
from purpleteam.core.cards import ModelCard
from purpleteam.core.digest import sha256_bytes
from purpleteam.core.errors import MissingExtra, ModelError, Refused, UsageError, reason_of
from purpleteam.models.adapters import Normalisation
from purpleteam.models.devices import device_of
from purpleteam.models.estimators import ask_estimator, gives_of, is_estimator
from purpleteam.models.guard import Order, scores_in
from purpleteam.models.weights import digest_of, tensors_of

Gives = Literal["labels", "scores"]
Shape = tuple[int | None, int | None, int | None]  # channels, height, width; None for any
LEVELS = 255


class BlackBox(nn.Module, ABC):
    """A classifier of which only the answers are known; its notes say what its digest is worth."""

    differentiable = False
    quantised = True  # images reach it as bytes; the adversary's precision is lost on the way
    waited = 0.0  # seconds, because the classifier asked for that
    blind = ""  # why no gradient of it is known, where it might have had one

    def __init__(
        self,
        name: str,
        *,
        digest: str,
        shape: Shape,
        classes: int,
        gives: Gives = "scores",
        card: ModelCard | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.name, self.digest, self.shape, self.classes = name, digest, shape, classes
        self.gives: Gives = gives
        self.card, self.notes = card, notes
        self.normalisation: Normalisation | None = None
        self.order: Order | None = None
        self.calls = 0  # images that were sent and answered; `ask` counts them
        self.refusals = 0  # of them, those answered without a label

    def forward(self, x: Tensor) -> Tensor:
        """Return scores (N, classes) for images (N, C, H, W); NaN where one was refused."""
        shape = tuple(x.shape[1:])
        pairs = zip(self.shape, shape, strict=False)
        if len(shape) != len(self.shape) or any(want not in (None, have) for want, have in pairs):
            takes = ", ".join("any" if side is None else str(side) for side in self.shape)
            raise ModelError(f"model {self.name!r} takes images ({takes}), not {shape}")
        images = x.detach().cpu().float()
        if self.quantised:
            images = torch.from_numpy(as_bytes(images)).float() / LEVELS
        if self.normalisation is not None:
            images = self.normalisation(images)
        scores = self.ask(images) if len(x) else images.new_empty(0, self.classes)
        if self.order is not None:
            scores = self.order(scores)
        self.refusals += int(scores.isnan().any(1).sum())
        return scores.to(x.device)

    @abstractmethod
    def ask(self, images: Tensor) -> Tensor:
        """Return float32 scores (N, classes) for images on the CPU, in steps of 1/255."""

    def __deepcopy__(self, memo: object) -> Self:
        return self  # there is one app


def as_bytes(x: Tensor) -> Pixels:
    """Return images in [0, 1] as the bytes that are sent: steps of 1/255, the nearest one."""
    if not torch.isfinite(x).all():
        raise ModelError("an image holds NaN or infinity, which cannot be sent")
    images: Pixels = (x.clamp(0, 1) * LEVELS).round().byte().cpu().numpy()
    return images


def log_scores(probabilities: Tensor, faintest: float) -> Tensor:
    """Return the logarithm of probabilities (N, classes), none below `faintest`."""
    return probabilities.clamp_min(faintest).log().float()


def distributions(scores: Tensor) -> Tensor:
    """Say which rows of scores (N, classes) are probabilities that add up to 1."""
    return (scores >= 0).all(1) & ((scores.sum(1) - 1).abs() < NEAR)


NEAR = 1e-3  # how far probabilities may be from adding up to 1, two ways to the same scores apart
FAINTEST = float(np.finfo(np.float32).tiny)  # below this a probability is 0 in float32
USUAL_SIDE = 28  # where the file leaves height or width open, it is tried with this
KINDS = {
    **{"tensor(float)": np.float32, "tensor(double)": np.float64},
    **{"tensor(float16)": np.float16, "tensor(uint8)": np.uint8},
}
PROBES = 4  # images of noise whose answers are part of the digest of a function without weights
CHANNELS = (1, 3)  # what tells images (N, H, W, C) from (N, C, H, W)


class OnnxFile(BlackBox):
    """A net as a file, run in ONNX Runtime. Beside a card it must have that model's digest.

    Every score is ONNX Runtime's. Where the layers of its graph are known (`with_layers`), the
    gradient is theirs, and images reach the file unrounded, as they reach any net.
    """

    layers: Callable[[Tensor], Tensor] | None = None

    def __init__(self, path: Path) -> None:
        """Open the file; a ModelError where it is no map from images (N, C, H, W) to scores."""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ModelError(f"model file {str(path)!r} cannot be read: {error.strerror}") from None
        digest, beside = sha256_bytes(content), path.with_suffix(".json")
        card = ModelCard.read(beside) if beside.is_file() else None
        if card is not None and card.onnx_digest != digest:
            raise Refused(f"{str(path)!r} is not the file of its card: {digest}")
        self.path = str(path)
        self._session = session_of(self.path, content)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or inputs[0].type not in KINDS or len(inputs[0].shape) != 4:
            known = "one input (N, C, H, W) or (N, H, W, C), of float32, float64, float16 or uint8"
            takes = f"takes {_form(inputs)}; known: {known}: export it anew with such a one"
            raise ModelError(f"{self.path!r} {takes}")
        self._input, self._kind = inputs[0].name, KINDS[inputs[0].type]
        self._batch, *sides = (side if isinstance(side, int) else None for side in inputs[0].shape)
        self.channels_last = sides[2] in CHANNELS and sides[0] not in CHANNELS
        channels, height, width = sides[-1:] + sides[:-1] if self.channels_last else sides
        fitting = outputs
        if len(outputs) > 1:
            floats = [node for node in outputs if node.type in KINDS and "uint8" not in node.type]
            fitting = [node for node in floats if len(node.shape) == 2 and node.shape[1] != 1]
        if len(fitting) != 1:
            known = "one output (N, classes) of scores: export it anew with that one alone"
            raise ModelError(f"{self.path!r} gives {_form(outputs)}; known: {known}")
        self.output = fitting[0].name
        notes: list[str] = []
        if self.channels_last:
            notes.insert(0, "it takes images (N, H, W, C): they are turned")
        if (count := len(outputs)) > 1:
            notes.insert(0, f"of its {count} outputs {self.output!r} is taken for the scores")
        # a black image, and one from dark to bright
        sample = torch.zeros(2, channels or 1, height or USUAL_SIDE, width or USUAL_SIDE)
        sample[1] = torch.linspace(0, 1, sample[1].numel()).reshape(sample[1].shape)
        scores = self._run(sample)
        super().__init__(
            card.name if card else path.stem,
            digest=digest,
            shape=(channels, height, width),
            classes=scores.shape[1],
            card=card,
            notes=tuple(notes),
        )
        self._sample, self._probabilities = sample, bool(distributions(scores).all())
        if card is not None and (own := len(card.classes)) != self.classes:
            raise ModelError(f"{self.path!r} scores {self.classes} classes, its card {own}")

    @property
    def takes_bytes(self) -> bool:
        """Whether its images are bytes, not numbers in [0, 1]."""
        return self._kind is np.uint8

    def behind(self, normalisation: Normalisation) -> Self:
        """Return the file with a normalisation in front of it, which follows the bytes."""
        if self.takes_bytes:
            raise UsageError(f"a normalisation goes before a net, and {self.path!r} takes bytes")
        made = copy.copy(self)
        made.normalisation, made.layers = normalisation, None
        scores = self._run(normalisation(self._sample))
        made._probabilities = bool(distributions(scores).all())
        return made

    def with_layers(self, layers: Callable[[Tensor], Tensor]) -> Self:
        """Return the file with a differentiable replica of its graph, its normalisation and order.

        The replica takes images (N, C, H, W) in [0, 1] and returns the logits (N, classes), also
        where the file itself returns their softmax.
        """
        made = copy.copy(self)
        made.layers, made.differentiable, made.quantised = layers, True, False
        return made

    def forward(self, x: Tensor) -> Tensor:
        """Return ONNX Runtime's scores (N, classes), with the gradient of the layers if known."""
        scores = super().forward(x)
        if self.layers is None or not (torch.is_grad_enabled() and x.requires_grad):
            return scores
        replica = self.layers(x)
        return scores + (replica - replica.detach())

    def ask(self, images: Tensor) -> Tensor:
        scores = self._run(images)
        self.calls += len(images)
        return log_scores(scores, FAINTEST) if self._probabilities else scores

    def _run(self, images: Tensor) -> Tensor:
        """Return what the file answers, in batches of the size that it was made for."""
        pixels = as_bytes(images) if self._kind is np.uint8 else images.numpy().astype(self._kind)
        if self.channels_last:
            pixels = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
        size = self._batch or len(pixels)
        parts = []
        for start in range(0, len(pixels), size):
            part = pixels[start : start + size]
            full = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
            try:
                (scores,) = self._session.run([self.output], {self._input: full})
            except Exception as error:
                raise ModelError(f"{self.path!r} cannot be run: {reason_of(error)}") from None
            if not isinstance(scores, np.ndarray) or scores.ndim != 2 or len(scores) != size:
                got = getattr(scores, "shape", type(scores).__name__)
                raise ModelError(f"{self.path!r} answered with {got}, not scores ({size}, classes)")
            if not np.issubdtype(scores.dtype, np.floating) or not np.isfinite(scores).all():
                raise ModelError(f"{self.path!r} answered with NaN, infinity or no real numbers")
            parts.append(scores[: len(part)])
        return torch.from_numpy(np.concatenate(parts)).float()


def session_of(name: str, content: bytes) -> Any:
    """Open an ONNX file; what it would read from other files is looked for where nothing is."""
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
            reason = reason_of(error)
            if "xternal data" in reason:
                reason = "it reads its weights from other files, which is not allowed: "
                reason += "export it with external_data=False"
            raise ModelError(f"{name!r} cannot be opened by ONNX Runtime: {reason}") from None


def _form(nodes: list[Any]) -> str:
    return ", ".join(f"{node.name} {node.type} {node.shape}" for node in nodes)


class ObjectClassifier(BlackBox):
    """A Python object from outside: it gives scores and, as far as is known, no gradient."""

    quantised = False

    def __init__(self, model: Any, name: str) -> None:
        super().__init__(name, digest="", shape=(None, None, None), classes=0)
        self.model = model
        self.net = net_of(model)
        self.call: Callable[[Any, Tensor], Tensor] = _ask
        named: Any = None
        if is_maite(model):
            self.call, named = _ask_maite, model.metadata.get("index2label")
        elif is_estimator(model):
            self.call, self.gives = ask_estimator, gives_of(model)
            named = dict(enumerate(np.asarray(getattr(model, "classes_", ())).tolist()))
        self.labels = tuple(str(named[number]) for number in sorted(named)) if named else None

    def ask(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            scores = _log_scores(self.call(self.model, images.to(device_of(self))))
        self.classes = scores.shape[1]
        self.calls += len(images)
        return scores.cpu()


class ObjectNet(nn.Module):
    """A Python object whose call lets gradients through; probabilities come as their logarithms."""

    def __init__(self, box: ObjectClassifier) -> None:
        super().__init__()
        self.model, self.call = box.model, box.call
        self.net = box.net  # known here, it follows `.to` and `.eval`

    def forward(self, x: Tensor) -> Tensor:
        return _log_scores(self.call(self.model, x))


def digest_of_code(
    model: object,
    shape: tuple[int, int, int] | None,
    state: object,
    ask: Callable[[Tensor], Tensor],
) -> tuple[str, str]:
    """Return the digest of a state dict, or of code alone, and what that digest is of."""
    if tensors := tensors_of(state):
        return digest_of(tensors), "its digest is of its state dict; its code is no part of it"
    known = [f"{getattr(model, '__module__', '')}.{name_of(model)}".encode()]
    parts = "name alone"
    if shape is not None:
        x = torch.rand((PROBES, *shape), generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            known.append(ask(x).cpu().numpy().tobytes())
        parts = f"name and its answers to {PROBES} images of noise"
    return sha256_bytes(*known), f"its digest is of its {parts}: its code is no part of it"


def name_of(model: object) -> str:
    """Return the name of a function, or of an object's class."""
    return str(getattr(model, "__name__", None) or type(model).__name__)


def is_maite(made: object) -> bool:
    """Say whether an object is called like a MAITE model and has its metadata."""
    metadata = getattr(made, "metadata", None)
    return callable(made) and isinstance(metadata, Mapping) and "id" in metadata


def net_of(model: object) -> nn.Module | None:
    """Return the net that the object is, or that a MAITE model has as its attribute `model`."""
    inner = getattr(model, "model", None) if is_maite(model) else None
    net = model if isinstance(model, nn.Module) else inner
    return net if isinstance(net, nn.Module) else None


def _ask_maite(model: Any, x: Tensor) -> Tensor:
    """Return the rows that a MAITE model answers, (N, classes)."""
    answer: Any = model([image.clone() for image in x])  # copies: it may change them
    try:
        rows = [row if isinstance(row, Tensor) else _from_array(row) for row in answer]
        scores = torch.stack(rows)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = reason_of(error)
        raise ModelError(f"the MAITE model returned no row of scores each: {reason}") from None
    if scores.ndim != 2 or len(scores) != len(x):
        raise ModelError(f"the MAITE model returned {tuple(scores.shape)}, not ({len(x)}, classes)")
    return scores.float().to(x.device)


def _ask(model: Any, x: Tensor) -> Tensor:
    """Return the scores (N, classes) of a callable, which gets an array where it wants one."""
    try:
        answer = model(x.clone())  # a copy: it may change it
    except Exception as error:
        if x.requires_grad:  # an array would lose the gradient: it has none to give
            raise
        try:
            answer = model(x.detach().cpu().numpy().copy())
        except Exception:  # so the form was not the matter
            raise error from None
    if isinstance(answer, list) or (hasattr(answer, "__array__") and not torch.is_tensor(answer)):
        answer = _from_array(answer)
    return scores_in(answer, len(x))[0].float().to(x.device)


def _from_array(row: Any) -> Tensor:
    return torch.from_numpy(np.array(row, np.float32))


def _log_scores(scores: Tensor) -> Tensor:
    """Return the logarithm of each row that is a distribution, any other row as it is."""
    logarithms = scores.clamp_min(torch.finfo(scores.dtype).tiny).log()
    return torch.where(distributions(scores)[:, None], logarithms, scores)
