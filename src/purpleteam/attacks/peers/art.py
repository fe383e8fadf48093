"""The Adversarial Robustness Toolbox's attacks (Nicolae et al. 2018, arXiv:1807.01069)."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from purpleteam.attacks.norms import NORMS
from purpleteam.attacks.peers._base import Facts, Library, Question

ALL: tuple[str, ...] = ("linf", "l2", "l1")
TWO: tuple[str, ...] = ("linf", "l2")
WHITE_BOX: dict[str, tuple[str, ...]] = {
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
}
SCORE_BASED: dict[str, tuple[str, ...]] = {"SquareAttack": TWO, "ZooAttack": ("l2",)}
DECISION_BASED: dict[str, tuple[str, ...]] = {
    "BoundaryAttack": ("l2",),
    "GeoDA": ("l2", "linf"),
    "HopSkipJump": ("l2", "linf"),
    "SignOPTAttack": ("l2",),
}
"""What is missing wants probabilities, detectors, sound, trees or TensorFlow."""


class Art(Library):
    """ART: NumPy in, NumPy out, around an estimator."""

    name = "art"
    hidden = Library.hidden | {"classifier", "eps", "estimator", "estimator_orig", "summary_writer"}

    def attacks(self) -> Mapping[str, Facts]:
        module = self.load("", ".attacks.evasion")
        known = {"white-box": WHITE_BOX, "score-based": SCORE_BASED}
        found = {}
        for knowledge, names in (known | {"decision-based": DECISION_BASED}).items():
            for name, norms in names.items():
                make = getattr(module, name)
                nearest = "eps" not in inspect.signature(make).parameters
                found[name] = Facts(make, norms, knowledge, nearest)
        return found

    def run(self, facts: Facts, options: Mapping[str, Any], question: Question) -> Tensor:
        estimators = self.load("", ".estimators.classification")
        classifier = estimators.PyTorchClassifier(
            question.model,
            loss=nn.CrossEntropyLoss(),
            input_shape=tuple(question.x.shape[1:]),
            nb_classes=question.classes,
            clip_values=(0.0, 1.0),
            device_type="gpu" if question.x.is_cuda else "cpu",
        )
        asked = {
            "eps": question.epsilon,
            "norm": NORMS[question.norm].order,
            "targeted": False,
            "verbose": False,
        }
        taken = inspect.signature(facts.make).parameters
        ours = {key: value for key, value in asked.items() if key in taken}
        attack = facts.make(classifier, **ours, **options)
        images = attack.generate(question.x.cpu().numpy(), question.y.cpu().numpy())
        return torch.from_numpy(np.asarray(images, dtype=np.float32))
