"""The few pickle opcodes that a torch state dict needs, understood; every other is refused.

This is no unpickler: it knows dicts, lists, tuples, numbers, text, and five names that are
called. A call makes a description of a tensor, never an object, and nothing is imported.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

from purpleteam.scan.formats.allow_list import (
    ALLOWED,
    DTYPE_NAMES,
    STORAGE_NAMES,
    UNTYPED,
    StorageRef,
    StoredTensor,
    Symbol,
)
from purpleteam.scan.formats.pickle_globals import opcodes
from purpleteam.scan.formats.problem import Malformed
from purpleteam.scan.formats.tensors import NumberFormat, TensorForm

__all__ = ["StateDict", "read_state_pickle"]

MAX_OPCODES = 5_000_000
STATE_ATTRIBUTES = {"_metadata"}


class StateDict(dict[Any, Any]):
    """A collections.OrderedDict of the pickle: the only thing that may be given attributes."""


def read_state_pickle(data: bytes) -> tuple[Any, tuple[StorageRef, ...]]:
    """Return what the pickle describes and every storage that it names.

    Raises:
        Malformed: for any opcode, name or form that a state dict does not need.
    """
    reader = _Reader()
    last = 0
    try:
        for count, (opcode, argument, last) in enumerate(opcodes(io.BytesIO(data))):
            if count > MAX_OPCODES:
                raise Malformed("bomb", f"the pickle has more than {MAX_OPCODES} opcodes")
            reader.step(opcode.name, argument, last)
    except (ValueError, IndexError, KeyError, UnicodeError, OverflowError) as error:
        reason = str(error) or type(error).__name__
        raise Malformed("damaged-pickle", f"broken at byte {last}: {reason}"[:200]) from None
    if last + 1 != len(data):
        raise Malformed("damaged-pickle", f"{len(data) - last - 1} bytes follow the pickle")
    if len(reader.stack) != 1 or reader.marks:
        raise Malformed("damaged-pickle", "the pickle ends with a stack that is not of one value")
    return reader.stack[0], tuple(reader.storages)


class _Reader:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.storages: list[StorageRef] = []
        self.place = ""

    def step(self, name: str, argument: Any, position: int) -> None:
        self.place = f"opcode {name} at byte {position}"
        if name in PUSHES:
            self.stack.append(argument if PUSHES[name] is None else PUSHES[name]())  # type: ignore[misc]
        elif name in TUPLES:
            self._make_tuple(TUPLES[name])
        elif name in STEPS:
            STEPS[name](self, argument)
        elif name not in NOTHING:
            raise self.refused("is not needed by any state dict")

    def refused(self, why: str) -> Malformed:
        return Malformed("unsafe-global", f"{self.place} {why}")

    def mark(self, _: Any) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def to_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def _make_tuple(self, length: int) -> None:
        if length > len(self.stack):
            raise self.refused("takes more than there is")
        items = self.stack[len(self.stack) - length :]
        del self.stack[len(self.stack) - length :]
        self.stack.append(tuple(items))

    def tuple_from_mark(self, _: Any) -> None:
        items = self.to_mark()
        self.stack.append(tuple(items))

    def put(self, argument: Any) -> None:
        self.memo[len(self.memo) if argument is None else argument] = self.stack[-1]

    def get(self, argument: Any) -> None:
        self.stack.append(self.memo[argument])

    def name(self, argument: Any) -> None:
        if argument is None:
            attribute, module = self.stack.pop(), self.stack.pop()
        else:
            module, _, attribute = argument.partition(" ")
        if not (isinstance(module, str) and isinstance(attribute, str)):
            raise self.refused("names something by what is no text")
        full = f"{module}.{attribute}"
        if full not in ALLOWED:
            raise self.refused(f"names {full[:80]!r}, which is not on the allow-list")
        self.stack.append(Symbol(full))

    def append(self, _: Any) -> None:
        item = self.stack.pop()
        self._list().append(item)

    def appends(self, _: Any) -> None:
        items = self.to_mark()
        self._list().extend(items)

    def _list(self) -> list[Any]:
        if type(self.stack[-1]) is not list:
            raise self.refused("adds to something that is no list")
        found: list[Any] = self.stack[-1]
        return found

    def set_item(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def set_items(self, _: Any) -> None:
        self._set(self.to_mark())

    def _set(self, items: list[Any]) -> None:
        target, keys = self.stack[-1], items[::2]
        if not isinstance(target, dict) or len(items) % 2:
            raise self.refused("sets items of something that is no dict")
        if not all(type(key) in (str, int) for key in keys):
            raise self.refused("sets a key that is neither text nor a whole number")
        target.update(zip(keys, items[1::2], strict=True))

    def build(self, _: Any) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, StateDict) or not isinstance(state, dict):
            raise self.refused("gives a state to something that is no OrderedDict")
        if not set(state) <= STATE_ATTRIBUTES:
            raise self.refused(f"sets attributes other than {', '.join(STATE_ATTRIBUTES)}")

    def storage(self, _: Any) -> None:
        match self.stack.pop():
            case ("storage", Symbol(name), str(key), str(), int(count)) if (
                re.fullmatch(r"[0-9]{1,9}", key) and type(count) is int and count >= 0
            ):
                if name not in STORAGE_NAMES and name != UNTYPED:
                    raise self.refused(f"names {name!r}, which is no storage")
                self.storages.append(StorageRef(key, STORAGE_NAMES.get(name), count))
                self.stack.append(self.storages[-1])
            case _:
                raise self.refused("names a storage in a form that is not known")

    def call(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        match function, arguments:
            case Symbol("collections.OrderedDict"), ():
                self.stack.append(StateDict())
            case Symbol("torch.Size"), (tuple(sizes),) if _counts(sizes):
                self.stack.append(sizes)
            case Symbol("torch._utils._rebuild_parameter"), (
                StoredTensor() as tensor,
                bool(),
                hooks,
            ):
                self._no_hooks(hooks)
                self.stack.append(tensor)
            case (
                Symbol("torch._utils._rebuild_tensor_v2"),
                (
                    StorageRef(_, NumberFormat() as dtype) as ref,
                    offset,
                    size,
                    stride,
                    bool(),
                    hooks,
                    *rest,
                ),
            ) if rest in ([], [None]):
                self._tensor(ref, dtype, offset, size, stride, hooks)
            case (
                Symbol("torch._utils._rebuild_tensor_v3"),
                (
                    StorageRef() as ref,
                    offset,
                    size,
                    stride,
                    bool(),
                    hooks,
                    Symbol(dtype_name),
                    *rest,
                ),
            ) if rest in ([], [None]) and dtype_name in DTYPE_NAMES:
                self._tensor(ref, DTYPE_NAMES[dtype_name], offset, size, stride, hooks)
            case _:
                raise self.refused("calls something in a form that no state dict has")

    def _tensor(
        self, ref: StorageRef, dtype: NumberFormat, offset: Any, size: Any, stride: Any, hooks: Any
    ) -> None:
        self._no_hooks(hooks)
        if not (type(offset) is int and _counts(size) and _counts(stride)):
            raise self.refused("describes a tensor by something that is no whole number")
        self.stack.append(StoredTensor(ref, TensorForm(dtype, size, stride, offset)))

    def _no_hooks(self, hooks: Any) -> None:
        if not isinstance(hooks, dict) or hooks:
            raise self.refused("gives a tensor hooks")


def _counts(values: Any) -> bool:
    return isinstance(values, tuple) and all(type(value) is int for value in values)


PUSHES: dict[str, Callable[[], Any] | None] = {
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"), None),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE"), None),
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
"""Opcodes that put a value on the stack: their argument, or a fresh constant."""
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
NOTHING = frozenset({"PROTO", "FRAME", "STOP"})
STEPS: dict[str, Callable[[_Reader, Any], None]] = {
    "MARK": _Reader.mark,
    "TUPLE": _Reader.tuple_from_mark,
    "BINPUT": _Reader.put,
    "LONG_BINPUT": _Reader.put,
    "MEMOIZE": _Reader.put,
    "BINGET": _Reader.get,
    "LONG_BINGET": _Reader.get,
    "GLOBAL": _Reader.name,
    "STACK_GLOBAL": _Reader.name,
    "APPEND": _Reader.append,
    "APPENDS": _Reader.appends,
    "SETITEM": _Reader.set_item,
    "SETITEMS": _Reader.set_items,
    "BUILD": _Reader.build,
    "BINPERSID": _Reader.storage,
    "REDUCE": _Reader.call,
}
