"""Files, texts and downloads that become code when they are read."""

import ast
from collections.abc import Iterable, Iterator

from purpleteam.scan.rules import Hit, Module, argument, is_literal, rule

TORCH_LOADERS = frozenset(
    {"torch.load", "torch.serialization.load", "torch.hub.load_state_dict_from_url"}
    | {"torch.utils.model_zoo.load_url"}
)
PICKLES = ("pickle", "_pickle", "cPickle", "dill", "cloudpickle", "pickle5")
UNPICKLERS = frozenset(
    {f"{package}.{name}" for package in PICKLES for name in ("load", "loads", "Unpickler")}
    | {"joblib.load", "pandas.read_pickle", "shelve.open", "jsonpickle.decode", "torch.jit.load"}
    | {"sklearn.externals.joblib.load", "marshal.load", "marshal.loads"}
    | {"torch.package.PackageImporter"}
)
YAML = frozenset({"yaml.load", "yaml.load_all"})
YAML_UNSAFE = frozenset(f"yaml.{how}_load{of}" for how in ("unsafe", "full") for of in ("", "_all"))
YAML_SAFE = frozenset({"yaml.SafeLoader", "yaml.CSafeLoader", "yaml.BaseLoader"})
EVALUATORS = frozenset({"eval", "exec", "builtins.eval", "builtins.exec", "pandas.eval"})
TRUST = ("trust_remote_code", "trust_repo")


def _loads(module: Module, calls: Iterable[tuple[ast.Call, str]]) -> Iterator[tuple[ast.Call, str]]:
    for call, name in calls:
        partial = name == "functools.partial" and call.args
        loader = module.dotted(call.args[0]) if partial else name
        if loader in TORCH_LOADERS:
            yield call, loader


def _is_used(node: ast.AST) -> bool:
    return isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load)


@rule(
    "PT001", "medium", 502, "pass weights_only=True with torch 2.10 or newer, or load safetensors"
)
def unsafe_torch_load(module: Module) -> Iterator[Hit]:
    """A torch loader that is called, or handed on, without weights_only=True."""
    called: set[ast.AST] = set()
    for call, name in _loads(module, module.calls):
        called.update((call.func, *call.args[:1]))
        chosen = argument(call, "weights_only")
        if is_literal(chosen, False):
            yield Hit(call, f"{name} with weights_only=False runs what the file says", "high")
        elif not is_literal(chosen, True):
            yield Hit(call, f"{name} without weights_only=True may run what the file says")
    for node in module.nodes:  # `load = torch.load`: the calls of `load` count instead
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            called.add(node.value)
    for node in module.nodes:
        name = module.dotted(node) if _is_used(node) and node not in called else ""
        if name in TORCH_LOADERS:
            yield Hit(node, f"{name} is handed on without weights_only=True")


@rule("PT002", "high", 502, "let the safe load fail; whoever makes the file can make it fail")
def unsafe_second_try(module: Module) -> Iterator[Hit]:
    """A safe load whose failure leads to an unsafe one: the file chooses which."""

    def loads(parts: Iterable[ast.AST], safe: bool) -> list[tuple[ast.Call, str]]:
        calls = _loads(module, module.calls_in(node for part in parts for node in ast.walk(part)))
        return [row for row in calls if is_literal(argument(row[0], "weights_only"), True) is safe]

    for node in module.nodes:
        if isinstance(node, ast.Try) and loads(node.body, True):
            for call, name in loads(node.handlers, False):
                yield Hit(call, f"{name} is tried again without weights_only=True")


@rule("PT003", "high", 502, "store weights as safetensors, settings as JSON")
def unpickling(module: Module) -> Iterator[Hit]:
    """pickle, joblib, dill and others that run what the file says; also when handed on."""
    for node in module.nodes:
        called = _is_used(node) or isinstance(node, ast.Call)
        if called and (name := module.dotted(node)) in UNPICKLERS:
            yield Hit(node, f"{name} runs what the file says")


@rule("PT004", "high", 502, "leave allow_pickle out; store plain numbers")
def object_arrays(module: Module) -> Iterator[Hit]:
    """A NumPy load that unpickles objects."""
    for call, name in module.calls:
        chosen = argument(call, "allow_pickle")
        reads = (name.startswith("numpy.") and "load" in name) or name.endswith("read_array")
        if chosen is not None and not is_literal(chosen, False) and reads:
            yield Hit(call, f"{name} with allow_pickle runs what the file says")


@rule("PT008", "medium", 95, "parse the text (json, ast.literal_eval), or look names up in a table")
def eval_or_exec(module: Module) -> Iterator[Hit]:
    """Python's eval or exec on anything but a constant."""
    own = {node.name for node in module.nodes if isinstance(node, ast.FunctionDef)}
    for call, name in module.calls:
        constant = bool(call.args) and isinstance(call.args[0], ast.Constant)
        if name in EVALUATORS - own and not constant:
            yield Hit(call, f"{name} runs text as code")


@rule("PT009", "high", 502, "call yaml.safe_load")
def unsafe_yaml(module: Module) -> Iterator[Hit]:
    """A YAML load that builds any object the file names."""
    for call, name in module.calls:
        loader = argument(call, "Loader") or (call.args[1] if len(call.args) > 1 else None)
        unsafe = name in YAML and module.dotted(loader) not in YAML_SAFE
        if unsafe or name in YAML_UNSAFE:
            yield Hit(call, f"{name} builds what the file says")


@rule("PT011", "high", 829, "download weights only, at a pinned revision, and check their digest")
def code_of_a_model(module: Module) -> Iterator[Hit]:
    """A download that may bring its own code along."""
    for call, name in module.calls:
        for option in TRUST:
            chosen = argument(call, option)
            constant = isinstance(chosen, ast.Constant) and chosen.value in (None, "check")
            if chosen is not None and not is_literal(chosen, False) and not constant:
                yield Hit(call, f"{name or 'a call'} with {option} runs code from elsewhere")
