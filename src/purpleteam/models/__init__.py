"""Classifiers: how they look, are trained, evaluated, kept and found again.

- `architectures/`  nets by name, one file each; normalisation is a layer inside
- `recipes`         how long, at what rate, on which augmented images;  `training`: the loop
- `guard`           where other people's code is called, and where in its answer the logits are
- `inference`       logits for images, how right they are, and a model as attacks ask it
- `loading`         from a name or an object to a classifier
- `store`           safetensors + ONNX + card, the two nets compared; and a net out of them again
- `weights`         a state dict as wrappers wrote it, under the names of a net
- `black_box`       ONNX files, MAITE models, functions, only asked;  `estimators`: scikit-learn's
- `endpoint`        an app over HTTP;  `inference_server`: KServe's protocols, `instances`
- `adapters`        around a brought net: the input that it wants, the order of its outputs
- `fit`             what a few answers of a brought model show, and the input that it learned
- `devices`         CPU, GPU, bfloat16 where it is faster, and a model left as it was
- `checks`          executed checks on stored models
"""

from purpleteam.models.architectures import ARCHITECTURES
from purpleteam.models.inference import Classifier, Evaluation, evaluate, logits
from purpleteam.models.loading import LoadedModel, build, load
from purpleteam.models.recipes import RECIPES, Recipe
from purpleteam.models.store import Provenance, store
from purpleteam.models.training import Training, train

__all__ = ["ARCHITECTURES", "RECIPES", "Classifier", "Evaluation", "LoadedModel", "Provenance"]
__all__ += ["Recipe", "Training", "build", "evaluate", "load", "logits", "store", "train"]
