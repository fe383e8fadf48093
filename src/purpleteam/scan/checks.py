"""The executed checks of code and of model files, each with an example that it must fail on."""

import json
import zipfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from purpleteam.core.cards import FORMATS, ModelCard
from purpleteam.core.checks import CHECKS, Check, Outcome, Target
from purpleteam.core.digest import sha256_file
from purpleteam.core.errors import UsageError
from purpleteam.core.signing import SIGNATURE
from purpleteam.scan.engine import scan
from purpleteam.scan.judgement import judge
from purpleteam.scan.scanner import Tree, is_code, walk
from purpleteam.scan.settle import UNREAD

SHOWN = 5


class CodeCheck(Check):
    """Chosen scanners find nothing of chosen rules in the source."""

    needs = ("code",)
    scanners: ClassVar[tuple[str, ...]] = ("ml-code",)
    least: ClassVar[str] = "note"
    rules: ClassVar[tuple[str, ...] | None] = None  # those that count; None: all of them
    planted: ClassVar[str]  # source with the hole that the check must find

    def examine(self, target: Target) -> Outcome:
        path = target.code or Path()
        tree, result = walk(path), scan([path], self.scanners)
        left_out = [row for row in result.findings if row.rule == UNREAD.id]
        unread = [f"{row.place['path']}: {row.message}" for row in left_out]
        unread += [  # links, and folders that could not be opened
            f"{name} was not read: {why}"
            for name, why in tree.skipped
            if is_code(Path(name)) or why.startswith("cannot be read")
        ]
        worst = [row for row in result.worst(self.least) if row.rule != UNREAD.id]
        findings = [row for row in worst if self.rules is None or row.rule in self.rules]
        places = [f"{row.rule} {row.place['path']}:{row.place.get('line', 1)}" for row in findings]
        troubles = [*places, *unread, *result.errors]
        return Outcome(
            passed=not troubles and bool(result.scanned),
            measured={
                "findings": len(findings),
                "files": len(result.scanned),
                "not_read": len(unread) + len(result.errors),
                "silenced": len(result.silenced),
            },
            threshold={"findings": 0, "not_read": 0, "severity": self.least},
            message=_shown(troubles),
            inputs={tree.name(path): tree.digest()},
        )

    def bad_example(self, folder: Path) -> Target:
        (folder / "planted.py").write_text(self.planted, encoding="utf-8")
        return Target(code=folder)


@CHECKS.register("code.sast")
class StaticAnalysis(CodeCheck):
    """Static analysis finds nothing of medium severity or worse in the code."""

    scanners, least = ("bandit", "ml-code"), "medium"
    planted = "import subprocess\nsubprocess.call(input(), shell=True)\n"


@CHECKS.register("code.no-unsafe-load")
class NoUnsafeLoad(CodeCheck):
    """No line of the code loads a file in a way that runs what it says."""

    rules = (*("PT001", "PT002", "PT003", "PT004"), *("PT009", "PT011", "PT013", "PT014", "PT015"))
    planted = "import torch\nmodel = torch.load('model.pt', weights_only=False)\n"


@CHECKS.register("code.debug-off")
class DebugOff(CodeCheck):
    """No line of the code starts a web app with its debugger or a tunnel."""

    rules = ("PT005", "PT006")
    planted = "from flask import Flask\napp = Flask('a')\napp.run(debug=True)\n"


@CHECKS.register("code.secrets")
class NoSecrets(CodeCheck):
    """No key or password lies in the source tree."""

    scanners = ("secrets",)
    planted = "KEY = 'AKIA" + "Q7" * 8 + "'\n"


@CHECKS.register("run.secrets")
class NoSecretsRecorded(NoSecrets):
    """No key or password lies in the records, the request and the files of the run."""

    needs = ("run",)

    def examine(self, target: Target) -> Outcome:
        found = super().examine(replace(target, code=target.run))
        measured = {"findings": found.measured["findings"]}
        return replace(found, measured=measured, inputs={})  # as the files hold times, too

    def bad_example(self, folder: Path) -> Target:
        return Target(run=super().bad_example(folder).code)


