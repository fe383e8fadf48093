"""What a rule is, and what it looks at: a parsed file whose names are followed to their imports."""

from __future__ import annotations

import ast
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from purpleteam.core.records import Severity
from purpleteam.core.registry import Registry

ALLOW = re.compile(r"#\s*purple: allow (PT\d{3}(?:,\s*PT\d{3})*)\s+\S.{5,}")
"""`# purple: allow PT004 because ...`; without a reason it allows nothing."""
IMPORTERS = ("__import__", "importlib.import_module")


@dataclass(frozen=True)
class Module:
    """One file: its nodes, its text, and what its names stand for."""

    nodes: tuple[ast.AST, ...]
    """Every node of the tree, outer ones first."""
    lines: tuple[str, ...]
    names: dict[str, str]

    def dotted(self, node: ast.AST | None) -> str:
        """Return the full dotted name that an expression stands for, or an empty text."""
        match node:
            case ast.Name(id=name):
                return self.names.get(name, name)
            case (
                ast.Attribute(value=value, attr=str(name))
                | ast.Call(
                    func=ast.Name(id="getattr"), args=[value, ast.Constant(value=str(name)), *_]
                )
            ):
                base = self.dotted(value)
                return f"{base}.{name}" if base else ""
            case ast.Call(func=function, args=[ast.Constant(value=str(name)), *_]):
                return name if self.dotted(function) in IMPORTERS else ""
        return ""

    def calls(self, inside: ast.AST | None = None) -> Iterator[tuple[ast.Call, str]]:
        """Yield every call, in the file or in one of its nodes, with the name of what is called."""
        if inside is None:
            yield from self._calls
            return
        for node in ast.walk(inside):
            if isinstance(node, ast.Call):
                yield node, self.dotted(node.func)

    @cached_property
    def _calls(self) -> tuple[tuple[ast.Call, str], ...]:
        calls = (node for node in self.nodes if isinstance(node, ast.Call))
        return tuple((call, self.dotted(call.func)) for call in calls)

    def imports(self, *packages: str) -> bool:
        """Return whether the file imports one of the packages."""
        return not {name.partition(".")[0] for name in self.names.values()}.isdisjoint(packages)

    def allowed(self, line: int) -> set[str]:
        """Return the rules that a comment on the line allows, with a reason."""
        match = ALLOW.search(self.lines[line - 1]) if 0 < line <= len(self.lines) else None
        return set(re.findall(r"PT\d{3}", match.group(1))) if match else set()


def parse(source: bytes) -> Module:
    """Return the module; source that is no Python is a SyntaxError or a ValueError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the scanned code's own, such as odd escapes
        nodes = tuple(ast.walk(ast.parse(source)))
    names: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                names[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    module = Module(nodes, tuple(source.decode("utf-8", "replace").splitlines()), names)
    for node in nodes:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Attribute() as value):
                target = module.dotted(value)
                if module.imports(target.partition(".")[0]):
                    names.setdefault(name, target)
    return module


def argument(call: ast.Call, name: str) -> ast.expr | None:
    """Return the keyword argument of that name."""
    return next((keyword.value for keyword in call.keywords if keyword.arg == name), None)


def is_literal(node: ast.expr | None, value: bool) -> bool:
    """Return whether the expression is the literal True, or the literal False."""
    return isinstance(node, ast.Constant) and node.value is value


@dataclass(frozen=True)
class Hit:
    """One line that breaks a rule; `severity` where it differs from the rule's own."""

    node: ast.AST
    message: str
    severity: Severity | None = None

    @property
    def line(self) -> int:
        """The line of the node."""
        return int(getattr(self.node, "lineno", 1))


class Rule(ABC):
    """One rule; its identifier never changes its meaning."""

    id: ClassVar[str]
    severity: ClassVar[Severity]
    confidence: ClassVar[str] = "high"
    cwe: ClassVar[str]
    fix: ClassVar[str]

    @abstractmethod
    def look(self, module: Module) -> Iterator[Hit]:
        """Yield the lines that break the rule."""


RULES: Registry[type[Rule]] = Registry("rule")
