"""What is proved about stored models: the net that is served is the net that was evaluated."""

import shutil
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file

from purpleteam.core.cards import find_stored
from purpleteam.core.checks import CHECKS, Check, Outcome, Target
from purpleteam.models.guard import switched
from purpleteam.models.store import TOLERANCE, module_of, onnx_difference


@CHECKS.register("model.onnx-parity")
class OnnxParity(Check):
    """The model that the app runs (ONNX) answers as the model that was evaluated (PyTorch)."""

    needs = ("model",)

    def examine(self, target: Target) -> Outcome:
        path = target.model or Path()
        weights = sorted(path.glob("[!.]*.safetensors")) if path.is_dir() else [path]
        models = [find_stored(str(file)) for file in weights]
        if not models:
            return Outcome(passed=False, threshold=TOLERANCE, message="there is no stored model")
        differences = {}
        for model in models:
            net, shape = switched(module_of(model)), model.card.shape
            difference, scale = onnx_difference(net, model.onnx, shape, seed=1)
            differences[model.stem.name] = difference / scale
        worst = max(differences.values())
        largest = round(worst, 6) if np.isfinite(worst) else str(worst)
        over = [name for name, difference in differences.items() if not difference <= TOLERANCE]
        return Outcome(
            passed=not over,
            measured={"models": len(models), "largest_difference": largest},
            threshold=TOLERANCE,
            message=f"the two nets differ: {', '.join(over)}" if over else "",
            inputs={model.stem.name: model.card.digest for model in models},
        )

    def bad_example(self, folder: Path) -> Target:
        shipped = find_stored("standard")
        for file in (shipped.onnx, shipped.stem.with_suffix(".json")):
            shutil.copy(file, folder)
        weights = folder / shipped.weights.name
        save_file({name: 2 * part for name, part in load_file(shipped.weights).items()}, weights)
        return Target(model=weights)
