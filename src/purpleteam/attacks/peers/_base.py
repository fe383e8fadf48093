"""What a borrowed attack is: a class made from the signature of the library's own.

Its fields are the norm, the radius and those options of the library that are plain numbers and
words, so that an unknown one is refused by name and the report shows what was run.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib
import inspect
import io
import logging
import random
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, make_dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from purpleteam.attacks.driver import Driver
from purpleteam.attacks.evasion import EvasionAttack, MinimumNormAttack
from purpleteam.attacks.noise import Noise
from purpleteam.attacks.norms import distance
from purpleteam.core.errors import UsageError
from purpleteam.models.guard import switched

log = logging.getLogger(__name__)

OURS = frozenset({"norm", "epsilon", "restarts", "queries", "samples", "stop_inside", "name"})
"""Words that have a meaning of ours; an option of that name stays at the library's default."""
NO_PLAIN_VALUE = re.compile("Callable|ndarray|list|List|dict|Attack|Distance|CLASSIFIER")
ROUNDING = 1e-6
"""How far float32 may leave the ball or the range without a word."""


@dataclass(frozen=True)
class Facts:
    """What is known of an attack before it is run."""

    make: Callable[..., Any]
    """The library's own class."""
    norms: tuple[str, ...]
    knowledge: str = "white-box"
    nearest: bool = False
    """It looks for the nearest adversarial example and knows no radius."""


@dataclass(frozen=True)
class Question:
    """What the library is asked: this model, these images, that ball."""

    model: nn.Module
    x: Tensor
    y: Tensor
    norm: str
    epsilon: float
    classes: int


class Library(ABC):
    """A library of attacks: what it is called, what it has, and how one of them is run."""

    name: ClassVar[str]
    """Its import name, which stands before the colon."""
    install: ClassVar[str] = "install purpleteam[peers]"
    hidden: ClassVar[frozenset[str]] = frozenset({"verbose", "targeted"})
    """Parameters that the adapter sets itself."""

    @abstractmethod
    def attacks(self) -> Mapping[str, Facts]:
        """Return its attacks on images by name."""

    @abstractmethod
    def run(self, facts: Facts, options: Mapping[str, Any], question: Question) -> Tensor:
        """Return the images that the library's attack makes, (N, C, H, W)."""

    def load(self, attack: str, module: str = "") -> Any:
        """Return one of the library's modules, or say in one line that it is not here."""
        try:
            with _silence():
                return importlib.import_module(f"{self.name}{module}")
        except ImportError as error:
            missing = str(error.name or self.name).partition(".")[0]
            raise UsageError(
                f"attack '{self.name}:{attack}' needs {missing}; {self.install}"
            ) from None

    def facts(self, attack: str) -> Facts:
        """Return what is known of one attack."""
        self.load(attack)
        known = self.attacks()
        if attack not in known:
            near = difflib.get_close_matches(attack, known, n=3, cutoff=0.4)
            said = f"nearest: {', '.join(near)}" if near else f"known: {', '.join(sorted(known))}"
            raise UsageError(f"unknown attack '{self.name}:{attack}'; {said}")
        return known[attack]


def borrowed(library: Library, attack: str) -> type[EvasionAttack]:
    """Return a class like our own attacks that runs the library's."""
    facts = library.facts(attack)
    options = _options(facts.make, library.hidden | OURS)
    return make_dataclass(
        re.sub(r"\W", "_", f"{library.name}_{attack}"),
        [("norm", str, field(default=facts.norms[0])), *options],
        bases=(_Borrowed, MinimumNormAttack if facts.nearest else EvasionAttack),
        namespace={
            "__module__": __name__,
            "__doc__": f"{attack} of {library.name}, run inside our evaluation.",
            "name": f"{library.name}:{attack}",
            "knowledge": facts.knowledge,
            "norms": facts.norms,
            "library": library,
            "facts": facts,
            "option_names": tuple(option[0] for option in options),
        },
        frozen=True,
        kw_only=True,
    )


