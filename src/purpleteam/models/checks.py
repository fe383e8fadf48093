"""What is proved about stored models: the net that is served is the net that was evaluated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from purpleteam.core.cards import find_stored
from purpleteam.core.checks import CHECKS, Check, Outcome, Target
from purpleteam.models.loading import build
from purpleteam.models.store import TOLERANCE, Provenance, load_weights, store

__all__ = ["OnnxParity"]


@CHECKS.register("model.onnx-parity")
class OnnxParity(Check):
    """The .onnx file gives the logits of the .safetensors file, model by model."""

    id = "model.onnx-parity"
    proves = "The model that the app runs (ONNX) answers as the model that was evaluated (PyTorch)."
    needs = ("model",)

    def examine(self, target: Target) -> Outcome:
        path = target.model or Path()
        stems = [path.with_suffix("")] if path.is_file() else _stems(path)
        differences = {stem.name: _difference(stem) for stem in stems}
        worst = max(differences.values(), default=float("inf"))
        return Outcome(
            passed=bool(stems) and worst <= TOLERANCE,
            measured={"models": len(stems), "largest_difference": round(worst, 6)},
            threshold=TOLERANCE,
            inputs={stem.name: find_stored(str(stem)).card.digest for stem in stems},
        )

    def bad_example(self, folder: Path) -> Target:
        provenance = Provenance(
            architecture="small_cnn", shape=(1, 28, 28), classes=("0", "1"), recipe={}
        )
        for seed, name in enumerate(("one", "other")):
            store(build("small_cnn", (1, 28, 28), 2, seed=seed), folder / name, provenance)
        (folder / "one.onnx").write_bytes((folder / "other.onnx").read_bytes())
        for other in folder.glob("other.*"):
            other.unlink()
        return Target(model=folder / "one.safetensors")


def _stems(folder: Path) -> list[Path]:
    return sorted(path.with_suffix("") for path in folder.glob("[!.]*.safetensors"))


def _difference(stem: Path) -> float:
    from onnxruntime import InferenceSession, SessionOptions

    card = find_stored(str(stem)).card
    shape = (int(card.input["channels"]), int(card.input["height"]), int(card.input["width"]))
    net = build(card.architecture, shape, len(card.classes), seed=0).eval()
    load_weights(net, stem.with_name(stem.name + ".safetensors"))
    options = SessionOptions()
    options.intra_op_num_threads = 1
    content = stem.with_name(stem.name + ".onnx").read_bytes()
    session = InferenceSession(content, options, providers=["CPUExecutionProvider"])
    x = torch.rand(16, *shape, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        ours = net(x).numpy()
    theirs = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    scale = max(1.0, float(np.abs(ours).max()))
    return float(np.abs(ours - theirs).max()) / scale
