"""Stored models without torch: where their three files are, what the card says, digests.

`<name>.safetensors` are the weights, whose SHA-256 is the model's digest, `<name>.onnx` is what the
app runs, `<name>.json` the card.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any, Self

from purpleteam.core.digest import canonical_json, sha256_bytes, sha256_file
from purpleteam.core.errors import ModelError, Refused, unknown

FORMATS = (".safetensors", ".onnx", ".json")
BOUND = ("digest", "onnx_digest", "classes", "input", "normalisation", "refusal")
"""Fields of a card that decide what the app answers; `refusal` has the digest of its net."""
ZOO: Mapping[str, str] = {
    "certified-0.3": "sha256:cbd28c31f21f5fb893e0b93c53eae9033694c4f1ba4a8916d076cdbc70c75dde",
    "certified-0.1": "sha256:0cabee334fc7c4ff9ebd4165b572a7aeb3f73f1b8a3b98c39b6c047e5c223777",
    "robust-0.3": "sha256:c11cdcd098f045f9a686f02a223f5060193933b56165dac6b7dab51eb8d90c1a",
    "standard": "sha256:f6faa0387796b7ae650cc3c96f735c937e3d9e12fd2ee0f9b81f6596c9d5b039",
}
"""The identities of the models that ship in the package."""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What is known of a stored model; written beside its weights as JSON."""

    name: str
    digest: str  # SHA-256 of the .safetensors file
    onnx_digest: str
    architecture: str  # name in the registry, or `module:factory`
    input: Mapping[str, Any]  # `channels`, `height`, `width`, and `range`, which is [0, 1]
    classes: tuple[str, ...]  # names in the order of the net's outputs; numbers where nobody said
    normalisation: Mapping[str, Any] | None = None
    """`name`, `mean`, `std` of the layer in front, and `clip` where it clips to [0, 1]."""
    recipe: Mapping[str, Any] = field(default_factory=dict)  # with the seed; empty if not known
    data_digest: str | None = None  # digest of the training images and labels
    parent: str | None = None  # digest of the model or file that this one was made from
    converted_from: str | None = None  # the number format, where the weights were not float32
    validation_accuracy: float | None = None
    versions: Mapping[str, str] = field(default_factory=dict)  # of the packages that made it
    onnx_difference: float | None = None  # largest difference of logits between the two nets
    refusal: Mapping[str, Any] | None = None
    """From which score on the app tells a label (`serve.doubt`): `net`, `sure`, `nearest`."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the images it takes; ModelError where it does not say."""
        sides = [self.input.get(key) for key in ("channels", "height", "width")]
        if not all(isinstance(side, int) and side > 0 for side in sides):
            raise ModelError(f"model card {self.name!r} does not say what images it takes")
        channels, height, width = map(int, sides)  # type: ignore[arg-type]
        return channels, height, width

    @property
    def identity(self) -> str:
        """The one digest of all that decides an answer: files, classes, input and thresholds.

        The digest of the weights alone does not say which ONNX file answers in their name.
        """
        return sha256_bytes(canonical_json({name: getattr(self, name) for name in BOUND}).encode())

    def write(self, path: Path) -> None:
        """Write the card as JSON."""
        path.write_text(json.dumps(asdict(self), indent=2, sort_keys=True) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a card; an unreadable or incomplete one is a ModelError."""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ModelError(f"model card {str(path)!r} cannot be read: {error}") from None
        return cls.parse(content, path)

    @classmethod
    def parse(cls, content: bytes, path: Path) -> Self:
        """Read the content of a card, which lies at `path`."""
        try:
            values = json.loads(content.decode("utf-8"))
            known = {part.name for part in fields(cls)}
            values = {key: value for key, value in values.items() if key in known}
            card = cls(**{**values, "classes": tuple(values["classes"])})
            canonical_json(values)  # which knows no NaN
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ModelError(f"model card {str(path)!r} cannot be read: {error}") from None
        if not isinstance(card.input, dict) or not isinstance(values["classes"], list):
            raise ModelError(f"model card {str(path)!r} cannot be read: input or classes are amiss")
        return card


@dataclass(frozen=True)
class StoredModel:
    """The three files of a model and its card."""

    stem: Path
    card: ModelCard
    card_digest: str = field(default="", compare=False)  # of the bytes that the card was read from

    @property
    def weights(self) -> Path:
        """The .safetensors file."""
        return self.stem.with_name(self.stem.name + ".safetensors")

    @property
    def onnx(self) -> Path:
        """The .onnx file."""
        return self.stem.with_name(self.stem.name + ".onnx")

    @property
    def shipped(self) -> bool:
        """Whether it is a model of the package, whose source pins its identity."""
        return self.stem.parent == _zoo()

    def verify(self) -> None:
        """Refuse files whose digests are not those of the card, and a changed model of ours."""
        for path, digest in ((self.weights, self.card.digest), (self.onnx, self.card.onnx_digest)):
            if not path.exists():
                raise ModelError(f"model file {str(path)!r} is missing")
            if (actual := sha256_file(path)) != digest:
                raise Refused(f"{str(path)!r} is not the file of its card: {actual}, not {digest}")
        identity, pinned = self.card.identity, ZOO.get(self.stem.name)
        if self.shipped and identity != pinned:
            raise Refused(f"{str(self.stem)!r} is not the model of the package: {identity}")


def zoo_names() -> list[str]:
    """Return the names of the models that ship in the package."""
    return sorted(path.stem for path in _zoo().glob("*.json"))


def find_stored(reference: str) -> StoredModel:
    """Return the model that a zoo name or a path (any of its three files, or its stem) means."""
    names, path = zoo_names(), Path(reference)
    if reference in names:
        stem = _zoo() / reference
    elif not path.name:
        raise ModelError(f"{unknown('model', reference, names)}; or the path of a stored model")
    else:
        stem = path.with_suffix("") if path.suffix in FORMATS else path
    card = stem.with_name(f"{stem.name}.json")
    if path.is_file() and path.suffix not in FORMATS and reference not in names:
        problem = "is not a stored model"
    elif card.is_file():
        content = card.read_bytes()
        return StoredModel(stem, ModelCard.parse(content, card), sha256_bytes(content))
    elif path.is_file():
        problem = f"has no card {str(card)!r} beside it"
    else:
        raise ModelError(f"{unknown('model', reference, names)}; or the path of a stored model")
    remedy = f"make it a stored model with: purple import {reference} --arch NAME"
    raise ModelError(f"{reference!r} {problem}; {remedy}")


def _zoo() -> Path:
    return Path(str(resources.files("purpleteam"))) / "zoo"
