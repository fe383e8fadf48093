"""Our own rules for machine-learning code, PT001 upwards: functions of a parsed file.

- `loading`   what runs code when it is read;  `web`: how an app is set up
- `answers`   what a served model gives away;  `requests`: what clients bring along
- `served`    which functions answer clients, and what flows through them

PT020, secrets, is a scanner of its own.
"""

import ast
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import Any, NamedTuple

from purpleteam.core.records import Severity
from purpleteam.core.registry import Registry
from purpleteam.scan.scanner import Rule

__all__ = ["RULES", "Hit", "Module", "argument", "is_literal", "nodes_of", "parse", "rule"]

MAX_NAME = 1000  # longer ones are no rule's; each could be one part longer than the last
NO_NODES = frozenset({"ctx", "op", "ops", "attr", "arg", "asname", "module", "level", "kind"})
IMPORTERS = ("__import__", "importlib.import_module")


@dataclass(frozen=True, eq=False)
class Module:
    """One file: its nodes, outer ones first, its text, and what its names stand for."""

    tree: ast.AST
    source: bytes

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return nodes_of(self.tree)

    @cached_property
    def text(self) -> str:
        return self.source.decode("utf-8", "replace")

    @property
    def body(self) -> list[ast.stmt]:
        return self.tree.body if isinstance(self.tree, ast.Module) else []

    def dotted(self, node: ast.AST | None) -> str:
        """Return the full dotted name that an expression stands for, or an empty text.

        An attribute of what has no name, as of a call's result, is one of `?`.
        """
        if isinstance(node, ast.Name):
            return self.names.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            return f"{self.dotted(node.value) or '?'}.{node.attr}"
        match node if isinstance(node, ast.Call) else None:
            case ast.Call(
                func=ast.Name(id="getattr"), args=[value, ast.Constant(value=str(name)), *_]
            ):
                return f"{self.dotted(value) or '?'}.{name}"
            case ast.Call(
                func=ast.Name() | ast.Attribute(value=ast.Name()) as function,
                args=[ast.Constant(value=str(name)), *_],
            ):
                return name if self.dotted(function) in IMPORTERS else ""
        return ""

    @cached_property
    def identifiers(self) -> str:
        """All names, in small letters."""
        words = {row.id for row in self.of(ast.Name)} | {row.attr for row in self.of(ast.Attribute)}
        words |= {row.arg or "" for kind in (ast.keyword, ast.arg) for row in self.of(kind)}
        words |= {row.module or "" for row in self.of(ast.ImportFrom)}
        words |= {row.name for row in self.of(ast.alias)}
        return "\n".join(words).lower()

    @cached_property
    def texts(self) -> str:
        """All texts as Python reads them, in small letters."""
        texts = {row.value for row in self.of(ast.Constant) if isinstance(row.value, str)}
        return "\n".join(texts).lower()

    def holds(self, *texts: str) -> bool:
        """Return whether one of these, in small letters, is a part of a name or of a text."""
        return any(text in self.identifiers or text in self.texts for text in texts)

    @cached_property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    def of(self, *kinds: type[Any]) -> list[Any]:
        """Return the nodes of these kinds, outer ones first."""
        if len(kinds) == 1:
            return self._by_kind.get(kinds[0], [])
        return [node for node in self.nodes if type(node) in kinds]

    @cached_property
    def _by_kind(self) -> dict[type, list[Any]]:
        kinds: dict[type, list[Any]] = {}
        for node in self.nodes:
            kinds.setdefault(type(node), []).append(node)
        return kinds

    @cached_property
    def calls(self) -> tuple[tuple[ast.Call, str], ...]:
        return tuple(self.calls_in(self.of(ast.Call)))

    @cached_property
    def used(self) -> tuple[tuple[ast.AST, str], ...]:
        """Names and attributes that are read, with what they stand for."""
        return tuple(
            (node, self.dotted(node))
            for node in self.of(ast.Name, ast.Attribute)
            if isinstance(node.ctx, ast.Load)
        )

    def calls_in(self, nodes: Iterable[ast.AST]) -> Iterator[tuple[ast.Call, str]]:
        """Yield calls with their names.

        A `functools.partial` is the call that it prepares; an argument that is the name of a
        literal is that literal.
        """
        for node in nodes:
            if isinstance(node, ast.Call):
                call, name = node, self.dotted(node.func)
                if name == "functools.partial" and node.args:
                    whole = ast.Call(node.args[0], node.args[1:], node.keywords)
                    call, name = ast.copy_location(whole, node), self.dotted(node.args[0])
                given = (*call.args, *(keyword.value for keyword in call.keywords))
                if any(getattr(value, "id", None) in self._literals for value in given):
                    args = [self._literal(value) for value in call.args]
                    named = (
                        (keyword.arg, self._literal(keyword.value)) for keyword in call.keywords
                    )
                    keywords = [ast.keyword(*pair) for pair in named]
                    call = ast.copy_location(ast.Call(call.func, args, keywords), call)
                yield call, name

    def _literal(self, node: ast.expr) -> ast.expr:
        return self._literals.get(node.id, node) if isinstance(node, ast.Name) else node

    @cached_property
    def _literals(self) -> dict[str, ast.expr]:
        """Names that are bound once in the module, to a literal."""
        stored = (node.id for node in self.of(ast.Name) if isinstance(node.ctx, ast.Store))
        bound = Counter([*stored, *(node.arg for node in self.of(ast.arg))])
        literal = ast.Constant | ast.List | ast.Tuple | ast.Dict
        return {
            node.targets[0].id: node.value
            for node in self.of(ast.Assign)
            if isinstance(node.targets[0], ast.Name)
            and (
                isinstance(node.value, literal)
                or getattr(getattr(node.value, "func", None), "id", "") == "dict"
            )
            and bound[node.targets[0].id] == 1
        }

    @cached_property
    def names(self) -> dict[str, str]:
        """What names stand for: what was imported, and attributes of it."""
        names: dict[str, str] = {}
        for node in self.of(ast.Import, ast.ImportFrom):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    top = alias.name.partition(".")[0]
                    names[alias.asname or top] = alias.name if alias.asname else top
            elif node.module and not node.level:
                for alias in node.names:
                    names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        self.__dict__["names"] = names  # of which those below are made
        for assign in self.of(ast.Assign):
            match assign:
                case ast.Assign(targets=[ast.Name(id=name)], value=ast.Attribute() as value):
                    target = self.dotted(value)
                    if len(target) < MAX_NAME and self.imports(target.partition(".")[0]):
                        names.setdefault(name, target)
        return names

    def imports(self, *packages: str) -> bool:
        named = any(package.lower() in self.identifiers for package in packages)
        return named and not self._packages.isdisjoint(packages)

    @cached_property
    def _packages(self) -> set[str]:
        return {name.partition(".")[0] for name in self.names.values()}


