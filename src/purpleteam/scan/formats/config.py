"""What a loader would import or call by name: YAML tags, JSON of Keras and skops, TorchScript."""

import json
import re
from collections.abc import Iterator
from typing import Any

from purpleteam.scan.formats.names import is_harmless
from purpleteam.scan.formats.problem import Problem

MAX_BYTES = 16 << 20
YAML, JSON = (".yaml", ".yml"), (".json",)
TAGS = re.compile(r"(?:^|[\s\[{,:-])!<?[^\s!]*!?[^\s:]*:([^\s>,\]}]+)", re.MULTILINE)
KERAS = re.compile(  # not `saving` and `utils`, which read files and run what they say
    r"((tf_)?keras|keras_core)(\.src)?(\.(layers|models|initializers|regularizers|constraints|losses"
    r"|optimizers|metrics|activations|dtype_policies|random|backend|engine)\b[\w.]*)?|builtins"
)
RUNNERS = ("Lambda", "__lambda__", "function", "TFSMLayer", "TorchModuleWrapper", "JaxLayer")
SCRIPT = re.compile(r"(?<![\w.])(?:torch|ops|__torch__\.torch\.classes)\b[\w.]*|\^\w+|\bimport\b.*")
OPERATORS = re.compile(
    r"torch\.(?!(save|from_file|to_here)\b|load)[\w.]+|__torch__\.torch\.classes\.quantized\.\w+"
    r"|ops\.(aten|prims?|_?quantized)\.(?!save$|from_file$|load|rpc_|to_here$|\w*PythonOp$)\w+"
)
SKOPS = re.compile(r"(numpy|scipy|sklearn|collections|builtins)\b")


def inspect_config(data: memoryview, suffix: str) -> Iterator[Problem]:
    """Yield what a YAML or JSON file of a model would have its loader import."""
    if suffix not in YAML + JSON or len(data) > MAX_BYTES:
        return
    text = str(data, "utf-8", "replace")
    if suffix in YAML:
        if "python/" in text or "%TAG" in text:
            for name in dict.fromkeys(TAGS.findall(text)):
                if not is_harmless(name):
                    yield Problem("unsafe-global", f"a YAML tag would import {name[:80]!r}")
        return
    try:
        left = [json.loads(text)]
    except (ValueError, RecursionError):
        return
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if name := _foreign(value):
                why = f"the configuration names {name[:80]!r}, which is code"
                yield Problem("foreign-code", why)
            left += value.values()
        elif isinstance(value, list):
            left += value


def inspect_script(code: memoryview) -> Iterator[Problem]:
    """Yield what TorchScript calls but operators that compute; `torch` alone may lead anywhere."""
    for name in dict.fromkeys(SCRIPT.findall(str(code, "utf-8", "replace"))):
        if not OPERATORS.fullmatch(name):
            yield Problem("foreign-code", f"the script calls {name[:80]!r}")


def _foreign(value: dict[str, Any]) -> str:
    """Return what an object of Keras or skops, of jsonpickle too, names beyond their own parts."""
    kind, module = value.get("class_name"), value.get("module")
    if isinstance(kind, str) and "config" in value:
        own = value.get("registered_name")
        if kind in RUNNERS or (isinstance(own, str) and ">" in own):
            return str(own or kind)
        if isinstance(module, str) and not KERAS.fullmatch(module):
            return f"{module}.{kind}"
    loader, kind = value.get("__module__"), value.get("__class__")
    if isinstance(loader, str) and isinstance(kind, str) and not SKOPS.match(loader):
        return f"{loader}.{kind}"
    pickled = [key for key in value if key.startswith("py/") and key not in ("py/tuple", "py/set")]
    return f"{pickled[0]} {value[pickled[0]]}" if pickled and "py/id" not in value else ""
