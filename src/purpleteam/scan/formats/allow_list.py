"""Every name that a torch state dict may hold, and the plain things that they stand for here."""

from __future__ import annotations

from dataclasses import dataclass

from purpleteam.scan.formats.tensors import DTYPES, NumberFormat, TensorForm

__all__ = [
    "ALLOWED",
    "DTYPE_NAMES",
    "STORAGE_NAMES",
    "UNTYPED",
    "StorageRef",
    "StoredTensor",
    "Symbol",
]

STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
DTYPE_NAMES = {f"torch.{name}": dtype for name, dtype in DTYPES.items()}
STORAGE_NAMES = {f"torch.{name}": DTYPES[dtype] for name, dtype in STORAGES.items()}
UNTYPED = "torch.storage.UntypedStorage"
CALLABLE = frozenset(
    {
        "collections.OrderedDict",
        "torch.Size",
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_tensor_v3",
    }
)
ALLOWED = CALLABLE | STORAGE_NAMES.keys() | DTYPE_NAMES.keys() | {UNTYPED}
"""Every name that a state dict may hold; the rest of Python is refused by default."""


@dataclass(frozen=True)
class Symbol:
    """A name from the allow-list; only ever compared, never looked up."""

    name: str


@dataclass(frozen=True)
class StorageRef:
    """One data/N of the archive."""

    key: str
    dtype: NumberFormat | None
    """None where the numbers' format is not known from the storage."""
    count: int
    """Numbers, or bytes where the format is not known."""

    @property
    def bytes(self) -> int:
        """The size of the storage."""
        return self.count * (self.dtype.size if self.dtype else 1)


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as the pickle describes it."""

    storage: StorageRef
    form: TensorForm
