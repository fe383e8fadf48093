"""The torch state dict (.pt, .pth), of a zip archive and of the format before torch 1.6.

A call of one of five names describes a tensor. What is accepted here,
`torch.load(weights_only=True)` accepts too and reads with the same values.
"""

import math
import re
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from purpleteam.scan.formats.names import CONTAINERS, is_harmless
from purpleteam.scan.formats.pickles import EFFECTS, OrderedItems, PickleReader, Symbol, full_name
from purpleteam.scan.formats.problem import Problem
from purpleteam.scan.formats.tensors import DTYPES, MAX_DIMENSIONS, MAX_SIZE, Tensor
from purpleteam.scan.formats.walk import walk_pickle
from purpleteam.scan.formats.zip_layout import Archive

MAX_PICKLE = 64 << 20
STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32",
    "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool",
}  # fmt: skip
STORAGE_NAMES: dict[str, str | None] = {f"torch.{name}": dtype for name, dtype in STORAGES.items()}
STORAGE_NAMES["torch.storage.UntypedStorage"] = None
DTYPE_NAMES = {f"torch.{name}": name for name in DTYPES}
TENSORS = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3")
OTHERS = ("torch._utils._rebuild_parameter", "torch.Size", "collections.OrderedDict")
ALLOWED = frozenset({*TENSORS, *OTHERS, *STORAGE_NAMES, *DTYPE_NAMES})  # by default nothing is
OPCODES = (  # of protocol 2, as torch.save writes it
    "PROTO STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE "
    "EMPTY_DICT EMPTY_LIST EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 BINPUT LONG_BINPUT BINGET "
    "LONG_BINGET GLOBAL APPEND APPENDS SETITEM SETITEMS BUILD REDUCE BINPERSID"
)
NOTES = {  # the small files beside the pickle, and all that they may say
    "version": re.compile(rb"([1-9]|10)\n?"),
    "byteorder": re.compile(rb"little"),
    ".data/serialization_id": re.compile(rb"[0-9]{1,64}"),
    ".format_version": re.compile(rb"[0-9]{1,4}"),
    ".storage_alignment": re.compile(rb"[0-9]{1,8}"),
}


LEGACY = re.compile(
    rb"(?s)\x80[\2-\5](\x95.{8})?\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19\."
)  # of before 1.6
KEY = "[0-9]{1,20}"  # of a storage: a place, or an address as torch 1.6 wrote it


