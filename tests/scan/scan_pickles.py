"""Pickles that leave a file `it-ran` where they are loaded, by every way that is known to us."""

from __future__ import annotations

import marshal
import os
import pickle
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import scan_corpus

COMMAND = "touch it-ran"
PYTHON = "open('it-ran', 'w').close()"
TOUCH = ["touch", "it-ran"]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One file, the kind that it is counted under, and what loads it (None: it runs nothing)."""

    name: str
    kind: str
    data: bytes
    loader: str | None = None


def value(one: object) -> bytes:
    """Return the opcodes that make a plain value."""
    return pickle.dumps(one, protocol=2)[2:-1]


def text(one: str) -> bytes:
    """Return the opcode that makes a string."""
    return b"X" + struct.pack("<I", len(one.encode())) + one.encode()


def named(module: str, name: str) -> bytes:
    """Return what imports; a dotted name is followed from protocol 4 on."""
    if "." in name:
        return text(module) + text(name) + b"\x93"
    return f"c{module}\n{name}\n".encode()


def call(function: bytes, *arguments: bytes) -> bytes:
    """Return the opcodes that call a function."""
    return function + b"(" + b"".join(arguments) + b"tR"


CALLS: dict[tuple[str, str], tuple[object, ...]] = {
    **{(module, "system"): (COMMAND,) for module in ("posix", "os")},
    ("os", "popen"): (COMMAND,),
    **{("subprocess", name): (TOUCH,) for name in ("Popen", "run", "call", "check_output")},
    **{("subprocess", name): (COMMAND,) for name in ("getoutput", "getstatusoutput")},
    **{(module, name): (PYTHON,) for module in ("builtins", "__builtin__")
       for name in ("exec", "eval")},
    ("timeit", "timeit"): ("pass", PYTHON),
    ("timeit", "repeat"): ("pass", PYTHON),
    ("profile", "run"): (PYTHON,),
    ("cProfile", "run"): (PYTHON,),
    ("runpy", "_run_code"): (PYTHON, {}),
    ("pydoc", "pipepager"): ("text", "cat > it-ran"),
    ("pydoc", "tempfilepager"): ("text", "touch it-ran; cat"),
    ("numpy.f2py.crackfortran", "getlincoef"): (PYTHON, {}),
    ("numpy.testing._private.utils", "runstring"): (PYTHON, {}),
    ("torch.utils.collect_env", "run"): (COMMAND,),
    ("torch.jit.unsupported_tensor_ops", "execWrapper"): (PYTHON, {}, {}),
    ("torch.fx.graph_module", "_forward_from_src"): (f"{PYTHON}\nforward = 1", {}),
    ("multiprocessing.util", "spawnv_passfds"): (b"/usr/bin/touch", [b"touch", b"it-ran"], ()),
    ("uuid", "_get_command_stdout"): ("touch", "it-ran"),
    ("distutils.spawn", "spawn"): (TOUCH,),
    ("distutils.file_util", "write_file"): ("it-ran", ["x"]),
    ("imaplib", "IMAP4_stream"): (COMMAND,),
    ("pty", "spawn"): (TOUCH,),
    ("posix", "posix_spawn"): ("/usr/bin/touch", TOUCH, {}),
    ("os", "spawnlp"): (0, "touch", *TOUCH),
    ("os", "execvp"): ("touch", TOUCH),
    ("shutil", "copyfile"): ("/etc/hostname", "it-ran"),
    ("io", "open"): ("it-ran", "w"),
    ("builtins", "open"): ("it-ran", "w"),
    ("codecs", "open"): ("it-ran", "w"),
    ("gzip", "open"): ("it-ran", "wb"),
    ("posix", "mkdir"): ("it-ran",),
    ("os", "symlink"): ("/", "it-ran"),
    ("os", "makedirs"): ("it-ran",),
    ("sqlite3", "connect"): ("it-ran",),
    ("logging", "FileHandler"): ("it-ran",),
    ("shelve", "open"): ("it-ran",),
    ("zipfile", "ZipFile"): ("it-ran", "w"),
    ("tarfile", "open"): ("it-ran", "w"),
    ("urllib.request", "urlretrieve"): ("data:,x", "it-ran"),
    ("numpy", "save"): ("it-ran", [1]),
    ("torch", "save"): ([1], "it-ran"),
    ("joblib", "dump"): ([1], "it-ran"),
    ("yaml", "unsafe_load"): (f"!!python/object/apply:os.system ['{COMMAND}']",),
}  # fmt: skip
"""Function to its arguments."""
DOTTED = {
    ("shutil", "os.system"): (COMMAND,),
    ("argparse", "_os.system"): (COMMAND,),
    ("torch.serialization", "os.system"): (COMMAND,),
    ("torch.storage", "torch.serialization.os.system"): (COMMAND,),
    ("torch.nn.modules.module", "torch.utils.cpp_extension.subprocess.Popen"): (TOUCH,),
    ("torch.nn.modules.rnn", "torch.serialization.shutil.os.popen"): (COMMAND,),
    ("numpy.f2py.f2py2e", "os.system"): (COMMAND,),
}
SYSTEM = b"cposix\nsystem\n"
FIRED = call(SYSTEM, text(COMMAND))
PAYLOAD = b"\x80\x02" + FIRED + b"."


def _odd() -> Iterator[tuple[str, bytes]]:
    """Yield pickles that call in a roundabout way, each with its name."""
    os_module = call(named("importlib", "import_module"), text("os"))
    command, source = text(COMMAND), text(PYTHON)
    yield (
        "getattr_of_import",
        call(
            call(
                named("builtins", "getattr"),
                call(named("builtins", "__import__"), text("os")),
                text("system"),
            ),
            command,
        ),
    )
    yield (
        "methodcaller",
        call(call(named("operator", "methodcaller"), text("system"), command), os_module),
    )
    yield (
        "attrgetter",
        call(call(call(named("operator", "attrgetter"), text("system")), os_module), command),
    )
    yield "partial", call(call(named("functools", "partial"), SYSTEM, command))
    yield (
        "resolve_name",
        call(call(named("pkgutil", "resolve_name"), text("os:system")), command),
    )
    for kind in ("list", "tuple", "set", "bytearray"):
        mapped = call(named("builtins", "map"), SYSTEM, b"](" + command + b"e")
        yield f"{kind}_of_map", call(named("builtins", kind), mapped)
    mapped = call(named("builtins", "filter"), named("builtins", "exec"), b"](" + source + b"e")
    yield "deque_of_filter", call(named("collections", "deque"), mapped)
    yield (
        "reduce",
        call(named("functools", "reduce"), named("builtins", "eval"), b"](" + source + b"}e"),
    )
    code = marshal.dumps(compile(PYTHON, "", "exec"))
    function = call(
        named("types", "FunctionType"), call(named("marshal", "loads"), value(code)),
        b"}" + text("__builtins__") + named("builtins", "__dict__") + b"s",
    )  # fmt: skip
    yield "marshal", call(function)
    for module, name in (("pickle", "loads"), ("_pickle", "loads"), ("cloudpickle", "loads")):
        yield f"{module}.{name}", call(named(module, name), value(PAYLOAD))
    yield "load_from_bytes", call(named("torch.storage", "_load_from_bytes"), value(PAYLOAD))
    state = b"}" + text("__setstate__") + SYSTEM + b"sb" + command + b"b"
    yield "setstate", named("argparse", "Namespace") + b")R" + state
    yield "setstate_of_a_layer", named("torch.nn.modules.activation", "ReLU") + b")R" + state
    yield (
        "path_touch",
        call(named("pathlib", "Path.touch"), call(named("pathlib", "Path"), text("it-ran"))),
    )
    jail = b"csys\nmodules\np0\n" + text("sys") + b"g0\ns0csys\nget\n(" + text("os") + b"tRp1\n0"
    yield (
        "modules_swapped",
        jail + b"g0\n" + text("sys") + b"g1\ns0csys\nsystem\n(" + command + b"tR",
    )
    extension = call(named("copyreg", "add_extension"), text("posix"), text("system"), value(1))
    yield "extension", extension + b"0\x82\x01(" + command + b"tR"
    yield "inst", b"(" + command + b"iposix\nsystem\n"
    yield "obj", b"(" + SYSTEM + command + b"o"
    yield (
        "memo",
        text("system") + b"q\x09" + text("posix") + b"q\x0700h\x07h\x09\x93(" + command + b"tR",
    )
    yield "far_in", value("x" * (2 << 20)) + b"0" + FIRED
    yield "behind_many_opcodes", b"N0" * 1_200_000 + FIRED
    yield "in_a_state_dict", b"}(" + text("epoch") + b"K\x03" + text("w") + FIRED + b"u"
    yield "as_key", b"}" + FIRED + b"Ns"
    yield "as_persistent_id", b"}" + text("a") + call(named("os", "system"), command) + b"s"


def raw() -> Iterator[Sample]:
    """Yield plain pickles."""

    def sample(name: str, data: bytes, kind: str = "pickle, one call") -> Sample:
        return Sample(name=f"{name}.pkl", kind=kind, data=data, loader="pickle")

    for protocol in range(6):
        yield sample(
            f"protocol_{protocol}", pickle.dumps(scan_corpus.Call(os.system, COMMAND), protocol)
        )
    for (module, name), arguments in (CALLS | DOTTED).items():
        protocol = b"\x80\x04" if "." in name else b"\x80\x02"  # which has Python 2's names too
        data = protocol + call(named(module, name), *map(value, arguments)) + b"."
        kind = "pickle, a dotted name" if "." in name else "pickle, one call"
        yield sample(f"{module}.{name}", data, kind)
    for name, data in _odd():
        yield sample(name, b"\x80\x04" + data + b".", "pickle, roundabout")
    yield sample("then_broken", PAYLOAD[:-1] + b"0\xff\xff", "pickle, damaged")
    yield sample("without_end", PAYLOAD[:-1], "pickle, damaged")
    yield sample("without_protocol", PAYLOAD[2:], "pickle, damaged")
    yield sample("cut_in_a_string", PAYLOAD[:-1] + b"X\xff\0\0\0ab", "pickle, damaged")
    second = pickle.dumps({"w": 1}, 4) + PAYLOAD
    yield Sample(name="second.pkl", kind="pickle, damaged", data=second, loader="every pickle")
    prefix = b"# a note\n" + PAYLOAD
    yield Sample(name="behind.pkl", kind="pickle, damaged", data=prefix, loader="after a line")
    for suffix in ("bin", "h5", "safetensors", "onnx", "json", "txt", "dat", "png"):
        yield Sample(
            name=f"named.{suffix}", kind="pickle, other name", data=PAYLOAD, loader="pickle"
        )
