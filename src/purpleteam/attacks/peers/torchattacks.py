"""torchattacks' attacks (Kim 2020, arXiv:2010.01950).

Its AutoAttack runs 10 steps where the paper has 100; here it is what it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from purpleteam.attacks.peers._base import Facts, Library, Question

LEFT_OUT = ("GN", "LGV", "MultiAttack", "VANILA")
"""Noise without a radius, one that trains, a container, and none at all."""
NORMS: dict[str, tuple[str, ...]] = {
    "APGD": ("linf", "l2"),
    "APGDT": ("linf", "l2"),
    "AutoAttack": ("linf", "l2"),
    "CW": ("l2",),
    "DeepFool": ("l2",),
    "EADEN": ("l1",),
    "EADL1": ("l1",),
    "FAB": ("linf", "l2", "l1"),
    "JSMA": ("l0",),
    "OnePixel": ("l0",),
    "PGDL2": ("l2",),
    "PGDRSL2": ("l2",),
    "Pixle": ("l0",),
    "SparseFool": ("l0",),
    "Square": ("linf", "l2"),
}
"""All others are for L-infinity."""
SCORE_BASED = ("OnePixel", "Pixle", "SPSA", "Square")
RADIUS = ("eps", "max_epsilon")


class Torchattacks(Library):
    """torchattacks: an object around the model, images and labels in, images out."""

    name = "torchattacks"
    install = "pip install --no-deps torchattacks"
    hidden = Library.hidden | {*RADIUS, "model", "n_classes", "seed"}

    def attacks(self) -> Mapping[str, Facts]:
        module = self.load("")
        return {
            name: Facts(
                attack,
                NORMS.get(name, ("linf",)),
                "score-based" if name in SCORE_BASED else "white-box",
                nearest=not any(word in inspect.signature(attack).parameters for word in RADIUS),
            )
            for name, attack in vars(module).items()
            if inspect.isclass(attack) and name not in LEFT_OUT
        }

    def run(self, facts: Facts, options: Mapping[str, Any], question: Question) -> Tensor:
        asked = dict.fromkeys(RADIUS, question.epsilon) | {
            "norm": question.norm.capitalize(),
            "n_classes": question.classes,
        }
        taken = inspect.signature(facts.make).parameters
        ours = {key: value for key, value in asked.items() if key in taken}
        attack = facts.make(question.model, **ours, **options)
        attack.set_device(question.x.device)
        images: Tensor = attack(question.x, question.y)
        return images
