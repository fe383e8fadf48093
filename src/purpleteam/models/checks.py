"""What is proved about stored models: the net that is served is the net that was evaluated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from purpleteam.core.cards import StoredModel, find_stored
from purpleteam.core.checks import CHECKS, Check, Outcome, Target
from purpleteam.models.building import build, module_of
from purpleteam.models.guard import guarded, switched
from purpleteam.models.store import TOLERANCE, Provenance, store

__all__ = ["OnnxParity"]


@CHECKS.register("model.onnx-parity")
class OnnxParity(Check):
    """The .onnx file gives the logits of the .safetensors file, model by model."""

    id = "model.onnx-parity"
    proves = "The model that the app runs (ONNX) answers as the model that was evaluated (PyTorch)."
    needs = ("model",)

    def examine(self, target: Target) -> Outcome:
        path = target.model or Path()
        models = [find_stored(str(one)) for one in (_weights(path) if path.is_dir() else [path])]
        if not models:
            return Outcome(passed=False, threshold=TOLERANCE, message="there is no stored model")
        differences = {model.stem.name: _difference(model) for model in models}
        worst = max(differences.values())
        over = [name for name, difference in differences.items() if not difference <= TOLERANCE]
        return Outcome(
            passed=not over,
            measured={
                "models": len(models),
                "largest_difference": round(worst, 6) if np.isfinite(worst) else str(worst),
            },
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


def _weights(folder: Path) -> list[Path]:
    return sorted(folder.glob("[!.]*.safetensors"))


def _difference(model: StoredModel) -> float:
    from onnxruntime import InferenceSession, SessionOptions

    shape = model.card.shape
    net = switched(module_of(model))
    options = SessionOptions()
    options.intra_op_num_threads = 1
    content = model.onnx.read_bytes()
    session = InferenceSession(content, options, providers=["CPUExecutionProvider"])
    x = torch.rand(16, *shape, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        ours = guarded(net)(x).numpy()
    theirs = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    scale = max(1.0, float(np.abs(ours).max()))
    return float(np.abs(ours - theirs).max()) / scale
