"""Text and downloads that become code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import ClassVar

from purpleteam.core.records import Severity
from purpleteam.scan.module import Module, argument, is_false
from purpleteam.scan.rules.rule import RULES, Hit, Rule

__all__ = ["CodeOfAModel", "EvalOrExec"]

EVALUATORS = frozenset({"eval", "exec", "builtins.eval", "builtins.exec", "pandas.eval"})
TRUST = ("trust_remote_code", "trust_repo")


@RULES.register("PT008")
class EvalOrExec(Rule):
    """Python's eval or exec on anything but a constant."""

    id: ClassVar[str] = "PT008"
    severity: ClassVar[Severity] = "medium"
    confidence: ClassVar[str] = "high"
    cwe: ClassVar[str] = "CWE-95"
    fix: ClassVar[str] = "parse the text (json, ast.literal_eval), or look names up in a table"

    def look(self, module: Module) -> Iterator[Hit]:
        own = {node.name for node in module.nodes if isinstance(node, ast.FunctionDef)}
        for call, name in module.calls():
            constant = bool(call.args) and isinstance(call.args[0], ast.Constant)
            if name in EVALUATORS - own and not constant:
                yield Hit(call, f"{name} runs text as code")


@RULES.register("PT011")
class CodeOfAModel(Rule):
    """A download that may bring its own code along."""

    id: ClassVar[str] = "PT011"
    severity: ClassVar[Severity] = "high"
    confidence: ClassVar[str] = "high"
    cwe: ClassVar[str] = "CWE-829"
    fix: ClassVar[str] = "download weights only, at a pinned revision, and check their digest"

    def look(self, module: Module) -> Iterator[Hit]:
        for call, name in module.calls():
            for option in TRUST:
                chosen = argument(call, option)
                constant = isinstance(chosen, ast.Constant) and chosen.value in (None, "check")
                if chosen is not None and not is_false(chosen) and not constant:
                    yield Hit(call, f"{name or 'a call'} with {option} runs code from elsewhere")
