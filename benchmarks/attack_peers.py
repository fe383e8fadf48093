"""The same attack as everybody offers it: ours, a bare loop, and six other libraries.

Each way takes the plain net that a user has (contiguous float32, parameters that want gradients)
and a batch, and returns the attacked batch. A library that is not installed, or does not import,
is reported as absent with the reason. `make peers` installs those that this project can install.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import io
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from purpleteam.attacks.evasion.fgsm import FGSM
from purpleteam.attacks.evasion.pgd import PGD
from purpleteam.models.devices import frozen

__all__ = ["LIBRARIES", "Ways", "autoattack_100_steps", "fgsm_ways", "library", "pgd_ways"]

EPSILON, STEP_SIZE, STEPS = 0.3, 0.01, 40
LIBRARIES = {
    "art": "adversarial-robustness-toolbox",
    "foolbox": "foolbox",
    "torchattacks": "torchattacks",
    "cleverhans": "cleverhans",
    "adv_lib": "adv-lib",
    "secmlt": "secml-torch",
}
"""Import name and distribution name."""

Way = Callable[[Tensor, Tensor], Tensor]
"""Images and labels to attacked images."""


@dataclass(frozen=True)
class Ways:
    """What could be run, and why the rest could not."""

    ways: dict[str, Way]
    absent: dict[str, str]


def pgd_ways(net: nn.Module) -> Ways:
    """Return PGD-40, epsilon 0.3, step 0.01, no random start, as each library runs it."""
    ours = PGD(epsilon=EPSILON, steps=STEPS, step_size=STEP_SIZE, random_start=False)
    makers = {
        "art": lambda: _art(net, "ProjectedGradientDescent", eps_step=STEP_SIZE, max_iter=STEPS),
        "foolbox": lambda: _foolbox(net, "LinfPGD", abs_stepsize=STEP_SIZE, steps=STEPS),
        "torchattacks": lambda: _torchattacks(net, "PGD", alpha=STEP_SIZE, steps=STEPS),
        "cleverhans": lambda: _cleverhans_pgd(net),
        "adv_lib": lambda: _adv_lib_pgd(net),
        "secmlt": lambda: _secmlt(net, "pgd", num_steps=STEPS, step_size=STEP_SIZE),
    }
    first: dict[str, Way] = {
        "bare": lambda x, y: bare_loop(net, x, y, steps=STEPS, step_size=STEP_SIZE),
        "purpleteam": lambda x, y: ours(net, x, y),
    }
    return _available(first, makers)


def fgsm_ways(net: nn.Module) -> Ways:
    """Return FGSM, epsilon 0.3, as each library that has it runs it."""
    ours = FGSM(epsilon=EPSILON)
    makers = {
        "art": lambda: _art(net, "FastGradientMethod"),
        "foolbox": lambda: _foolbox(net, "FGSM"),
        "torchattacks": lambda: _torchattacks(net, "FGSM"),
        "cleverhans": lambda: _cleverhans_fgsm(net),
        "secmlt": lambda: _secmlt(net, "fgsm"),
    }
    first: dict[str, Way] = {
        "bare": lambda x, y: bare_loop(net, x, y, steps=1, step_size=EPSILON),
        "purpleteam": lambda x, y: ours(net, x, y),
    }
    ways = _available(first, makers)
    ways.absent["adv_lib"] = "has no FGSM in L-infinity"
    return ways


def bare_loop(net: nn.Module, x: Tensor, y: Tensor, *, steps: int, step_size: float) -> Tensor:
    """Run what nobody can leave out: forward, input gradient, sign, two clamps."""
    with frozen(net):
        low, high = (x - EPSILON).clamp(0, 1), (x + EPSILON).clamp(0, 1)
        x_adv = x.clone()
        for _ in range(steps):
            asked = x_adv.requires_grad_(True)
            (slope,) = torch.autograd.grad(F.cross_entropy(net(asked), y, reduction="sum"), asked)
            moved = x_adv.detach() + step_size * slope.sign()
            x_adv = torch.minimum(torch.maximum(moved, low), high)
    return x_adv.detach()


def autoattack_100_steps(net: nn.Module, epsilon: float, classes: int) -> Way:
    """Return torchattacks' AutoAttack with the 100 steps of the paper, which its own lacks."""
    torchattacks = library("torchattacks")
    same = {"eps": epsilon, "norm": "Linf", "seed": 0, "n_restarts": 1}
    return torchattacks.MultiAttack(  # type: ignore[no-any-return]
        [
            torchattacks.APGD(net, steps=100, loss="ce", **same),
            torchattacks.APGDT(net, steps=100, n_classes=classes, **same),
            torchattacks.FAB(net, steps=100, multi_targeted=True, n_classes=classes, **same),
            torchattacks.Square(net, n_queries=5000, **same),
        ]
    )


