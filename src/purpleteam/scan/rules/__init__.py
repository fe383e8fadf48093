"""Our own rules for machine-learning code, PT001 upwards: functions of a parsed file.

- `loading`   what runs code when it is read;  `web`: how an app is set up
- `answers`   what a served model gives away;  `requests`: what clients bring along
- `served`    which functions answer clients, and what flows through them
- `system`    checks that are switched off, shells, archives, keys in code

PT020, secrets, is a scanner of its own.
"""

import ast
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property, wraps
from typing import Any, NamedTuple

from purpleteam.core.records import Severity
from purpleteam.core.registry import Registry
from purpleteam.scan.scanner import Rule

__all__ = ["RULES", "Hit", "Module", "argument", "is_literal", "item", "nodes_of", "parse", "rule"]

MAX_NAME = 1000  # longer ones are no rule's; each could be one part longer than the last
NO_NODES = frozenset({"ctx", "op", "ops", "attr", "arg", "asname", "module", "level", "kind"})
LITERALS = (ast.Constant, ast.List, ast.Tuple, ast.Dict)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
IMPORTERS = ("__import__", "importlib.import_module")


@dataclass(frozen=True, eq=False)
class Module:
    """One file: its nodes, outer ones first, its text, and what its names stand for."""

    tree: ast.AST
    source: bytes
    attributes: dict[tuple[ast.AST | None, str], str] = field(default_factory=dict)  # of classes
    outer: dict[ast.AST, ast.AST | None] = field(default_factory=dict)  # around a function or class

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
            if self.names and self.attributes and getattr(node.value, "id", "") in ("self", "cls"):
                key = self.scope(node, ast.ClassDef), node.attr
                if key in self.attributes:
                    return self.attributes[key]
            return f"{self.dotted(node.value) or '?'}.{node.attr}"
        match node if isinstance(node, ast.Call) else None:
            case ast.Call(func=ast.Name(id="staticmethod"), args=[value]):
                return self.dotted(value)
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
        """Return whether one of these, in small letters, is a part of a name or of a text.

        Of `a+b` it must be both.
        """
        words = f"{self.identifiers}\n{self.texts}"
        return any(all(map(words.__contains__, text.split("+"))) for text in texts)

    def of(self, *kinds: type[Any]) -> list[Any]:
        """Return the nodes of these kinds, outer ones first."""
        held = [kind for kind in kinds if kind in self._by_kind]
        if len(held) > 1:
            return [node for node in self.nodes if type(node) in held]
        return self._by_kind[held[0]] if held else []

    @cached_property
    def _by_kind(self) -> dict[type, list[Any]]:
        kinds: dict[type, list[Any]] = {}
        for node in self.nodes:
            kinds.setdefault(type(node), []).append(node)
        return kinds

    @cached_property
    def calls(self) -> tuple[tuple[ast.Call, str], ...]:
        return tuple(self.calls_in(self.of(ast.Call)))

    def used(self, last: Container[str]) -> Iterator[tuple[ast.AST, str]]:
        """Yield names and attributes that are read, with what they stand for, if it ends so."""
        for node in self.of(ast.Name, ast.Attribute):
            own = getattr(node, "attr", None)
            if own is None or own in last or getattr(node.value, "id", "") in ("self", "cls"):
                name = self.dotted(node)
                if name.rpartition(".")[2] in last and isinstance(node.ctx, ast.Load):
                    yield node, name

    def calls_in(self, nodes: Iterable[ast.AST]) -> Iterator[tuple[ast.Call, str]]:
        """Yield calls with their names.

        A `functools.partial` is the call that it prepares; an argument that is the name of a
        literal is that literal, and a function that is the name of an attribute that attribute.
        """
        for node in nodes:
            if isinstance(node, ast.Call):
                call, name = node, self.dotted(self._literal(node.func, ast.Attribute))
                if name == "functools.partial" and node.args:
                    whole = ast.Call(node.args[0], node.args[1:], node.keywords)
                    call, name = ast.copy_location(whole, node), self.dotted(node.args[0])
                given = (*call.args, *(keyword.value for keyword in call.keywords))
                if any(self._literal(value) is not value for value in given):
                    args = [self._literal(value) for value in call.args]
                    keywords = [ast.keyword(k.arg, self._literal(k.value)) for k in call.keywords]
                    call = ast.copy_location(ast.Call(call.func, args, keywords), call)
                yield call, name

    def _literal(self, node: ast.expr, *kinds: type[ast.expr]) -> ast.expr:
        if not isinstance(node, ast.Name) or node.id not in self._literals:
            return node
        scope = self.scope(node, *FUNCTIONS)
        while scope is not None and (scope, node.id) not in self.bound:
            scope = self.outer[scope]
        value = self.bound.get((scope, node.id))
        return value if isinstance(value, kinds or (*LITERALS, ast.Call)) else node

    @cached_property
    def _literals(self) -> set[str]:
        return {name for (_, name), value in self.bound.items() if value is not None}

    def scope(self, node: Any, *kinds: type[ast.AST]) -> ast.AST | None:
        """Return the innermost of the statements of these kinds in which a node lies, by lines."""
        scope = self._inside[node.lineno]
        while scope is not None and not isinstance(scope, kinds):
            scope = self.outer[scope]
        return scope

    @cached_property
    def _inside(self) -> list[ast.AST | None]:
        last = max((row.end_lineno or 0 for row in self.body), default=0)
        inside: list[ast.AST | None] = [None] * (last + 1)
        nodes = [row for kind in (*FUNCTIONS, ast.ClassDef) for row in self.of(kind)]
        for node in sorted(nodes, key=lambda one: int(one.lineno)):
            self.outer[node] = inside[node.lineno]
            end = node.end_lineno + 1
            inside[node.lineno : end] = [node] * (end - node.lineno)
        return inside

    @cached_property
    def bound(self) -> dict[tuple[ast.AST | None, str], ast.expr | None]:
        """What a function, or the module, binds a name to: the one literal, with later items."""
        rows = [(row, row.id) for row in self.of(ast.Name) if isinstance(row.ctx, ast.Store)]
        rows += [(row, row.arg) for row in self.of(ast.arg)]
        bound = Counter((self.scope(row, *FUNCTIONS), name) for row, name in rows)
        found: dict[tuple[ast.AST | None, str], ast.expr | None] = dict.fromkeys(bound)
        for node in self.of(ast.Assign):
            scope = self.scope(node, *FUNCTIONS)
            match node.targets[0], node.value:
                case ast.Name(id=name), value if bound[scope, name] == 1:
                    if isinstance(value, (*LITERALS, ast.Attribute)) or _is_dict(value):
                        found[scope, name] = value
                case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant() as key), value:
                    if (before := found.get((scope, name))) is not None:
                        found[scope, name] = ast.Dict([key, None], [value, before])
        return found

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
        packages = {"eval", "exec", *(name.partition(".")[0] for name in names.values())}
        bodies = {row: node for node in self.of(ast.ClassDef) for row in node.body}
        for assign in self.of(ast.Assign):
            target = self.dotted(assign.value)
            looked_up = isinstance(assign.value, ast.Call)
            if len(target) < MAX_NAME and (looked_up or target.partition(".")[0] in packages):
                match assign.targets:
                    case [ast.Name(id=name)] if target and assign in bodies:
                        self.attributes[bodies[assign], name] = target
                    case [ast.Name(id=name)] if target:
                        names.setdefault(name, target)
                    case [ast.Attribute(value=ast.Name(id="self"), attr=name)] if target:
                        self.attributes[self.scope(assign, ast.ClassDef), name] = target
        return names

    def imports(self, *packages: str) -> bool:
        named = any(package.lower() in self.identifiers for package in packages)
        return named and not self._packages.isdisjoint(packages)

    @cached_property
    def _packages(self) -> set[str]:
        return {name.partition(".")[0] for name in self.names.values()}


