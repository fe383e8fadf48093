"""Model files, by content and not by name: what is not known to be plain data is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from purpleteam.core.records import Finding
from purpleteam.scan.formats.mapped import mapped
from purpleteam.scan.formats.onnx import inspect_onnx
from purpleteam.scan.formats.pickled import inspect_numpy, inspect_pickle, inspect_zip
from purpleteam.scan.formats.problem import Malformed, Problem
from purpleteam.scan.formats.safetensors import inspect_safetensors
from purpleteam.scan.formats.sniff import MODEL_KINDS, MODEL_SUFFIXES, sniff
from purpleteam.scan.result import ScanResult
from purpleteam.scan.scanners import SCANNERS
from purpleteam.scan.tree import walk

__all__ = ["model_problems", "scan_model_files"]

TOOL = "purpleteam model-file"
ARCHIVES = frozenset({"tar", "7z", "hdf5"})


@SCANNERS.register("model-file")
def scan_model_files(path: Path) -> ScanResult:
    """Return findings on every file that is, or claims to be, a model."""
    tree = walk(path)
    findings: list[Finding] = []
    scanned: list[str] = []
    skipped: list[tuple[str, str]] = []
    for file in tree.files:
        try:
            kind = sniff(file)
            if not _is_model(file, kind):
                continue
            problems = list(model_problems(file, kind))
        except OSError as error:
            skipped.append((tree.name(file), f"cannot be read: {error.strerror}"))
            continue
        scanned.append(tree.name(file))
        findings.extend(_finding(problem, tree.name(file)) for problem in problems)
    return ScanResult(findings=tuple(findings), scanned=tuple(scanned), skipped=tuple(skipped))


def model_problems(path: Path, kind: str) -> Iterator[Problem]:
    """Yield what is wrong with a model file whose content is of `kind`."""
    suffix = path.suffix.lower()
    expected = MODEL_SUFFIXES.get(suffix)
    if expected is not None and kind not in expected and kind in MODEL_KINDS:
        yield Problem("name", f"the file is named {suffix} and holds {kind}")
    try:
        yield from _inspect(mapped(path), kind, suffix)
    except Malformed as malformed:
        yield malformed.problem


def _inspect(data: memoryview, kind: str, suffix: str) -> Iterator[Problem]:
    match kind, suffix:
        case "pickle", _:
            yield from inspect_pickle(data)
        case "zip", _:
            yield from inspect_zip(data, is_model=suffix in MODEL_SUFFIXES)
        case "numpy", _:
            yield from inspect_numpy(data)
        case "onnx", _:
            yield from inspect_onnx(data)
        case ("safetensors", _) | (_, ".safetensors"):
            yield from inspect_safetensors(data)
        case _, ".onnx":
            yield from inspect_onnx(data)
        case _:
            yield Problem(
                "unknown-format", f"the file is of kind {kind!r}, which is not looked into"
            )


def _is_model(path: Path, kind: str) -> bool:
    return path.suffix.lower() in MODEL_SUFFIXES or (kind in MODEL_KINDS and kind not in ARCHIVES)


def _finding(problem: Problem, name: str) -> Finding:
    rule = problem.rule
    return Finding(
        tool=TOOL,
        rule=rule.rule,
        severity=rule.severity,
        confidence="high",
        cwe=rule.cwe,
        place={"path": name},
        message=problem.message,
        fix=rule.fix,
    )
