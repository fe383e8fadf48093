"""What a pickle would import when it is loaded, found by walking its opcodes.

Nothing is loaded. Strings are followed through the stack and the memo, so that a name put
together by STACK_GLOBAL is known; where it cannot be known, that itself is the answer.
"""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

__all__ = ["GlobalUse", "PickleWalk", "opcodes", "walk_pickle"]

MAX_OPCODES = 5_000_000
TEXTS = frozenset(
    {
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING"),
    }
)
CALLS = frozenset(["REDUCE", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD"])
_MARK = object()
_UNKNOWN = object()


@dataclass(frozen=True)
class GlobalUse:
    """A name that the pickle imports, and where; None where it cannot be told."""

    name: str | None
    position: int
    opcode: str


@dataclass(frozen=True)
class PickleWalk:
    """What the opcodes up to STOP, or up to the first broken one, say."""

    globals: tuple[GlobalUse, ...]
    calls: bool
    """Whether anything is called, built or given a state."""
    end: int
    """The first byte behind STOP; where the walk broke, the byte of the last whole opcode."""
    error: str | None = None


def walk_pickle(file: BinaryIO) -> PickleWalk:
    """Walk one pickle from the current place of the file."""
    walker = _Walker()
    count = 0
    try:
        for opcode, argument, position in opcodes(file):
            count += 1
            walker.position = position
            if count > MAX_OPCODES:
                return walker.result(f"more than {MAX_OPCODES} opcodes")
            walker.step(opcode, argument)
    except (ValueError, IndexError, KeyError, UnicodeError, OverflowError, MemoryError) as error:
        return walker.result(f"{error} after byte {walker.position}"[:200])
    walker.position = file.tell()
    return walker.result(None)


def opcodes(file: BinaryIO) -> Iterator[tuple[Any, Any, int]]:
    """Yield opcode, argument and place, as pickletools does but without its warnings."""
    found = pickletools.genops(file)
    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # odd escapes in old text opcodes
            opcode, argument, position = next(found, (None, None, None))
        if opcode is None:
            return
        yield opcode, argument, position or 0


class _Walker:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.found: list[GlobalUse] = []
        self.calls = False
        self.position = 0

    def result(self, error: str | None) -> PickleWalk:
        return PickleWalk(tuple(self.found), self.calls, self.position, error)

    def step(self, opcode: Any, argument: Any) -> None:
        name = opcode.name
        if name in TEXTS:
            self.stack.append(argument)
        elif name == "MARK":
            self.stack.append(_MARK)
        elif name == "DUP":
            self.stack.append(self.stack[-1])
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        else:
            self._imports(name, argument)
            self._generic(opcode)
            self.calls = self.calls or name in CALLS

    def _imports(self, name: str, argument: Any) -> None:
        if name in ("GLOBAL", "INST"):
            module, _, attribute = argument.partition(" ")
            self.found.append(GlobalUse(f"{module}.{attribute}", self.position, name))
        elif name == "STACK_GLOBAL":
            parts = self.stack[-2:]
            known = len(parts) == 2 and all(isinstance(part, str) for part in parts)
            self.found.append(GlobalUse(".".join(parts) if known else None, self.position, name))
        elif name.startswith("EXT"):
            self.found.append(GlobalUse(None, self.position, name))

    def _generic(self, opcode: Any) -> None:
        """Take from the stack and put on it as many values as the opcode's description says."""
        before = list(opcode.stack_before)
        if pickletools.markobject in before:
            while self.stack.pop() is not _MARK:
                pass
            before = before[: before.index(pickletools.markobject)]
        for _ in before:
            self.stack.pop()
        self.stack.extend(_UNKNOWN for _ in opcode.stack_after)
