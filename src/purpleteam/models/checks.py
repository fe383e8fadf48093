"""What is proved about stored models: the net that is served is the net that was evaluated."""

from pathlib import Path

import numpy as np
from safetensors.torch import save_file

from purpleteam.core.cards import find_stored
from purpleteam.core.checks import CHECKS, Check, Outcome, Target
from purpleteam.models.guard import switched
from purpleteam.models.store import TOLERANCE, Provenance, build, module_of, onnx_difference, store


@CHECKS.register("model.onnx-parity")
class OnnxParity(Check):
    """The model that the app runs (ONNX) answers as the model that was evaluated (PyTorch)."""

    needs = ("model",)

    def examine(self, target: Target) -> Outcome:
        path = target.model or Path()
        weights = sorted(path.glob("[!.]*.safetensors")) if path.is_dir() else [path]
        models = [find_stored(str(one)) for one in weights]
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
        provenance = Provenance(
            architecture="small_cnn", shape=(1, 28, 28), classes=("0", "1"), recipe={}
        )
        stored = store(build("small_cnn", (1, 28, 28), 2, seed=0), folder / "one", provenance)
        save_file(build("small_cnn", (1, 28, 28), 2, seed=1).state_dict(), stored.weights)
        return Target(model=stored.weights)
