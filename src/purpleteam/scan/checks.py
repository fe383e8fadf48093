"""The executed checks of this room, each with an example that it must fail on.

code.sast             no finding of medium or worse in the source
code.no-unsafe-load   no load that runs what a file says
code.debug-off        no debugger, no public share
code.secrets          no key or password in the tree
model.format          every model file is safetensors, ONNX or JSON, and well-formed
model.digest          the model files are those of their digests
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar

from purpleteam.core.cards import ModelCard
from purpleteam.core.checks import CHECKS, Check, Outcome, Target
from purpleteam.core.digest import sha256_file
from purpleteam.core.errors import UsageError
from purpleteam.scan.engine import scan
from purpleteam.scan.formats.sniff import sniff
from purpleteam.scan.scanner import PYTHON, ScanResult, Tree, walk
from purpleteam.scan.scanners.model_file import model_problems

SHOWN = 5


class CodeCheck(Check):
    """A check that passes where chosen scanners find nothing of chosen rules in the source."""

    needs: ClassVar[tuple[str, ...]] = ("code",)
    scanners: ClassVar[tuple[str, ...]]
    least: ClassVar[str] = "note"
    rules: ClassVar[frozenset[str] | None] = None
    """The rules that count; all of them where it is None."""
    planted: ClassVar[str]
    """Source with the hole that the check must find."""

    def examine(self, target: Target) -> Outcome:
        path = _needed(target.code, "code")
        tree = walk(path)
        result = scan([path], self.scanners)
        found = [one for one in result.worst(self.least) if self._counts(one.rule)]
        blind = [f"{name} was not read: {why}" for name, why in _unread(tree, result)]
        places = [f"{one.rule} {one.place['path']}:{one.place.get('line', 1)}" for one in found]
        troubles = [*places, *blind, *result.errors]
        return Outcome(
            passed=not troubles and bool(result.scanned),
            measured={
                "findings": len(found),
                "files": len(result.scanned),
                "not_read": len(blind) + len(result.errors),
                "silenced": len(result.silenced),
            },
            threshold={"findings": 0, "not_read": 0, "severity": self.least},
            message=_shown(troubles),
            inputs={tree.name(path): tree.digest()},
        )

    def bad_example(self, folder: Path) -> Target:
        (folder / "planted.py").write_text(self.planted, encoding="utf-8")
        return Target(code=folder)

    def _counts(self, rule: str) -> bool:
        return self.rules is None or rule in self.rules


@CHECKS.register("code.sast")
class StaticAnalysis(CodeCheck):
    """Bandit and our own rules, medium or worse."""

    id: ClassVar[str] = "code.sast"
    proves: ClassVar[str] = "Static analysis finds nothing of medium severity or worse in the code."
    scanners: ClassVar[tuple[str, ...]] = ("bandit", "ml-code")
    least: ClassVar[str] = "medium"
    planted: ClassVar[str] = "import subprocess\nsubprocess.call(input(), shell=True)\n"


@CHECKS.register("code.no-unsafe-load")
class NoUnsafeLoad(CodeCheck):
    """No torch.load, pickle, object array or YAML load that runs what the file says."""

    id: ClassVar[str] = "code.no-unsafe-load"
    proves: ClassVar[str] = "No line of the code loads a file in a way that runs what it says."
    scanners: ClassVar[tuple[str, ...]] = ("ml-code",)
    rules: ClassVar[frozenset[str] | None] = frozenset(
        {"PT001", "PT002", "PT003", "PT004", "PT009", "PT011"}
    )
    planted: ClassVar[str] = "import torch\nmodel = torch.load('model.pt', weights_only=False)\n"


@CHECKS.register("code.debug-off")
class DebugOff(CodeCheck):
    """No web debugger and no public tunnel."""

    id: ClassVar[str] = "code.debug-off"
    proves: ClassVar[str] = "No line of the code starts a web app with its debugger or a tunnel."
    scanners: ClassVar[tuple[str, ...]] = ("ml-code",)
    rules: ClassVar[frozenset[str] | None] = frozenset({"PT005", "PT006"})
    planted: ClassVar[str] = "from flask import Flask\napp = Flask('a')\napp.run(debug=True)\n"


@CHECKS.register("code.secrets")
class NoSecrets(CodeCheck):
    """No key or password in any text file."""

    id: ClassVar[str] = "code.secrets"
    proves: ClassVar[str] = "No key or password lies in the source tree."
    scanners: ClassVar[tuple[str, ...]] = ("secrets",)
    planted: ClassVar[str] = "KEY = 'AKIA" + "Q7" * 8 + "'\n"


@CHECKS.register("model.format")
class ModelFormat(Check):
    """Every file of the model is plain data; what is not known is refused."""

    id: ClassVar[str] = "model.format"
    proves: ClassVar[str] = "Every model file is well-formed safetensors, ONNX or JSON; no pickle."
    needs: ClassVar[tuple[str, ...]] = ("model",)

    def examine(self, target: Target) -> Outcome:
        tree = _model_files(_needed(target.model, "model"))
        bad = {tree.name(file): why for file in tree.files if (why := _not_plain(file))}
        bad.update(tree.skipped)
        return Outcome(
            passed=bool(tree.files) and not bad,
            measured={"files": len(tree.files), "refused": len(bad)},
            threshold={"refused": 0},
            message=_shown(f"{name}: {why}" for name, why in bad.items()),
            inputs=_digests(tree),
        )

    def bad_example(self, folder: Path) -> Target:
        path = folder / "model.pt"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("model/data.pkl", b"\x80\x02cposix\nsystem\nX\x04\0\0\0true\x85R.")
            archive.writestr("model/version", b"3\n")
        return Target(model=path)


@CHECKS.register("model.digest")
class ModelDigest(Check):
    """The bytes of the model are those that its card, or the operator, names."""

    id: ClassVar[str] = "model.digest"
    proves: ClassVar[str] = "The model files are, byte for byte, those of the recorded digests."
    needs: ClassVar[tuple[str, ...]] = ("model",)

    def examine(self, target: Target) -> Outcome:
        path = _needed(target.model, "model")
        tree = _model_files(path)
        found = _digests(tree)
        wanted = _wanted(tree, target.model_digest)
        bad = [
            f"{name} is {found.get(name, 'missing')}, not {digest}"
            for name, digest in wanted.items()
            if found.get(name) != digest
        ]
        weights = {tree.name(one) for one in tree.files if one.suffix in (".safetensors", ".onnx")}
        bad += [f"{name} has no recorded digest" for name in sorted(weights - wanted.keys())]
        return Outcome(
            passed=bool(wanted) and not bad,
            measured={name: found.get(name) for name in wanted},
            threshold=wanted,
            message=_shown(bad) if wanted else "no digest and no model card to compare with",
            inputs=found,
        )

    def bad_example(self, folder: Path) -> Target:
        path = folder / "model.safetensors"
        path.write_bytes(b"as it was signed off")
        digest = sha256_file(path)
        path.write_bytes(b"as it was signed ofg")
        return Target(model=path, model_digest=digest)


def _needed(path: Path | None, what: str) -> Path:
    if path is None:
        raise UsageError(f"this check needs {what}")
    return path


def _unread(tree: Tree, result: ScanResult) -> Iterable[tuple[str, str]]:
    """Return source files that a scanner skipped, and folders that could not be opened."""
    sources = {tree.name(file) for file in tree.files if file.suffix in PYTHON}
    return [
        (name, why)
        for name, why in result.skipped
        if name in sources or Path(name).suffix in PYTHON or why.startswith("cannot be read")
    ]


def _shown(troubles: Iterable[str]) -> str:
    listed = list(troubles)
    rest = f"; and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return "; ".join(listed[:SHOWN]) + rest


def _model_files(path: Path) -> Tree:
    """Return the model's files; the stem or the card of a stored model stands for all three."""
    if path.exists() and path.suffix != ".json":
        return walk(path)
    path = path.with_suffix("") if path.suffix == ".json" else path
    stored = [path.with_name(path.name + suffix) for suffix in (".safetensors", ".onnx", ".json")]
    files = tuple(one for one in stored if one.is_file())
    if not files:
        raise UsageError(f"path {str(path)!r} does not exist")
    return Tree(path.parent, files, ())