def parse(source: bytes) -> Module:
    """Return the module; source that is no Python is a SyntaxError or a ValueError."""
    nodes_of.cache_clear()  # what it holds is of the module before
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the scanned code's own, such as odd escapes
        return Module(ast.parse(source), source)


@cache
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
        chosen = keyword.value if keyword.arg == name else None
        if keyword.arg is None:
            chosen = item(keyword.value, name)
        if chosen is not None:
            return chosen
    return call.args[place] if place is not None and len(call.args) > place else None


def item(table: ast.expr | None, name: str) -> ast.expr | None:
    """Return what a literal table, or `dict(...)`, has under a name."""
    if isinstance(table, ast.Dict):
        for key, value in zip(table.keys, table.values, strict=True):
            chosen = item(value, name) if key is None else value
            if chosen is not None and getattr(key, "value", name) == name:
                return chosen
    return argument(table, name) if isinstance(table, ast.Call) and _is_dict(table) else None


def _is_dict(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Call) and getattr(node.func, "id", "") == "dict"


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
    id: str, severity: Severity, cwe: int, fix: str, confidence: str = "high", needs: str = ""
) -> Callable[[Look], Look]:
    """Register the decorated function as what yields the breaches of a rule.

    With `needs`, it is asked only of files that hold one of these (`Module.holds`): without them
    it finds nothing.
    """
    held = needs.split() or [""]

    def add(look: Look) -> Look:
        @wraps(look)
        def asked(module: Module) -> Iterator[Hit]:
            return look(module) if module.holds(*held) else iter(())

        asked.needs = held  # type: ignore[attr-defined]
        RULES.register(id)((Rule(id, severity, f"CWE-{cwe}", fix, confidence), asked))
        return look

    return add


RULES.load(sys.modules[__name__])
