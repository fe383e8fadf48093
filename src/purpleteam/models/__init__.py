"""Classifiers: how they look, are trained, evaluated, kept and found again.

- `architectures/`  nets by name, one file each; normalisation is a layer inside
- `recipes`         how long, at what rate, on which `augmentation`;  `training`: the loop
- `checkpoint`      where a training stands after an epoch, to go on to the same bytes
- `guard`           where other people's code is called;  `nets`: a model as attacks ask it
- `answers`         where in it the logits are
- `inference`       logits for images;  `evaluation`: accuracy, per-class scores, calibration
- `store`           safetensors + ONNX + card, the two nets compared;  `loading`: from a name to it
- `black_box`       what can only be asked: `endpoint` (an app, over a `connection` to its
                    `address`), `onnx_file`
- `weights`         a state dict as wrappers wrote it, under the names of a net
- `building`        a net from what a card or the user's own code says
- `normalisation`   the input that a brought net wants;  `class_order`: of its outputs
- `maite`           classifiers of that protocol
- `fit`             what a first look at a brought model shows;  `hints`: what it may have
                    learned, by how an `input_fit`s
- `devices`         CPU, GPU, bfloat16 where it is faster, and a model left as it was
- `checks`          executed checks on stored models
"""

from __future__ import annotations

from purpleteam.models.architectures import ARCHITECTURES
from purpleteam.models.evaluation import Evaluation, evaluate
from purpleteam.models.inference import Classifier, logits
from purpleteam.models.loading import LoadedModel, build, load
from purpleteam.models.recipes import RECIPES, Recipe
from purpleteam.models.store import Provenance, store
from purpleteam.models.training import Training, train

__all__ = [
    "ARCHITECTURES",
    "RECIPES",
    "Classifier",
    "Evaluation",
    "LoadedModel",
    "Provenance",
    "Recipe",
    "Training",
    "build",
    "evaluate",
    "load",
    "logits",
    "store",
    "train",
]
