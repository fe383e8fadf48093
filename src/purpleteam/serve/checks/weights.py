"""Checks that what answers holds the weights on record, and is signed where it must be."""

import shutil
import tempfile
from pathlib import Path

from purpleteam.core.cards import FORMATS, find_stored
from purpleteam.core.checks import CHECKS, Check, Outcome, Target
from purpleteam.core.errors import Absent, ModelError
from purpleteam.core.provenance import find_subject
from purpleteam.core.scratch import scratch
from purpleteam.core.signing import new_key, signer_of
from purpleteam.serve.checks.sandbox import SERVE, started
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


@CHECKS.register("web.signature")
class RequiredSignature(Check):
    """Told a public key, the app does not start with a model that another key signed.

    `purple serve --require-signature` is started on a copy of the served model, which is whole and
    signed, by a key that was made for it.
    """

    needs = ("url", "model")  # of a running app, but of a process of its own

    def examine(self, target: Target) -> Outcome:
        if target.model is not None and target.model.is_dir():
            raise Absent("a folder of models: which of them is served?")
        model = find_stored(str(target.model))
        with tempfile.TemporaryDirectory(prefix="purple-signature-", dir=scratch()) as folder:
            for end in FORMATS:
                shutil.copy(model.stem.with_name(model.stem.name + end), folder)
            copy = find_subject(Path(folder) / model.weights.name)
            copy.signature.write_bytes(copy.signed_by(signer_of(new_key()[0])))
            required = Path(folder) / "required.pub"
            required.write_bytes(new_key()[1])
            required.chmod(0o644)
            told = () if target.command else ("--require-signature", str(required))
            command = (*SERVE, str(copy.root / copy.name), *told)
            try:
                with started(command):
                    said = "serving"
            except ModelError as error:
                said = "not signed" if "is not signed by the key" in str(error) else str(error)
        return Outcome(
            passed=said == "not signed",
            measured=said,
            threshold="not signed",
            inputs={model.stem.name: model.card.digest},
        )

    def bad_example(self, folder: Path) -> Target:
        """The same app, which is told no key."""
        return Target(url="", model=find_stored("standard").weights, command=SERVE)
