"""Other libraries' attacks inside our evaluation: `foolbox:NAME`, `art:NAME`, `torchattacks:NAME`.

- ART, the Adversarial Robustness Toolbox (Nicolae et al. 2018, arXiv:1807.01069)
- Foolbox (Rauber et al. 2020, JOSS 5(53):2607)
- torchattacks (Kim 2020, arXiv:2010.01950); its AutoAttack runs 10 steps where the paper has 100

What a borrowed attack returns is projected into our ball and asked again in float32, so its robust
accuracy means what ours means. Options keep the library's names and defaults, but for radius and
norm. It draws from process-wide generators, so another batch size may give other images.
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
from dataclasses import field, make_dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from purpleteam.attacks.driver import Driver
from purpleteam.attacks.evasion import EvasionAttack, MinimumNormAttack
from purpleteam.attacks.norms import NORMS, Noise, distance
from purpleteam.core.errors import UsageError, reason_of, unknown
from purpleteam.models.guard import switched

log = logging.getLogger(__name__)

OURS = frozenset({"norm", "epsilon", "restarts", "queries", "samples", "stop_inside", "name"})
"""Words that have a meaning of ours; an option of that name stays at the library's default."""
NO_PLAIN_VALUE = re.compile("Callable|ndarray|list|List|dict|Attack|Distance|CLASSIFIER")
ROUNDING = 1e-6  # how far float32 may leave the ball or the range without a word
STEPS = ("steps", "max_iter", "n_queries", "nb_iter")  # what the libraries call them

ART = {
    "linf l2 l1": "AutoConjugateGradient AutoProjectedGradientDescent FastGradientMethod "
    "MomentumIterativeMethod ProjectedGradientDescent RescalingAutoConjugateGradient",
    "linf l2": "AutoAttack SquareAttack UniversalPerturbation",
    "linf": "BasicIterativeMethod CarliniLInfMethod",
    "l2 linf": "GeoDA HopSkipJump",
    "l2": "BoundaryAttack CarliniL2Method DeepFool NewtonFool SignOPTAttack ZooAttack",
    "l1": "ElasticNet",
    "l0": "CarliniL0Method SaliencyMapMethod",
}
"""The norms of each attack. What is missing wants probabilities, detectors, sound or TensorFlow."""
TORCHATTACKS = {
    "linf l2 l1": "FAB",
    "linf l2": "APGD APGDT AutoAttack Square",
    "l2": "CW DeepFool PGDL2 PGDRSL2",
    "l1": "EADEN EADL1",
    "l0": "JSMA OnePixel Pixle SparseFool",
}
"""All others are for L-infinity."""
# noise without a radius, one that trains, a container, and none at all
TORCHATTACKS_WITHOUT = ("GN", "LGV", "MultiAttack", "VANILA")
# they need starting points, other images or a target
FOOLBOX_WITHOUT = ("BinarizationRefinementAttack", "DatasetAttack", "GenAttack")
SCORE_BASED = ("OnePixel", "Pixle", "SPSA", "Square", "SquareAttack", "ZooAttack")
# ends of the names of those that see labels alone; noise is tried until one is wrong
DECISION_BASED = (
    *("BoundaryAttack", "HopSkipJump", "HopSkipJumpAttack", "GeoDA", "SignOPTAttack"),
    *("PointwiseAttack", "NoiseAttack", "ContrastReductionAttack", "BlurAttack", "InversionAttack"),
)


class Library(ABC):
    """A library of attacks: what it is called, what it has, and how one of them is run."""

    name: ClassVar[str]  # its import name, which stands before the colon
    install: ClassVar[str] = "install purpleteam[peers]"
    module: ClassVar[str] = ""  # where in it the attacks are
    hidden: ClassVar[frozenset[str]]  # parameters that are set here
    radius: ClassVar[tuple[str, ...]] = ("eps",)  # what it calls epsilon

    @abstractmethod
    def norms(self, name: str, make: type) -> tuple[str, ...]:
        """Return the norms of a class of its module; none where it is no attack for us."""

    def nearest(self, make: type) -> bool:
        """Say whether an attack looks for the nearest adversarial example and knows no radius."""
        return not any(word in inspect.signature(make).parameters for word in self.radius)

    @abstractmethod
    def run(self, attack: _Borrowed, model: nn.Module, driver: Driver) -> Tensor:
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

    def attacks(self, wanted: str = "") -> dict[str, type]:
        self.load(wanted)
        classes = vars(self.load(wanted, self.module)).items()
        return {
            name: make for name, make in classes if inspect.isclass(make) and self.norms(name, make)
        }


