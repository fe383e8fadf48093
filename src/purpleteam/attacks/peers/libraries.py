"""The libraries: what attacks each has, in which norms, and how one of them is run.

- ART, the Adversarial Robustness Toolbox (Nicolae et al. 2018, arXiv:1807.01069)
- Foolbox (Rauber et al. 2020, JOSS 5(53):2607)
- torchattacks (Kim 2020, arXiv:2010.01950); its AutoAttack runs 10 steps where the paper has 100
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from purpleteam.attacks.norms import NORMS
from purpleteam.attacks.peers._base import Facts, Library, Question

Norms = dict[str, tuple[str, ...]]
ALL, TWO = ("linf", "l2", "l1"), ("linf", "l2")

ART: dict[str, Norms] = {
    "white-box": {
        "AutoAttack": TWO,
        "AutoConjugateGradient": ALL,
        "AutoProjectedGradientDescent": ALL,
        "BasicIterativeMethod": ("linf",),
        "CarliniL0Method": ("l0",),
        "CarliniL2Method": ("l2",),
        "CarliniLInfMethod": ("linf",),
        "DeepFool": ("l2",),
        "ElasticNet": ("l1",),
        "FastGradientMethod": ALL,
        "MomentumIterativeMethod": ALL,
        "NewtonFool": ("l2",),
        "ProjectedGradientDescent": ALL,
        "RescalingAutoConjugateGradient": ALL,
        "SaliencyMapMethod": ("l0",),
        "UniversalPerturbation": TWO,
    },
    "score-based": {"SquareAttack": TWO, "ZooAttack": ("l2",)},
    "decision-based": {
        "BoundaryAttack": ("l2",),
        "GeoDA": ("l2", "linf"),
        "HopSkipJump": ("l2", "linf"),
        "SignOPTAttack": ("l2",),
    },
}
"""What is missing wants probabilities, detectors, sound, trees or TensorFlow."""

FOOLBOX_ORDERS = {float("inf"): "linf", 2: "l2", 1: "l1", 0: "l0"}
FOOLBOX_STARTS = {"Linf": "linf", "L2": "l2"}
FOOLBOX_BLACK_BOX = (
    *("BoundaryAttack", "HopSkipJumpAttack", "PointwiseAttack"),
    *("NoiseAttack", "ContrastReductionAttack", "BlurAttack", "InversionAttack"),
)
"""Ends of the names of those that see labels alone; noise is tried until one is wrong."""
FOOLBOX_WITHOUT = ("BinarizationRefinementAttack", "DatasetAttack", "GenAttack")
"""They need starting points, other images or a target."""
FOOLBOX_EITHER_NORM = "HopSkipJumpAttack"
"""Its own `distance` is L1; what it minimises is its `constraint`."""

TORCHATTACKS: Norms = {
    "APGD": TWO,
    "APGDT": TWO,
    "AutoAttack": TWO,
    "CW": ("l2",),
    "DeepFool": ("l2",),
    "EADEN": ("l1",),
    "EADL1": ("l1",),
    "FAB": ALL,
    "JSMA": ("l0",),
    "OnePixel": ("l0",),
    "PGDL2": ("l2",),
    "PGDRSL2": ("l2",),
    "Pixle": ("l0",),
    "SparseFool": ("l0",),
    "Square": TWO,
}
"""All others are for L-infinity."""
TORCHATTACKS_SCORE_BASED = ("OnePixel", "Pixle", "SPSA", "Square")
TORCHATTACKS_WITHOUT = ("GN", "LGV", "MultiAttack", "VANILA")
"""Noise without a radius, one that trains, a container, and none at all."""
TORCHATTACKS_RADIUS = ("eps", "max_epsilon")


def _taken(facts: Facts, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the arguments that the library's class knows."""
    known = inspect.signature(facts.make).parameters
    return {key: value for key, value in given.items() if key in known}