def library(name: str) -> Any:
    """Return the module of that name; what it prints when imported is swallowed."""
    with contextlib.redirect_stdout(io.StringIO()), _stand_ins(name):
        return importlib.import_module(name)


def _available(ways: dict[str, Way], makers: dict[str, Callable[[], Way]]) -> Ways:
    absent = {}
    for name, make in makers.items():
        try:
            ways[name] = make()
        except Exception as error:  # a peer may fail in any way; the reason is reported
            absent[name] = f"{type(error).__name__}: {error}"
    return Ways(ways, absent)


@contextlib.contextmanager
def _stand_ins(name: str) -> Iterator[None]:
    """Let adv_lib import without visdom and torchvision, which its PGD does not use.

    secmlt imports adv_lib where it is installed.
    """
    needed = name.partition(".")[0] in ("adv_lib", "secmlt")
    missing = [one for one in ("visdom", "torchvision") if needed and not _is_there(one)]
    for one in missing:
        sys.modules[one] = types.ModuleType(one)
        sys.modules[one].__spec__ = importlib.machinery.ModuleSpec(one, None)
    if "torchvision" in missing:
        sys.modules["torchvision"].models = None  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for one in missing:
            sys.modules.pop(one, None)


def _is_there(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _art(net: nn.Module, name: str, **options: Any) -> Way:
    evasion = library("art.attacks.evasion")
    estimators = library("art.estimators.classification")
    quiet = {"verbose": False} if "max_iter" in options else {}
    fixed = {"eps": EPSILON, "batch_size": 250} | options | quiet

    def run(x: Tensor, y: Tensor) -> Tensor:
        classifier = estimators.PyTorchClassifier(
            net,
            loss=nn.CrossEntropyLoss(),
            input_shape=tuple(x.shape[1:]),
            nb_classes=10,
            clip_values=(0.0, 1.0),
        )
        attack = getattr(evasion, name)(classifier, **fixed)
        return torch.from_numpy(attack.generate(x.numpy(), y.numpy()))

    return run


def _foolbox(net: nn.Module, name: str, **options: Any) -> Way:
    foolbox = library("foolbox")
    attack = getattr(foolbox.attacks, name)(random_start=False, **options)

    def run(x: Tensor, y: Tensor) -> Tensor:
        model = foolbox.PyTorchModel(net, bounds=(0, 1), device=x.device)
        attacked: Tensor = attack(model, x, y, epsilons=EPSILON)[1]
        return attacked

    return run


def _torchattacks(net: nn.Module, name: str, **options: Any) -> Way:
    start = {"random_start": False} if name == "PGD" else {}
    attack: Way = getattr(library("torchattacks"), name)(net, eps=EPSILON, **options, **start)
    return attack


def _cleverhans_pgd(net: nn.Module) -> Way:
    module = library("cleverhans.torch.attacks.projected_gradient_descent")
    attack = module.projected_gradient_descent
    end = {"norm": float("inf"), "clip_min": 0.0, "clip_max": 1.0}
    return lambda x, y: attack(
        net, x, EPSILON, STEP_SIZE, STEPS, y=y, rand_init=False, sanity_checks=False, **end
    ).detach()


def _cleverhans_fgsm(net: nn.Module) -> Way:
    attack = library("cleverhans.torch.attacks.fast_gradient_method").fast_gradient_method
    end = {"norm": float("inf"), "clip_min": 0.0, "clip_max": 1.0}
    return lambda x, y: attack(net, x, EPSILON, y=y, sanity_checks=False, **end).detach()


def _adv_lib_pgd(net: nn.Module) -> Way:
    attack = library("adv_lib.attacks.projected_gradient_descent").pgd_linf
    how = {"steps": STEPS, "random_init": False, "absolute_step_size": STEP_SIZE}
    radius = {"\N{GREEK SMALL LETTER EPSILON}": EPSILON}
    return lambda x, y: attack(net, x, y, **radius, **how)


def _secmlt(net: nn.Module, name: str, **options: Any) -> Way:
    module = library(f"secmlt.adv.evasion.{name}")
    models = library("secmlt.models.pytorch.base_pytorch_nn")
    # its own code where there is some; its FGSM is foolbox's
    backend = "native" if name == "pgd" else "foolbox"
    attack = getattr(module, name.upper())("linf", EPSILON, backend=backend, **options)

    def run(x: Tensor, y: Tensor) -> Tensor:
        loader = DataLoader(TensorDataset(x, y), batch_size=len(x))
        attacked = attack(models.BasePyTorchClassifier(net), loader)
        return torch.cat([batch for batch, _ in attacked]).detach()

    return run
