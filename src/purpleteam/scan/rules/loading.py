"""Files, texts and downloads that become code when they are read."""

import ast
import re
from collections.abc import Iterable, Iterator

from purpleteam.scan.rules import FUNCTIONS, Hit, Module, argument, is_literal, nodes_of, rule
from purpleteam.scan.rules.served import flow

TORCH_LOADERS = frozenset(
    {"torch.load", "torch.serialization.load", "torch.hub.load_state_dict_from_url"}
    | {"torch.utils.model_zoo.load_url", "pytorch_lightning.utilities.cloud_io.load"}
)
TORCH_NAMES = frozenset(name.rpartition(".")[2] for name in TORCH_LOADERS)
PICKLES = ("pickle", "_pickle", "cPickle", "dill", "cloudpickle", "pickle5")
UNPICKLERS = frozenset(
    {f"{package}.{name}" for package in PICKLES for name in ("load", "loads", "Unpickler")}
    | {"joblib.load", "pandas.read_pickle", "shelve.open", "jsonpickle.decode", "torch.jit.load"}
    | {"sklearn.externals.joblib.load", "marshal.load", "marshal.loads"}
    | {"torch.package.PackageImporter", "dill.load_session", "dill.load_module", "paddle.load"}
    | {"compress_pickle.load", "compress_pickle.loads", "mlflow.pyfunc.spark_udf"}
    | {"pandas.read_hdf"}
)
FAMILIES = {  # packages, and what unpickles wherever in them it stands
    **{"mlflow": ("load_model",), "pycaret": ("load_model",), "fastai": ("load_learner",)},
    **dict.fromkeys(("stable_baselines3", "sb3_contrib", "gensim", "autogluon"), ("load",)),
    "fairseq": ("load_model_ensemble", "load_model_ensemble_and_task", "load_checkpoint_to_cpu"),
    "nemo": ("restore_from",),
}
LAST_NAMES = {"recv_pyobj"}.union(
    *FAMILIES.values(), (one.rpartition(".")[2] for one in UNPICKLERS)
)
SERIALIZER = re.compile(r"(?i)serializer|accept_content")
PICKLED = re.compile(r"(?i)^pickle$|\bPickleSerializer$")
ARRAYS = {"numpy.load": 2, "numpy.lib.format.read_array": 1}  # where allow_pickle stands
YAML = frozenset({"yaml.load", "yaml.load_all"})
YAML_UNSAFE = frozenset(
    {f"yaml.{how}_load{of}" for how in ("unsafe", "full") for of in ("", "_all")}
    | {f"yaml.{how}Loader" for how in ("", "Unsafe", "Full", "C")}
)
YAML_SAFE = frozenset({"yaml.SafeLoader", "yaml.CSafeLoader", "yaml.BaseLoader"})
EVALUATORS = frozenset({"eval", "exec", "builtins.eval", "builtins.exec", "pandas.eval"})
EVALUATORS |= {"asyncio.create_subprocess_shell", "runpy.run_path"}  # Bandit knows other shells
TRUST = ("trust_remote_code", "trust_repo")
HUBS = frozenset(f"torch.hub.{name}" for name in ("load", "help", "list")) | frozenset(
    {"tensorflow_hub.load", "tensorflow_hub.KerasLayer"}
)
PINNED = re.compile(r":[0-9a-f]{40}$")
NATIVE = ("register_custom_ops_library", "ops.load_library", "classes.load_library")
NATIVE_TENSORFLOW = ("tensorflow.load_op_library", "tensorflow.load_library")
H5 = (".h5", ".hdf5")
SAFE_GLOBALS = frozenset(f"torch.serialization.{how}safe_globals" for how in ("add_", ""))
FORCED = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


def _loads(calls: Iterable[tuple[ast.Call, str]]) -> Iterator[tuple[ast.Call, str]]:
    for call, name in calls:
        if name in TORCH_LOADERS or name.endswith(".load_from_checkpoint"):
            yield call, name


@rule("PT001", "medium", 502, needs="torch+load load_from_checkpoint use_safetensors",
      fix="pass weights_only=True with torch 2.10 or newer, or load safetensors")  # fmt: skip
