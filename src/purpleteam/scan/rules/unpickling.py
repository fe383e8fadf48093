"""Formats whose reading runs code: pickle and its kin, object arrays, YAML with tags."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import ClassVar

from purpleteam.core.records import Severity
from purpleteam.scan.module import Module, argument, is_false
from purpleteam.scan.rules.rule import RULES, Hit, Rule

__all__ = ["ObjectArrays", "Unpickling", "UnsafeYaml"]

PICKLES = ("pickle", "_pickle", "cPickle", "dill", "cloudpickle", "pickle5")
UNPICKLERS = frozenset(
    {f"{package}.{name}" for package in PICKLES for name in ("load", "loads", "Unpickler")}
    | {"joblib.load", "pandas.read_pickle", "shelve.open", "jsonpickle.decode", "torch.jit.load"}
    | {"sklearn.externals.joblib.load", "marshal.load", "marshal.loads"}
    | {"torch.package.PackageImporter"}
)
YAML = frozenset({"yaml.load", "yaml.load_all"})
YAML_UNSAFE = frozenset(
    {"yaml.unsafe_load", "yaml.unsafe_load_all", "yaml.full_load", "yaml.full_load_all"}
)
YAML_SAFE = frozenset({"yaml.SafeLoader", "yaml.CSafeLoader", "yaml.BaseLoader"})


@RULES.register("PT003")
class Unpickling(Rule):
    """pickle, joblib, dill and others that run what the file says; also when handed on."""

    id: ClassVar[str] = "PT003"
    severity: ClassVar[Severity] = "high"
    confidence: ClassVar[str] = "high"
    cwe: ClassVar[str] = "CWE-502"
    fix: ClassVar[str] = "store weights as safetensors, settings as JSON"

    def look(self, module: Module) -> Iterator[Hit]:
        for node in module.nodes:
            if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
                if (name := module.dotted(node)) in UNPICKLERS:
                    yield Hit(node, f"{name} runs what the file says")
            elif isinstance(node, ast.Call) and module.dotted(node) in UNPICKLERS:
                yield Hit(node, f"{module.dotted(node)} runs what the file says")


@RULES.register("PT004")
class ObjectArrays(Rule):
    """A NumPy load that unpickles objects."""

    id: ClassVar[str] = "PT004"
    severity: ClassVar[Severity] = "high"
    confidence: ClassVar[str] = "high"
    cwe: ClassVar[str] = "CWE-502"
    fix: ClassVar[str] = "leave allow_pickle out; store plain numbers"

    def look(self, module: Module) -> Iterator[Hit]:
        for call, name in module.calls():
            chosen = argument(call, "allow_pickle")
            reads = (name.startswith("numpy.") and "load" in name) or name.endswith("read_array")
            if chosen is not None and not is_false(chosen) and reads:
                yield Hit(call, f"{name} with allow_pickle runs what the file says")


@RULES.register("PT009")
class UnsafeYaml(Rule):
    """A YAML load that builds any object the file names."""

    id: ClassVar[str] = "PT009"
    severity: ClassVar[Severity] = "high"
    confidence: ClassVar[str] = "high"
    cwe: ClassVar[str] = "CWE-502"
    fix: ClassVar[str] = "call yaml.safe_load"

    def look(self, module: Module) -> Iterator[Hit]:
        for call, name in module.calls():
            loader = argument(call, "Loader") or (call.args[1] if len(call.args) > 1 else None)
            unsafe = name in YAML and module.dotted(loader) not in YAML_SAFE
            if unsafe or name in YAML_UNSAFE:
                yield Hit(call, f"{name} builds what the file says")
