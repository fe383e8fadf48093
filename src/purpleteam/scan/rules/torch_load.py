"""torch.load unpickles: whoever made the file runs code, unless weights_only is True."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import ClassVar

from purpleteam.core.records import Severity
from purpleteam.scan.module import Module, argument, is_false, is_true
from purpleteam.scan.rules.rule import RULES, Hit, Rule

__all__ = ["UnsafeSecondTry", "UnsafeTorchLoad"]

LOADERS = frozenset(
    {
        "torch.load",
        "torch.serialization.load",
        "torch.hub.load_state_dict_from_url",
        "torch.utils.model_zoo.load_url",
    }
)
PARTIAL = "functools.partial"


@RULES.register("PT001")
class UnsafeTorchLoad(Rule):
    """A torch loader that is called, or handed on, without weights_only=True."""

    id: ClassVar[str] = "PT001"
    severity: ClassVar[Severity] = "medium"
    confidence: ClassVar[str] = "high"
    cwe: ClassVar[str] = "CWE-502"
    fix: ClassVar[str] = "pass weights_only=True with torch 2.10 or newer, or load safetensors"

    def look(self, module: Module) -> Iterator[Hit]:
        judged: set[ast.AST] = set()
        for call, name in _loads(module, None):
            judged.update((call.func, *call.args[:1]))
            chosen = argument(call, "weights_only")
            if is_false(chosen):
                yield Hit(call, f"{name} with weights_only=False runs what the file says", "high")
            elif not is_true(chosen):
                yield Hit(call, f"{name} without weights_only=True may run what the file says")
        for node in module.nodes:
            handed_on = isinstance(node, ast.Name | ast.Attribute) and node not in judged
            if handed_on and isinstance(getattr(node, "ctx", None), ast.Load):
                parent_call = module.dotted(node) in LOADERS
                if parent_call and not _is_alias(module, node):
                    yield Hit(node, f"{module.dotted(node)} is handed on without weights_only=True")


@RULES.register("PT002")
class UnsafeSecondTry(Rule):
    """A safe load whose failure leads to an unsafe one: the file chooses which."""

    id: ClassVar[str] = "PT002"
    severity: ClassVar[Severity] = "high"
    confidence: ClassVar[str] = "high"
    cwe: ClassVar[str] = "CWE-502"
    fix: ClassVar[str] = "let the safe load fail; whoever makes the file can make it fail"

    def look(self, module: Module) -> Iterator[Hit]:
        for node in module.nodes:
            if not isinstance(node, ast.Try):
                continue
            tried = (call for part in node.body for call, _ in _loads(module, part))
            if any(is_true(argument(call, "weights_only")) for call in tried):
                for handler in node.handlers:
                    for call, name in _loads(module, handler):
                        if not is_true(argument(call, "weights_only")):
                            yield Hit(call, f"{name} is tried again without weights_only=True")


def _loads(module: Module, inside: ast.AST | None) -> Iterator[tuple[ast.Call, str]]:
    for call, name in module.calls(inside):
        if name in LOADERS:
            yield call, name
        elif name == PARTIAL and call.args and module.dotted(call.args[0]) in LOADERS:
            yield call, module.dotted(call.args[0])


def _is_alias(module: Module, node: ast.AST) -> bool:
    """Tell `load = torch.load`: the calls of `load` are judged instead."""
    return any(
        isinstance(one, ast.Assign) and one.value is node and isinstance(one.targets[0], ast.Name)
        for one in module.nodes
    )