def _digests(tree: Tree) -> dict[str, str]:
    return {tree.name(file): sha256_file(file) for file in tree.files}


def _not_plain(file: Path) -> str | None:
    """Return why a file is no plain data, or None."""
    if file.suffix == ".json":
        try:
            json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            return "no JSON"
        return None
    kind = sniff(file)
    problems = [problem.message for problem in model_problems(file, kind)]
    if problems:
        return problems[0]
    return None if kind in ("safetensors", "onnx") else f"of kind {kind}"


def _wanted(tree: Tree, digest: str | None) -> Mapping[str, str]:
    """Return the digest that each file must have: the one given, or those of the cards."""
    if digest is not None:
        weights = [one for one in tree.files if one.suffix == ".safetensors"] or list(tree.files)
        if len(weights) != 1:
            raise UsageError(f"one digest cannot hold for {len(weights)} model files")
        return {tree.name(weights[0]): digest}
    wanted: dict[Path, str] = {}
    for file in tree.files:
        card = file.with_suffix(".json")
        if card.is_file() and file.suffix in (".safetensors", ".onnx", ".json"):
            read = ModelCard.read(card)
            wanted[file.with_suffix(".safetensors")] = read.digest
            wanted[file.with_suffix(".onnx")] = read.onnx_digest
    alone = tree.root.is_file()
    return {tree.name(file): one for file, one in wanted.items() if not alone or file == tree.root}
