"""Foolbox's attacks (Rauber et al. 2020, JOSS 5(53):2607)."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from purpleteam.attacks.peers._base import Facts, Library, Question

BY_POWER: dict[float, str] = {float("inf"): "linf", 2: "l2", 1: "l1", 0: "l0"}
BY_NAME: dict[str, str] = {"Linf": "linf", "L2": "l2"}
SCORE_BASED = ("NoiseAttack", "ContrastReductionAttack", "BlurAttack", "InversionAttack")
DECISION_BASED = ("BoundaryAttack", "HopSkipJumpAttack", "PointwiseAttack", *SCORE_BASED)
"""Ends of the names of those that see labels alone; noise is tried until one is wrong."""
LEFT_OUT = ("BinarizationRefinementAttack", "DatasetAttack", "GenAttack")
"""They need starting points, other images or a target."""
EITHER_NORM = "HopSkipJumpAttack"
"""Its own `distance` is L1; what it minimises is its `constraint`."""


class Foolbox(Library):
    """Foolbox: the library of radii, distances and criteria."""

    name = "foolbox"
    hidden = Library.hidden | {"constraint", "distance", "init_attack", "tensorboard"}

    def attacks(self) -> Mapping[str, Facts]:
        module = self.load("", ".attacks")
        bases = self.load("", ".attacks.base")
        return {
            name: self._facts(name, attack, issubclass(attack, bases.MinimizationAttack))
            for name, attack in vars(module).items()
            if inspect.isclass(attack)
            and issubclass(attack, bases.AttackWithDistance)
            and name not in LEFT_OUT
        }

    def run(self, facts: Facts, options: Mapping[str, Any], question: Question) -> Tensor:
        foolbox = self.load("")
        model = foolbox.PyTorchModel(question.model, bounds=(0, 1), device=question.x.device)
        measured = inspect.signature(facts.make).parameters
        extra: dict[str, Any] = {}
        if "distance" in measured:
            extra["distance"] = getattr(foolbox.distances, question.norm)
        if "constraint" in measured:
            extra["constraint"] = question.norm
        attack = facts.make(**options, **extra)
        labels = foolbox.criteria.Misclassification(question.y)
        radius = None if facts.nearest else question.epsilon
        images: Tensor = attack(model, question.x, labels, epsilons=radius)[0]
        return images

    def _facts(self, name: str, attack: type, nearest: bool) -> Facts:
        knowledge = "decision-based" if attack.__name__.endswith(DECISION_BASED) else "white-box"
        return Facts(attack, _norms(attack), knowledge, nearest)


def _norms(attack: type) -> tuple[str, ...]:
    if attack.__name__ == EITHER_NORM:
        return "l2", "linf"
    power = getattr(getattr(attack, "distance", None), "p", None)
    if power is not None:
        return (BY_POWER[power],)
    named = [norm for start, norm in BY_NAME.items() if attack.__name__.startswith(start)]
    return tuple(named) or tuple(BY_POWER.values())