class Art(Library):
    """ART: NumPy in, NumPy out, around an estimator."""

    name = "art"
    module = ".attacks.evasion"
    hidden = frozenset({"classifier", "eps", "estimator", "estimator_orig", "summary_writer"})

    def norms(self, name: str, make: type) -> tuple[str, ...]:
        return _norms_in(ART, name)

    def run(self, attack: _Borrowed, model: nn.Module, driver: Driver) -> Tensor:
        classifier = self.load("", ".estimators.classification").PyTorchClassifier(
            model,
            loss=nn.CrossEntropyLoss(),
            input_shape=tuple(driver.x.shape[1:]),
            nb_classes=driver.classes,
            clip_values=(0.0, 1.0),
            device_type="gpu" if driver.x.is_cuda else "cpu",
        )
        ball = {"eps": attack.epsilon, "norm": NORMS[attack.norm].order}
        made = attack.made(ball | {"targeted": False, "verbose": False}, classifier)
        images = made.generate(driver.x.cpu().numpy(), driver.y.cpu().numpy())
        return torch.from_numpy(np.asarray(images, dtype=np.float32))


class Foolbox(Library):
    """Foolbox: the library of radii, distances and criteria."""

    name = "foolbox"
    module = ".attacks"
    hidden = frozenset({"constraint", "distance", "init_attack", "tensorboard"})

    def norms(self, name: str, make: type) -> tuple[str, ...]:
        base = self.load("", ".attacks.base").AttackWithDistance
        if not issubclass(make, base) or name in FOOLBOX_WITHOUT:
            return ()
        orders = {float("inf"): "linf", 2: "l2", 1: "l1", 0: "l0"}
        power, called = getattr(getattr(make, "distance", None), "p", None), make.__name__
        if called == "HopSkipJumpAttack":  # its own `distance` is L1; it minimises its `constraint`
            return ("l2", "linf")
        if power is not None:
            return (orders[power],)
        named = tuple(norm for norm in ("linf", "l2") if called.lower().startswith(norm))
        return named or tuple(orders.values())

    def nearest(self, make: type) -> bool:
        return issubclass(make, self.load("", ".attacks.base").MinimizationAttack)

    def run(self, attack: _Borrowed, model: nn.Module, driver: Driver) -> Tensor:
        foolbox = self.load("")
        asked = foolbox.PyTorchModel(model, bounds=(0, 1), device=driver.x.device)
        measure = getattr(foolbox.distances, attack.norm, None)
        labels = foolbox.criteria.Misclassification(driver.y)
        radius = None if attack.nearest else attack.epsilon
        made = attack.made({"distance": measure, "constraint": attack.norm})
        images: Tensor = made(asked, driver.x, labels, epsilons=radius)[0]
        return images


class Torchattacks(Library):
    """torchattacks: an object around the model, images and labels in, images out."""

    name = "torchattacks"
    install = "pip install --no-deps torchattacks"
    radius = ("eps", "max_epsilon")
    hidden = frozenset({*radius, "model", "n_classes", "seed"})

    def norms(self, name: str, make: type) -> tuple[str, ...]:
        return () if name in TORCHATTACKS_WITHOUT else _norms_in(TORCHATTACKS, name) or ("linf",)

    def run(self, attack: _Borrowed, model: nn.Module, driver: Driver) -> Tensor:
        ball = dict.fromkeys(self.radius, attack.epsilon)
        more = {"norm": attack.norm.capitalize(), "n_classes": driver.classes}
        made = attack.made(ball | more, model)
        made.set_device(driver.x.device)
        images: Tensor = made(driver.x, driver.y)
        return images


LIBRARIES: dict[str, Library] = {
    library.name: library for library in (Art(), Foolbox(), Torchattacks())
}
"""The libraries whose attacks can be borrowed, by the name that stands before the colon."""