@dataclass(frozen=True)
class StorageRef:
    """One data/N of the archive: `count` numbers, or bytes where their format is not known."""

    key: str
    dtype: str | None
    count: int

    @property
    def bytes(self) -> int:
        return self.count * (DTYPES[self.dtype].itemsize if self.dtype else 1)


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies in its storage: all counts in numbers, not in bytes."""

    storage: StorageRef
    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize

    def read(self, storage: memoryview) -> Tensor:
        dtype = DTYPES[self.dtype]
        if not self.bytes:
            return Tensor(np.zeros(self.shape, dtype), self.dtype)
        steps = [step * dtype.itemsize for step in self.stride]
        begin = self.offset * dtype.itemsize
        view: NDArray[Any] = np.ndarray(self.shape, dtype, storage, begin, steps)
        return Tensor(np.asarray(view, order="C"), self.dtype)


def read_state_pickle(data: bytes | memoryview) -> tuple[Any, dict[str, StorageRef]]:
    """Return what the pickle describes and every storage that it names, by its key."""
    if data[:1] != b"\x80":
        raise Problem("damaged-pickle", "the pickle does not begin with its protocol")
    return _described(_StateReader(memoryview(data)))


def _described(reader: "_StateReader") -> tuple[Any, dict[str, StorageRef]]:
    """Return what is read, or refuse it; what names nothing but plain parts runs nothing."""
    try:
        return reader.read(), reader.storages
    except Problem as problem:
        walk = walk_pickle(reader.data)
        names = [name for name, _ in walk.imports]
        if problem.kind != "unsafe-global" or walk.error or not all(map(is_harmless, names)):
            raise
        try:
            _PlainReader(reader.data).read()
        except Problem:
            raise Problem("damaged-pickle", str(problem)) from None
        raise Problem("unsupported", f"{problem}; it is harmless") from None


class _StateReader(PickleReader):
    names: ClassVar[dict[str, Symbol]] = {name: Symbol(name) for name in ALLOWED}
    allowed: ClassVar[frozenset[str]] = frozenset(OPCODES.split())

    def __init__(self, data: memoryview) -> None:
        super().__init__(data)
        self.storages: dict[str, StorageRef] = {}

    def given(self, target: Any, state: Any) -> None:
        if not isinstance(target, OrderedItems) or not isinstance(state, dict):
            raise self.refused("gives a state to something that is no OrderedDict")
        if not state.keys() <= {"_metadata"}:
            raise self.refused("sets attributes other than _metadata")

    def outside(self, reference: Any) -> StorageRef:
        match reference if type(reference) is tuple else None:
            case ("storage", Symbol(name), str(key), str(), int(count)) if (
                re.fullmatch(KEY, key) and type(count) is int and count >= 0
            ):
                if name not in STORAGE_NAMES:
                    raise self.refused(f"names {name!r}, which is no storage")
                ref = StorageRef(key, STORAGE_NAMES[name], count)
                if self.storages.setdefault(key, ref) != ref:
                    raise self.refused(f"names storage {key} in two formats or sizes")
                return ref
        raise self.refused("names a storage in a form that is not known")

    def called(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        name = function.name if isinstance(function, Symbol) else ""
        if name in TENSORS and arguments[-1:] == (None,):  # no metadata
            arguments = arguments[:-1]
        match name, arguments:
            case "torch._utils._rebuild_tensor_v2", (StorageRef(_, str(dtype)) as ref, *form):
                return self._tensor(ref, dtype, form)
            case "torch._utils._rebuild_tensor_v3", (StorageRef() as ref, *form, Symbol(kind)) if (
                kind in DTYPE_NAMES
            ):
                return self._tensor(ref, DTYPE_NAMES[kind], form)
            case "torch._utils._rebuild_parameter", (StoredTensor() as tensor, grad, hooks):
                self._check_gradient(tensor.dtype, grad, hooks)
                return tensor
            case "collections.OrderedDict", ():
                return OrderedItems()
            case "torch.Size", (sizes,) if _counts(sizes):
                return sizes
        raise self.refused("calls something in a form that no state dict has")

    def _tensor(self, ref: StorageRef, dtype: str, form: list[Any]) -> StoredTensor:
        if len(form) != 5:
            raise self.refused("describes a tensor in a form that is not known")
        offset, size, stride, grad, hooks = form
        self._check_gradient(dtype, grad, hooks)
        if not (type(offset) is int and _counts(size) and _counts(stride)):
            raise self.refused("describes a tensor by something that is no whole number")
        name = f"the tensor at byte {self.at} of the pickle"
        if len(size) != len(stride) or len(size) > MAX_DIMENSIONS:
            raise Problem("tensor", f"{name} has {len(size)} dimensions")
        if min(numbers := (*size, *stride, offset)) < 0 or max(numbers) > MAX_SIZE:
            raise Problem("tensor", f"{name} has a size, stride or offset out of range")
        if math.prod(filter(None, size)) > MAX_SIZE * MAX_DIMENSIONS:
            raise Problem("tensor", f"{name} has an impossible shape")
        available, rest = divmod(ref.bytes, DTYPES[dtype].itemsize)
        if rest:
            raise Problem("tensor", f"{name} has a storage of {ref.bytes} bytes")
        count, last = math.prod(size), offset - 1
        if count:
            last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if last >= available:
            why = f"claims {count} numbers up to place {last} of a storage of {available}"
            raise Problem("tensor", f"{name} {why}")
        return StoredTensor(ref, dtype, size, stride, offset)

    def _check_gradient(self, dtype: str, grad: Any, hooks: Any) -> None:
        if type(grad) is not bool or type(hooks) is not OrderedItems or hooks:
            raise self.refused("gives a tensor hooks")
        if grad and "float" not in dtype:
            raise self.refused(f"asks for a gradient of {dtype}, which torch refuses")


def _counts(values: Any) -> bool:
    return type(values) is tuple and all(type(value) is int for value in values)


@dataclass(frozen=True, eq=False)
class _Other:
    """What a harmless name makes, such as a tensor of complex numbers."""

    name: str


class _PlainReader(_StateReader):
    """Reads what is harmless and no state dict: other number formats, modules, options."""

    allowed: ClassVar = frozenset(EFFECTS)
    keys: ClassVar = (str, int, float, bool, bytes, tuple, type(None), _Other)

    def outside(self, reference: Any) -> Any:
        if type(reference) is tuple and len(reference) == 6:  # as before torch 1.6
            reference = reference[:5]
        match reference if type(reference) is tuple else None:
            case ("storage", Symbol(name), str(), *_) if name not in STORAGE_NAMES:
                return _Other(name)
            case ("module", Symbol() as module, str(), str()):  # a class, and its source beside
                return module
        return super().outside(reference)

    def called(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        if isinstance(function, Symbol):
            if function.name in TENSORS and arguments and type(arguments[-1]) is dict:
                arguments = arguments[:-1]  # conjugated or negated
            others = any(
                isinstance(one, _Other) or (isinstance(one, Symbol) and one.name not in ALLOWED)
                for one in arguments
            )
            if function.name in ALLOWED and not others:
                return super().called(function, arguments)
            # bytearray(1 << 40) would be plain, and would fill the memory
            if not any(type(one) is int and one > MAX_SIZE for one in arguments):
                return _Other(function.name)
        raise self.refused("calls something in a form that is not known")

    def given(self, target: Any, state: Any) -> None:
        if not isinstance(target, _Other):
            super().given(target, state)

    def _step(self, argument: Any) -> None:
        match self.opcode:
            case "NEWOBJ":
                arguments = self.stack.pop()
                self.stack.append(self.called(self.stack.pop(), arguments))
            case "EMPTY_SET":
                self.stack.append(_Other("builtins.set"))
            case "ADDITEMS":
                self._extend(self._to_mark())
            case "FROZENSET":
                self._to_mark()
                self.stack.append(_Other("builtins.frozenset"))
            case _:
                super()._step(argument)

    def _extend(self, items: list[Any]) -> None:
        if not self._is_container():
            super()._extend(items)

    def _fill(self, items: list[Any]) -> None:
        if not self._is_container():
            super()._fill(items)

    def _is_container(self) -> bool:
        target = self.stack[-1]
        return isinstance(target, _Other) and CONTAINERS.fullmatch(target.name) is not None

    def _name(self, module: Any, attribute: Any) -> None:
        if is_harmless(full := full_name(module, attribute)):
            self.stack.append(Symbol(full))
        else:
            super()._name(module, attribute)


def open_archive(archive: Archive) -> tuple[Any, dict[str, memoryview]]:
    """Return what the pickle of a torch.save describes, and the storages that it names, by key."""
    tops = {name.partition("/")[0] for name in archive.members}
    top = tops.pop() if tops else ""
    if f"{top}/constants.pkl" in archive.members:
        why = "the archive is TorchScript, which is code; save model.state_dict() instead"
        raise Problem("unsupported", why)
    if tops or not {f"{top}/data.pkl", f"{top}/version"} <= archive.members.keys():
        raise Problem("archive", "the archive is not one folder with data.pkl and version in it")
    if archive.odd:
        raise Problem("archive", f"the archive has {archive.odd}")
    for full, member in archive.members.items():
        name = full.partition("/")[2]
        if name != "data.pkl" and name not in NOTES and not re.fullmatch(f"data/{KEY}", name):
            raise Problem("archive", f"the archive holds {name!r}, which torch.save never writes")
        if member.deflated:
            why = f"unpacks {member.packed} bytes to {member.size}; torch.save never packs"
            raise Problem("bomb", f"{name!r} {why}")
    if (size := archive.members[f"{top}/data.pkl"].size) > MAX_PICKLE:
        raise Problem("bomb", f"data.pkl has {size} bytes, over {MAX_PICKLE}")
    content, named = read_state_pickle(archive.read(f"{top}/data.pkl"))
    for name, form in NOTES.items():
        if (note := archive.members.get(f"{top}/{name}")) is not None:
            text = bytes(archive.read(note.name)) if note.size <= 100 else b"(long)"
            if not form.fullmatch(text):
                raise Problem("archive", f"{name!r} says {text[:20]!r}, which is not supported")
    folder, storages = f"{top}/data/", {}
    held = {name.removeprefix(folder) for name in archive.members if name.startswith(folder)}
    if odd := held ^ named.keys():
        why = f"'data/{min(odd)}' is in the pickle or in the archive, not in both"
        raise Problem("archive", why)
    for key, ref in named.items():
        storages[key] = archive.read(folder + key)
        if (size := len(storages[key])) != ref.bytes:
            raise Problem("tensor", f"storage {key} claims {ref.bytes} bytes and has {size}")
    return content, storages


class _LegacyReader(_StateReader):
    def outside(self, reference: Any) -> StorageRef:
        match reference if type(reference) is tuple else None:
            case (*storage, None) if len(storage) == 5:  # no view of another storage
                return super().outside(tuple(storage))
        raise Problem("unsupported", "the file is of torch before 0.4, with views of storages")


def open_legacy(data: memoryview) -> tuple[Any, dict[str, memoryview]]:
    """Return what a torch.save of before 1.6 describes, and its storages, by key.

    Five pickles follow each other: magic number, version, machine, content, keys; then, for each
    key, the count of its storage and its numbers.
    """
    parts, at = [], 0
    for _ in range(5):
        walk = walk_pickle(data, at)
        if walk.error:
            raise Problem("damaged-pickle", f"the pickle is broken: {walk.error}")
        parts.append(data[at : walk.end])
        at = walk.end
    _, version, machine = (_PlainReader(part).read() for part in parts[:3])
    if version != 1001 or not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise Problem("unsupported", "the file is of another version, or of a big-endian machine")
    content, named = _described(_LegacyReader(parts[3]))
    keys = _PlainReader(parts[4]).read()
    if type(keys) is not list or {*map(type, keys)} - {str} or sorted(keys) != sorted(named):
        raise Problem("tensor", "the storages are not those that the pickle names, each once")
    storages = {}
    for key in keys:
        ref, start = named[key], at + 8
        at = start + ref.bytes
        if int.from_bytes(data[start - 8 : start], "little") != ref.count or at > len(data):
            raise Problem("tensor", f"storage {key} claims {ref.count} numbers, and has others")
        storages[key] = data[start:at]
    if at != len(data):
        raise Problem("damaged-pickle", f"{len(data) - at} bytes follow the last storage")
    return content, storages