class _Borrowed:
    """Hands the library the model and the batch, and says what came of it."""

    name: ClassVar[str]
    library: ClassVar[Library]
    facts: ClassVar[Facts]
    option_names: ClassVar[tuple[str, ...]]
    norm: str
    epsilon: float

    @property
    def planned_steps(self) -> int:
        """Steps a restart, by whatever word the library has for them."""
        words = ("steps", "max_iter", "n_queries", "nb_iter")
        return next((int(getattr(self, word)) for word in words if word in self.option_names), 1)

    def perturb(self, driver: Driver, x: Tensor, noise: Noise) -> Tensor:
        """Return what the library makes of the batch; a warning says how far it left the ball."""
        model = switched(_Counted(driver.model))
        question = Question(model, x, driver.y, self.norm, self.epsilon, driver.classes)
        options = {name: getattr(self, name) for name in self.option_names}
        try:
            with _own_randomness(noise), _silence(), torch.enable_grad():
                x_adv = self.library.run(self.facts, options, question)
        except Exception as error:  # anything may go wrong in code that is not ours
            reason = " ".join(str(error).split())[:200]
            raise UsageError(f"attack '{self.name}': {type(error).__name__}: {reason}") from error
        driver.cost.forward += model.forward_calls
        driver.cost.backward += model.backward_calls
        each = -(-model.forward_calls // max(len(x), 1))  # for which image is not known: rounded up
        driver.queries += each
        driver.steps += each
        x_adv = x_adv.detach().to(x)
        beyond = {"the range [0, 1]": (x_adv - x_adv.clamp(0, 1)).abs().flatten(1).amax(1).double()}
        if not self.facts.nearest:
            ball = f"the {self.norm} ball of {self.epsilon:g}"
            beyond[ball] = distance(x_adv, x, self.norm) - self.epsilon
        for what, excess in beyond.items():
            if count := int((excess > ROUNDING * max(1.0, self.epsilon)).sum()):
                log.warning(
                    "%s left %s by up to %.3g on %d of %d images; they were moved back and asked "
                    "again",
                    *(self.name, what, float(excess.max()), count, len(x)),
                )
        return x_adv


class _Counted(nn.Module):
    """The model as a library sees it: float32, and every call counted, image by image."""

    def __init__(self, net: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net = net
        self.forward_calls = self.backward_calls = 0

    def forward(self, images: Tensor) -> Tensor:
        scores = self.net(images.float()).float()
        self.forward_calls += len(images)
        if scores.requires_grad:
            scores.register_hook(self._count_backward)  # type: ignore[no-untyped-call]
        return scores

    def _count_backward(self, gradient: Tensor) -> None:
        self.backward_calls += len(gradient)


def _options(make: Callable[..., Any], hidden: frozenset[str]) -> list[tuple[str, Any, Any]]:
    """Return name, type and default of each parameter that a plain value can be given for."""
    options: list[tuple[str, Any, Any]] = []
    for name, option in inspect.signature(make).parameters.items():
        kind, default = str(option.annotation), option.default
        if name in hidden or option.kind in (option.VAR_POSITIONAL, option.VAR_KEYWORD):
            continue
        if default is option.empty:
            if kind in ("int", "float", "<class 'int'>", "<class 'float'>"):
                options.append((name, int | float, field()))
        elif default is None:
            if option.annotation is not option.empty and not NO_PLAIN_VALUE.search(kind):
                options.append((name, Any, field(default=None)))
        elif isinstance(default, bool | str | tuple):
            options.append((name, type(default), field(default=default)))
        elif isinstance(default, int | float):
            options.append((name, int | float, field(default=default)))
    return options


@contextlib.contextmanager
def _own_randomness(noise: Noise) -> Iterator[None]:
    """Seed the process-wide generators by seed, restart and images, and restore them after."""
    key = f"{noise.seed}/{noise.restart}/{noise.index.tolist()}".encode()
    seed = int.from_bytes(hashlib.sha256(key).digest()[:4], "big")
    before = random.getstate(), np.random.get_state()  # noqa: NPY002 - the libraries draw from it
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep a library from printing, warning and drawing progress bars in our name."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(sink := io.StringIO()),
        contextlib.redirect_stderr(sink),
    ):
        warnings.simplefilter("ignore")
        yield