def _norms_in(table: Mapping[str, str], name: str) -> tuple[str, ...]:
    return next((tuple(key.split()) for key, names in table.items() if name in names.split()), ())


@cache
def peer_attack(name: str) -> type[EvasionAttack]:
    """Return the attack that `library:NAME` means, as a class like our own that runs the library's.

    Its fields are the norm, the radius and those options of the library that are plain values, so
    that an unknown one is refused by name and the report shows what was run.
    """
    home, _, attack = name.partition(":")
    if home not in LIBRARIES:
        raise UsageError(unknown("library of attacks", home, LIBRARIES))
    library, known = LIBRARIES[home], LIBRARIES[home].attacks(attack)
    if attack not in known:
        near = difflib.get_close_matches(attack, known, n=3, cutoff=0.4)
        said = f"nearest: {', '.join(near)}" if near else f"known: {', '.join(sorted(known))}"
        raise UsageError(f"unknown attack '{name}'; {said}")
    make = known[attack]
    norms, knowledge = library.norms(attack, make), "white-box"
    if make.__name__ in SCORE_BASED:
        knowledge = "score-based"
    elif make.__name__.endswith(DECISION_BASED):
        knowledge = "decision-based"
    options = _options(make, library.hidden | OURS | {"verbose", "targeted"})
    return make_dataclass(
        re.sub(r"\W", "_", name.replace(":", "_")),
        [("norm", str, field(default=norms[0])), *options],
        bases=(_Borrowed, MinimumNormAttack if library.nearest(make) else EvasionAttack),
        namespace={
            "__module__": __name__,
            "__doc__": f"{attack} of {home}, run inside our evaluation.",
            "name": name,
            "knowledge": knowledge,
            "norms": norms,
            "library": library,
            "make": make,
            "option_names": tuple(option[0] for option in options),
        },
        frozen=True,
        kw_only=True,
    )


def _options(make: type, hidden: frozenset[str]) -> list[tuple[str, Any, Any]]:
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


class _Borrowed:
    """Hands the library the model and the batch, and says what came of it."""

    name: ClassVar[str]
    library: ClassVar[Library]
    make: ClassVar[Callable[..., Any]]  # the library's own class
    nearest: ClassVar[bool]
    option_names: ClassVar[tuple[str, ...]]
    norm: str
    epsilon: float

    @property
    def planned_steps(self) -> int:
        return next((int(getattr(self, word)) for word in STEPS if word in self.option_names), 1)

    def made(self, given: Mapping[str, Any], *arguments: object) -> Any:
        """Return the library's attack: with its options, and what its class knows of `given`."""
        known = inspect.signature(type(self).make).parameters
        options = {name: getattr(self, name) for name in self.option_names}
        options |= {name: value for name, value in given.items() if name in known}
        return type(self).make(*arguments, **options)

    def perturb(self, driver: Driver, x: Tensor, noise: Noise) -> Tensor:
        """Return what the library makes of the batch; a warning says how far it left the ball."""
        model = switched(_Counted(driver.model))
        try:
            with _own_randomness(noise), _silence(), torch.enable_grad():
                x_adv = self.library.run(self, model, driver)
        except Exception as error:  # anything may go wrong in code that is not ours
            kind = f"attack '{self.name}': {type(error).__name__}"
            raise UsageError(f"{kind}: {reason_of(error)}") from error
        driver.cost.forward += model.forward_calls
        driver.cost.backward += model.backward_calls
        each = -(-model.forward_calls // max(len(x), 1))  # for which image is not known: rounded up
        driver.queries += each
        driver.steps += each
        x_adv = x_adv.detach().to(x)
        beyond = {"the range [0, 1]": (x_adv - x_adv.clamp(0, 1)).abs().flatten(1).amax(1).double()}
        if not self.nearest:
            ball = f"the {self.norm} ball of {self.epsilon:g}"
            beyond[ball] = distance(x_adv, x, self.norm) - self.epsilon
        for bound, excess in beyond.items():
            if count := int((excess > ROUNDING * max(1.0, self.epsilon)).sum()):
                log.warning(
                    "%s left %s by up to %.3g on %d of %d images; they were moved back and asked "
                    "again",
                    *(self.name, bound, float(excess.max()), count, len(x)),
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