class Art(Library):
    """ART: NumPy in, NumPy out, around an estimator."""

    name = "art"
    hidden = Library.hidden | {"classifier", "eps", "estimator", "estimator_orig", "summary_writer"}

    def attacks(self) -> Mapping[str, Facts]:
        module = self.load("", ".attacks.evasion")
        known = {}
        for knowledge, names in ART.items():
            for name, norms in names.items():
                make = getattr(module, name)
                nearest = "eps" not in inspect.signature(make).parameters
                known[name] = Facts(make, norms, knowledge, nearest)
        return known

    def run(self, facts: Facts, options: Mapping[str, Any], question: Question) -> Tensor:
        classifier = self.load("", ".estimators.classification").PyTorchClassifier(
            question.model,
            loss=nn.CrossEntropyLoss(),
            input_shape=tuple(question.x.shape[1:]),
            nb_classes=question.classes,
            clip_values=(0.0, 1.0),
            device_type="gpu" if question.x.is_cuda else "cpu",
        )
        ball = {"eps": question.epsilon, "norm": NORMS[question.norm].order}
        given = _taken(facts, ball | {"targeted": False, "verbose": False})
        attack = facts.make(classifier, **given, **options)
        images = attack.generate(question.x.cpu().numpy(), question.y.cpu().numpy())
        return torch.from_numpy(np.asarray(images, dtype=np.float32))


class Foolbox(Library):
    """Foolbox: the library of radii, distances and criteria."""

    name = "foolbox"
    hidden = Library.hidden | {"constraint", "distance", "init_attack", "tensorboard"}

    def attacks(self) -> Mapping[str, Facts]:
        bases = self.load("", ".attacks.base")
        known = {}
        for name, attack in vars(self.load("", ".attacks")).items():
            if not inspect.isclass(attack) or not issubclass(attack, bases.AttackWithDistance):
                continue
            if name not in FOOLBOX_WITHOUT:
                black_box = attack.__name__.endswith(FOOLBOX_BLACK_BOX)
                knowledge = "decision-based" if black_box else "white-box"
                nearest = issubclass(attack, bases.MinimizationAttack)
                known[name] = Facts(attack, _foolbox_norms(attack), knowledge, nearest)
        return known

    def run(self, facts: Facts, options: Mapping[str, Any], question: Question) -> Tensor:
        foolbox = self.load("")
        model = foolbox.PyTorchModel(question.model, bounds=(0, 1), device=question.x.device)
        norm = question.norm
        given = {"distance": getattr(foolbox.distances, norm, None), "constraint": norm}
        attack = facts.make(**options, **_taken(facts, given))
        labels = foolbox.criteria.Misclassification(question.y)
        radius = None if facts.nearest else question.epsilon
        images: Tensor = attack(model, question.x, labels, epsilons=radius)[0]
        return images


def _foolbox_norms(attack: type) -> tuple[str, ...]:
    if attack.__name__ == FOOLBOX_EITHER_NORM:
        return "l2", "linf"
    power = getattr(getattr(attack, "distance", None), "p", None)
    if power is not None:
        return (FOOLBOX_ORDERS[power],)
    named = [norm for start, norm in FOOLBOX_STARTS.items() if attack.__name__.startswith(start)]
    return tuple(named or FOOLBOX_ORDERS.values())


class Torchattacks(Library):
    """torchattacks: an object around the model, images and labels in, images out."""

    name = "torchattacks"
    install = "pip install --no-deps torchattacks"
    hidden = Library.hidden | {*TORCHATTACKS_RADIUS, "model", "n_classes", "seed"}

    def attacks(self) -> Mapping[str, Facts]:
        known = {}
        for name, attack in vars(self.load("")).items():
            if inspect.isclass(attack) and name not in TORCHATTACKS_WITHOUT:
                knowledge = "score-based" if name in TORCHATTACKS_SCORE_BASED else "white-box"
                parameters = inspect.signature(attack).parameters
                nearest = not any(word in parameters for word in TORCHATTACKS_RADIUS)
                norms = TORCHATTACKS.get(name, ("linf",))
                known[name] = Facts(attack, norms, knowledge, nearest)
        return known

    def run(self, facts: Facts, options: Mapping[str, Any], question: Question) -> Tensor:
        ball = dict.fromkeys(TORCHATTACKS_RADIUS, question.epsilon)
        more = {"norm": question.norm.capitalize(), "n_classes": question.classes}
        attack = facts.make(question.model, **_taken(facts, ball | more), **options)
        attack.set_device(question.x.device)
        images: Tensor = attack(question.x, question.y)
        return images
