"""The pickle of a torch state dict: dicts, lists, tuples, numbers, text, and five names.

A call of one of these names makes a description of a tensor, never an object. What is accepted
here, `torch.load(weights_only=True)` accepts as well and reads with the same values: the same
opcodes (protocol 2), one number format and size for each storage, no hooks, gradients only for
floats.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, ClassVar

from purpleteam.scan.formats.allow_list import (
    ALLOWED,
    DTYPE_NAMES,
    STORAGE_NAMES,
    UNTYPED,
    StorageRef,
    StoredTensor,
    Symbol,
)
from purpleteam.scan.formats.pickle_opcodes import BINARY
from purpleteam.scan.formats.pickle_reader import OrderedItems, PickleReader
from purpleteam.scan.formats.problem import Malformed
from purpleteam.scan.formats.tensors import NumberFormat, TensorForm

__all__ = ["read_state_pickle"]

STATE_ATTRIBUTES = {"_metadata"}
SYMBOLS = {full: Symbol(full) for full in ALLOWED}


def read_state_pickle(data: bytes | memoryview) -> tuple[Any, dict[str, StorageRef]]:
    """Return what the pickle describes and every storage that it names, by its key.

    Raises:
        Malformed: for any opcode, name or form that a state dict does not need.
    """
    if data[:1] != b"\x80":
        raise Malformed("damaged-pickle", "the pickle does not begin with its protocol")
    reader = _StateReader(data)
    return reader.read(), reader.storages


class _StateReader(PickleReader):
    table: ClassVar[dict[int, Callable[[Any], None]]] = BINARY

    def __init__(self, data: bytes | memoryview) -> None:
        super().__init__(data)
        self.storages: dict[str, StorageRef] = {}

    def known(self, module: str, name: str) -> Symbol | None:
        return SYMBOLS.get(f"{module}.{name}")

    def given(self, target: Any, state: Any) -> None:
        if not isinstance(target, OrderedItems) or not isinstance(state, dict):
            raise self.refused("gives a state to something that is no OrderedDict")
        if not state.keys() <= STATE_ATTRIBUTES:
            raise self.refused(f"sets attributes other than {', '.join(STATE_ATTRIBUTES)}")

    def outside(self, reference: Any) -> StorageRef:
        match reference if type(reference) is tuple else None:
            case ("storage", Symbol(name), str(key), str(), int(count)) if (
                re.fullmatch(r"[0-9]{1,9}", key) and type(count) is int and count >= 0
            ):
                if name not in STORAGE_NAMES and name != UNTYPED:
                    raise self.refused(f"names {name!r}, which is no storage")
                found = StorageRef(key, STORAGE_NAMES.get(name), count)
                if self.storages.setdefault(key, found) != found:
                    raise self.refused(f"names storage {key} in two formats or sizes")
                return self.storages[key]
        raise self.refused("names a storage in a form that is not known")

    def called(self, function: Any, arguments: Any) -> Any:
        match function, arguments:
            case (
                Symbol("torch._utils._rebuild_tensor_v2"),
                (StorageRef(_, NumberFormat() as dtype) as ref, *place, bool(grad), hooks)
                | (StorageRef(_, NumberFormat() as dtype) as ref, *place, bool(grad), hooks, None),
            ) if len(place) == 3:
                return self._tensor(ref, dtype, place, grad, hooks)
            case (
                Symbol("torch._utils._rebuild_tensor_v3"),
                (StorageRef() as ref, *place, bool(grad), hooks, Symbol(name))
                | (StorageRef() as ref, *place, bool(grad), hooks, Symbol(name), None),
            ) if len(place) == 3 and name in DTYPE_NAMES:
                return self._tensor(ref, DTYPE_NAMES[name], place, grad, hooks)
            case (
                Symbol("torch._utils._rebuild_parameter"),
                (StoredTensor() as tensor, bool(grad), hooks),
            ):
                self._check_gradient(tensor.form.dtype, grad, hooks)
                return tensor
            case Symbol("collections.OrderedDict"), ():
                return OrderedItems()
            case Symbol("torch.Size"), (tuple(sizes),) if _counts(sizes):
                return sizes
        raise self.refused("calls something in a form that no state dict has")

    def _tensor(
        self, ref: StorageRef, dtype: NumberFormat, place: list[Any], grad: bool, hooks: Any
    ) -> StoredTensor:
        self._check_gradient(dtype, grad, hooks)
        offset, size, stride = place
        if not (type(offset) is int and _counts(size) and _counts(stride)):
            raise self.refused("describes a tensor by something that is no whole number")
        form = TensorForm(dtype, size, stride, offset)
        form.check(f"the tensor at byte {self.start} of the pickle", ref.bytes)
        return StoredTensor(ref, form)

    def _check_gradient(self, dtype: NumberFormat, grad: bool, hooks: Any) -> None:
        if not isinstance(hooks, OrderedItems) or hooks:
            raise self.refused("gives a tensor hooks")
        if grad and "float" not in dtype.name:
            raise self.refused(f"asks for a gradient of {dtype.name}, which torch refuses")


def _counts(values: Any) -> bool:
    return type(values) is tuple and all(type(value) is int for value in values)