def parse(source: bytes) -> Module:
    """Return the module; source that is no Python is a SyntaxError or a ValueError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the scanned code's own, such as odd escapes
        return Module(ast.parse(source), source)


def nodes_of(tree: ast.AST) -> list[ast.AST]:
    """Return a node and all below it, outer ones first, but for contexts and operators."""
    nodes: list[Any] = [tree]
    fields = _fields
    for node in nodes:
        for name in fields[type(node)]:
            value = getattr(node, name, None)
            if type(value) is list:
                nodes += value
            elif isinstance(value, ast.AST):
                nodes.append(value)
    return [node for node in nodes if isinstance(node, ast.AST)]  # a list may hold none, or texts


class _Fields(dict[type, tuple[str, ...]]):
    """The fields of a kind of node that may hold nodes."""

    def __missing__(self, kind: type) -> tuple[str, ...]:
        names = () if kind in (ast.Name, ast.Constant) else getattr(kind, "_fields", ())
        self[kind] = tuple(name for name in names if name not in NO_NODES)
        return self[kind]


_fields = _Fields()


def argument(call: ast.Call, name: str, place: int | None = None) -> ast.expr | None:
    """Return the argument of that name, also of a literal `**{...}`, or the one at its place."""
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value
        if keyword.arg is None and isinstance(keyword.value, ast.Dict):
            for key, value in zip(keyword.value.keys, keyword.value.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == name:
                    return value
        if keyword.arg is None and isinstance(keyword.value, ast.Call):  # `**dict(...)`
            chosen = argument(keyword.value, name)
            if getattr(keyword.value.func, "id", "") == "dict" and chosen is not None:
                return chosen
    return call.args[place] if place is not None and len(call.args) > place else None


def is_literal(node: ast.expr | None, value: bool) -> bool:
    """Return whether the expression is the literal True, or the literal False."""
    return isinstance(node, ast.Constant) and node.value is value


class Hit(NamedTuple):
    """A node that breaks a rule; `severity` where it differs from the rule's own."""

    node: ast.AST
    message: str
    severity: Severity | None = None


Look = Callable[[Module], Iterator[Hit]]
RULES: Registry[tuple[Rule, Look]] = Registry("rule")


def rule(
    id: str,
    severity: Severity,
    cwe: int,
    fix: str,
    confidence: str = "high",
    needs: str = "",
) -> Callable[[Look], Look]:
    """Register the decorated function as what yields the breaches of a rule.

    With `needs`, it is asked only of files that hold one of these, in small letters, as a part of
    a name or of a text: without them it finds nothing.
    """
    held = needs.split() or [""]

    def add(look: Look) -> Look:
        @wraps(look)
        def asked(module: Module) -> Iterator[Hit]:
            return look(module) if module.holds(*held) else iter(())

        RULES.register(id)((Rule(id, severity, f"CWE-{cwe}", fix, confidence), asked))
        return look

    return add


RULES.load(sys.modules[__name__])