def unsafe_torch_load(module: Module) -> Iterator[Hit]:
    """A torch loader that is called, or handed on, without weights_only=True."""
    called: set[ast.AST] = set()
    own: set[str] = set()  # attributes of a class that it calls itself
    for call, name in _loads(module.calls):
        called.add(call.func)
        own.add(getattr(call.func, "attr", ""))
        chosen = argument(call, "weights_only")
        if is_literal(chosen, False):
            yield Hit(call, f"{name} with weights_only=False runs what the file says", "high")
        elif not is_literal(chosen, True):
            yield Hit(call, f"{name} without weights_only=True may run what the file says")
    for call, name in module.calls:
        if is_literal(argument(call, "use_safetensors"), False):
            yield Hit(call, f"{name} with use_safetensors=False takes pickled weights")
        # as of asyncio.to_thread(torch.load, path, weights_only=True)
        if is_literal(argument(call, "weights_only"), True):
            called.update(call.args)
    for assign in module.of(ast.Assign):  # `load = torch.load`: its calls count instead
        target = assign.targets[0]
        if isinstance(target, ast.Name) or getattr(target, "attr", None) in own:
            called.add(assign.value)
    for node, name in module.used(TORCH_NAMES):
        if name in TORCH_LOADERS and node not in called:
            yield Hit(node, f"{name} is handed on without weights_only=True")
    for node in module.of(ast.Assign, ast.Call) if FORCED in module.text else ():
        texts = {row.value for row in nodes_of(node) if isinstance(row, ast.Constant)}
        if FORCED in texts and not texts.isdisjoint(("1", "y", "yes", "true")):
            yield Hit(node, f"{FORCED} makes every torch.load unsafe", "high")


@rule("PT002", "high", 502, "let the safe load fail; whoever makes the file can make it fail",
      needs="weights_only")  # fmt: skip
def unsafe_second_try(module: Module) -> Iterator[Hit]:
    """A safe load whose failure leads to an unsafe one: the file chooses which."""

    def loads(parts: Iterable[ast.AST], safe: bool) -> list[tuple[ast.Call, str]]:
        calls = _loads(module.calls_in(node for part in parts for node in nodes_of(part)))
        return [row for row in calls if is_literal(argument(row[0], "weights_only"), True) is safe]

    for node in module.of(ast.Try):
        if loads(node.body, True):
            for call, name in loads(node.handlers, False):
                yield Hit(call, f"{name} is tried again without weights_only=True")


@rule("PT003", "high", 502, fix="store weights as safetensors, settings as JSON", needs="pickle "
      f"dill joblib shelve marshal paddle torch+jit packageimporter recv_pyobj read_hdf "
      f"{' '.join(FAMILIES)}")  # fmt: skip
def unpickling(module: Module) -> Iterator[Hit]:
    """pickle, joblib, dill and others that run what the file says; also when handed on."""
    looked_up = ((call, module.dotted(call)) for call, _ in module.calls)  # by getattr
    for node, name in (*module.used(LAST_NAMES), *looked_up):
        if _unpickles(name):
            yield Hit(node, f"{name} runs what the file says")
    queue = module.holds("serializer", "accept_content")
    for row in module.of(ast.keyword, ast.Assign) if queue else ():
        told = row.arg if isinstance(row, ast.keyword) else ast.unparse(row.targets[0])
        values = (str(getattr(one, "value", "")) for one in nodes_of(row.value))
        if SERIALIZER.search(told or "") and any(map(PICKLED.search, values)):
            yield Hit(row.value, f"{told}: messages that are pickled run what they say")


def _unpickles(name: str) -> bool:
    package, _, last = name.rpartition(".")
    return last in LAST_NAMES and (
        name in UNPICKLERS
        or (last in FAMILIES.get(package.partition(".")[0], ()) and package != "mlflow.onnx")
        or last == "recv_pyobj"  # of ZeroMQ
    )


@rule("PT004", "high", 502, "leave allow_pickle out; store plain numbers",
      needs="numpy+load read_array")  # fmt: skip
def object_arrays(module: Module) -> Iterator[Hit]:
    """A NumPy load that unpickles objects."""
    for call, name in module.calls:
        chosen = argument(call, "allow_pickle", ARRAYS.get(name))
        reads = (name.startswith("numpy.") and "load" in name) or name.endswith("read_array")
        if chosen is not None and not is_literal(chosen, False) and reads:
            yield Hit(call, f"{name} with allow_pickle runs what the file says")


@rule("PT008", "medium", 95, "parse the text (json, ast.literal_eval), or look names up in a table",
      needs="eval exec create_subprocess_shell runpy")  # fmt: skip
def eval_or_exec(module: Module) -> Iterator[Hit]:
    """Python's eval or exec, or a shell, on anything but a constant."""
    own = {node.name for node in module.body if isinstance(node, ast.FunctionDef)}
    meant, handed = EVALUATORS - own, {"eval", "exec"} - own
    for call, name in module.calls:
        if name in meant and not isinstance((*call.args, call)[0], ast.Constant):
            yield Hit(call, f"{name} runs text as code")
        for one in (*call.args, *(row.value for row in call.keywords)):  # as in `type=eval`
            ref = getattr(one, "id", "")
            if ref in handed and (module.scope(one, *FUNCTIONS), ref) not in module.bound:
                yield Hit(one, f"{ref} is handed on and runs text as code")


