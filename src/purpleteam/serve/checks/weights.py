"""Check that the file which answers holds the weights that are on record."""

import shutil
from pathlib import Path

from purpleteam.core.cards import find_stored
from purpleteam.core.checks import CHECKS, Check, Outcome, Target
from purpleteam.serve.weights import held


@CHECKS.register("model.onnx-weights")
class OnnxWeights(Check):
    """The ONNX file of each model holds the weights on record, and no others."""

    needs = ("model",)

    def examine(self, target: Target) -> Outcome:
        path = target.model or Path()
        files = sorted(path.glob("[!.]*.safetensors")) if path.is_dir() else [path]
        found, inputs = {}, {}
        for model in (find_stored(str(file)) for file in files):
            found[model.stem.name] = held(model.onnx.read_bytes(), model.weights.read_bytes())
            inputs[model.stem.name] = model.card.digest
        wrong = [f"{name}: {one}" for name, one in found.items() if not one.whole]
        return Outcome(
            passed=bool(found) and not wrong,
            measured={
                "models": len(found),
                "tensors": sum(len(one.verbatim) + len(one.folded) for one in found.values()),
                "missing": sum(len(one.missing) for one in found.values()),
                "foreign": sum(len(one.foreign) for one in found.values()),
            },
            threshold="a model at least, none missing, none foreign",
            message="; ".join(wrong)[:300],
            inputs=inputs,
        )

    def bad_example(self, folder: Path) -> Target:
        """The ONNX file of one model under the name of another."""
        named, other = find_stored("standard"), find_stored("robust-0.3")
        for file in (named.weights, named.stem.with_suffix(".json")):
            shutil.copy(file, folder)
        shutil.copy(other.onnx, folder / named.onnx.name)
        return Target(model=folder / named.weights.name)