@CHECKS.register("model.format")
class ModelFormat(Check):
    """Every model file is well-formed safetensors, ONNX or JSON; no pickle."""

    needs = ("model",)

    def examine(self, target: Target) -> Outcome:
        tree = _model_files(target)
        bad = {tree.name(file): why for file in tree.files if (why := _not_plain(file))}
        bad.update(tree.skipped)
        return Outcome(
            passed=bool(tree.files) and not bad,
            measured={"files": len(tree.files), "refused": len(bad)},
            threshold={"refused": 0},
            message=_shown(f"{name}: {why}" for name, why in bad.items()),
            inputs={tree.name(file): sha256_file(file) for file in tree.files},
        )

    def bad_example(self, folder: Path) -> Target:
        path = folder / "model.pt"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("model/data.pkl", b"\x80\x02cposix\nsystem\nX\x04\0\0\0true\x85R.")
            archive.writestr("model/version", b"3\n")
        return Target(model=path)


def _not_plain(file: Path) -> str | None:
    """Return why a file is no plain data, or None."""
    if file.suffix in (".json", SIGNATURE):
        try:
            json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            return "no JSON"
        return None
    judged = judge(file)
    for problem in judged.problems:
        if problem.grade != "note":
            return str(problem)
    return None if judged.kind in ("safetensors", "onnx") else f"of kind {judged.kind}"


@CHECKS.register("model.digest")
class ModelDigest(Check):
    """The model files are, byte for byte, those of the recorded digests."""

    needs = ("model",)

    def examine(self, target: Target) -> Outcome:
        tree = _model_files(target)
        digests = {tree.name(file): sha256_file(file) for file in tree.files}
        wanted = _wanted(tree, target.model_digest)
        bad = [
            f"{name} is {digests.get(name, 'missing')}, not {digest}"
            for name, digest in wanted.items()
            if digests.get(name) != digest
        ]
        weights = {tree.name(file) for file in tree.files if file.suffix in FORMATS[:2]}
        bad += [f"{name} has no recorded digest" for name in sorted(weights - wanted.keys())]
        return Outcome(
            passed=bool(wanted) and not bad,
            measured={name: digests.get(name) for name in wanted},
            threshold=wanted,
            message=_shown(bad) if wanted else "no digest and no model card to compare with",
            inputs=digests,
        )

    def bad_example(self, folder: Path) -> Target:
        path = folder / "model.safetensors"
        path.write_bytes(b"as it was signed off")
        digest = sha256_file(path)
        path.write_bytes(b"as it was signed ofg")
        return Target(model=path, model_digest=digest)


def _wanted(tree: Tree, digest: str | None) -> dict[str, str]:
    if digest is not None:
        weights = [file for file in tree.files if file.suffix == ".safetensors"] or tree.files
        if len(weights) != 1:
            raise UsageError(f"one digest cannot hold for {len(weights)} model files")
        return {tree.name(weights[0]): digest}
    wanted: dict[Path, str] = {}
    for file in tree.files:
        card = file.with_suffix(".json")
        if card.is_file() and file.suffix in FORMATS:
            facts = ModelCard.read(card)
            wanted[file.with_suffix(".safetensors")] = facts.digest
            wanted[file.with_suffix(".onnx")] = facts.onnx_digest
    root = tree.root if tree.root.is_file() else None
    return {tree.name(file): digest for file, digest in wanted.items() if root in (None, file)}


def _model_files(target: Target) -> Tree:
    """Return the model's files; the stem or the card of a stored model stands for all three."""
    path = target.model or Path()
    if path.exists() and path.suffix != ".json":
        return walk(path)
    path = path.with_suffix("") if path.suffix == ".json" else path
    stored = [path.with_name(path.name + suffix) for suffix in FORMATS]
    files = tuple(file for file in stored if file.is_file())
    if not files:
        raise UsageError(f"path {str(path)!r} does not exist")
    return Tree(path.parent, files)


def _shown(troubles: Iterable[str]) -> str:
    listed = list(troubles)
    rest = f"; and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return "; ".join(listed[:SHOWN]) + rest