@rule("PT009", "high", 502, "call yaml.safe_load", needs="yaml")
def unsafe_yaml(module: Module) -> Iterator[Hit]:
    """A YAML load that builds any object the file names."""
    classes = module.of(ast.ClassDef)
    safe = YAML_SAFE | {row.name for row in classes if YAML_SAFE & {*map(module.dotted, row.bases)}}
    for call, name in module.calls:
        plain = name.removeprefix("ruamel.")
        loader = module.dotted(argument(call, "Loader", 1)).removeprefix("ruamel.")
        chosen = argument(call, "typ", 0) if plain == "yaml.YAML" else None
        kinds = nodes_of(chosen) if chosen is not None else ()
        unsafe = any(getattr(kind, "value", "") == "unsafe" for kind in kinds)
        unsafe = unsafe or (plain in YAML and loader not in safe)
        if unsafe or plain in YAML_UNSAFE or name.endswith(".model_from_yaml"):
            yield Hit(call, f"{name} builds what the file says")


@rule("PT011", "high", 829, "download weights only, at a pinned revision, and check their digest",
      needs="trust_ hub")  # fmt: skip
def code_of_a_model(module: Module) -> Iterator[Hit]:
    """A download that may bring its own code along."""
    for call, name in module.calls:
        for option in TRUST:
            chosen = argument(call, option)
            if chosen is not None and getattr(chosen, "value", 1) not in (None, False, "check"):
                yield Hit(call, f"{name or 'a call'} with {option} runs code from elsewhere")
                break
        else:
            pinned = call.args and PINNED.search(str(getattr(call.args[0], "value", "")))
            source = argument(call, "source", 2) if name.startswith("torch.") else None
            if name in HUBS and not pinned and getattr(source, "value", "") != "local":
                yield Hit(call, f"{name} runs code from elsewhere, at no pinned commit", "medium")


@rule("PT013", "high", 502, "leave safe_mode on; store the model as .keras without Lambda layers",
      needs="safe_mode unsafe_deserialization load_model")  # fmt: skip
def code_in_layers(module: Module) -> Iterator[Hit]:
    """A Keras load that runs the Python code in a model's layers."""
    for call, name in module.calls:
        last, keras = name.split(".")[-1], "keras" in name.split(".")
        chosen = argument(call, "safe_mode", 3 if keras and last == "load_model" else None)
        path = argument(call, "filepath", 0)
        legacy = keras and isinstance(path, ast.Constant) and str(path.value).endswith(H5)
        if last == "enable_unsafe_deserialization":
            yield Hit(call, f"{name} lets every later load run code")
        elif chosen is not None and not is_literal(chosen, True):
            yield Hit(call, f"{name} without safe_mode runs what the file says")
        elif legacy and last == "load_model":
            yield Hit(call, f"{name} of an HDF5 file knows no safe_mode", "medium")


@rule("PT014", "medium", 114, "use standard operators, or pin the library and check its digest",
      needs="load_library ops_library load_op_library")  # fmt: skip
def native_library(module: Module) -> Iterator[Hit]:
    """A library of native code that is loaded beside a model."""
    for call, name in module.calls:
        given = module.dotted(getattr((*call.args, call)[0], "func", None))
        own = given.startswith("onnxruntime_extensions.")
        if (name.endswith(NATIVE) or name in NATIVE_TENSORFLOW) and not own:
            yield Hit(call, f"{name} runs native code from a file")


@rule("PT015", "medium", 502, "name only types that you have read; ask for plain tensors",
      needs="safe_globals skops")  # fmt: skip
def wider_trust(module: Module) -> Iterator[Hit]:
    """A safe loader that is told to trust more: torch's safe globals, skops' `trusted`."""
    asked = flow(module.nodes[0], lambda one: "get_untrusted_types" in module.dotted(one))
    for call, name in module.calls:
        if name in SAFE_GLOBALS and getattr((*call.args, call)[0], "elts", True):
            yield Hit(call, f"{name} lets weights_only build more than tensors")
        if name in ("skops.io.load", "skops.io.loads"):
            chosen = argument(call, "trusted", 1)
            if is_literal(chosen, True) or (chosen is not None and asked(chosen)):
                yield Hit(call, f"{name} trusts whatever the file names", "high")
