"""What a pickle would import when it is loaded, found by walking its opcodes.

Nothing is loaded. Strings are followed through the stack and the memo, so that a name put
together by STACK_GLOBAL is known; where it cannot be known, that itself is the answer.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from purpleteam.scan.formats.pickle_opcodes import quoted
from purpleteam.scan.formats.pickle_reader import Cursor

__all__ = ["MAX_WALK", "GlobalUse", "PickleWalk", "walk_pickle"]

CALLS = frozenset(["REDUCE", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD"])
IMPORTS = frozenset(["GLOBAL", "INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4"])
MAX_WALK = 1_000_000
"""Opcodes that are looked at in one file; a longer pickle counts as broken."""
MAX_NAME = 1000
"""A longer text is no name of anything that can be imported."""
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
    opcodes: int
    """How many there were."""
    error: str | None = None

    @property
    def calls_a_name(self) -> bool:
        """Whether it calls something, and all that it imports may be names of Python."""
        names = [use.name for use in self.globals]
        return (
            self.calls
            and bool(names)
            and all(
                name is None or all(part.isidentifier() for part in name.split("."))
                for name in names
            )
        )


def walk_pickle(data: memoryview, start: int = 0, limit: int = MAX_WALK) -> PickleWalk:
    """Walk one pickle from byte `start` on, for at most `limit` opcodes."""
    return _Walker(data, start).walk(limit)


class _Walker(Cursor):
    def __init__(self, data: memoryview, start: int) -> None:
        super().__init__(data, start)
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.found: list[GlobalUse] = []
        self.calls = False
        self.position = start

    def walk(self, limit: int) -> PickleWalk:
        error, count = None, 0
        try:
            for count in range(limit):  # noqa: B007 (said in the result)
                at = self.at
                if at >= len(self.data):
                    raise ValueError("the pickle ends early")
                code = self.data[at]
                if code not in OPCODES:
                    raise ValueError(f"there is no opcode {code:#04x}")
                self.at = at + 1
                name, read, effect = OPCODES[code]
                argument = None if read is None else read(self)
                self.position = at
                if effect is None:
                    self._step(name, argument)
                else:
                    self._generic(name, argument, effect)
                if code == STOP:
                    break
            else:
                error = f"more than {limit} opcodes"
        except (ValueError, IndexError, KeyError, OverflowError, struct.error) as reason:
            error = f"{reason} after byte {self.position}"[:200]
        end = self.position if error else self.at
        return PickleWalk(tuple(self.found), self.calls, end, count + 1, error)

    def _step(self, name: str, argument: Any) -> None:
        if name in TEXTS:
            self.stack.append(_UNKNOWN if argument is None else argument)
        elif name == "MARK":
            self.stack.append(_MARK)
        elif name == "DUP":
            self.stack.append(self.stack[-1])
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name.endswith("PUT"):
            self.memo[argument] = self.stack[-1]
        else:
            self.stack.append(self.memo[argument])

    def _generic(self, name: str, argument: Any, effect: _Effect) -> None:
        """Take from the stack and put on it as many values as the opcode's description says."""
        if name in IMPORTS:
            self._imports(name, argument)
        if name in CALLS:
            self.calls = True
        if effect.to_mark:
            while self.stack.pop() is not _MARK:
                pass
        if effect.takes:
            if effect.takes > len(self.stack):
                raise ValueError("takes more from the stack than there is")
            del self.stack[-effect.takes :]
        for _ in range(effect.puts):
            self.stack.append(_UNKNOWN)

    def _imports(self, name: str, argument: Any) -> None:
        if name in ("GLOBAL", "INST"):
            module, attribute = argument
            self.found.append(GlobalUse(f"{module}.{attribute}", self.position, name))
        elif name == "STACK_GLOBAL":
            parts = self.stack[-2:]
            known = len(parts) == 2 and all(isinstance(part, str) for part in parts)
            self.found.append(GlobalUse(".".join(parts) if known else None, self.position, name))
        elif name.startswith("EXT"):
            self.found.append(GlobalUse(None, self.position, name))


def _counted(size: int, encoding: str | None) -> Callable[[Cursor], str | None]:
    """Return what reads text behind its length; where there is no encoding, what skips bytes."""
    form = {1: "<B", 4: "<I", 8: "<Q"}[size]

    def read(cursor: Cursor) -> str | None:
        length = cursor.number(form, size)
        if encoding is None or length > MAX_NAME:
            cursor.skip(length)
            return None
        return cursor.take(length).decode(encoding, "surrogatepass")

    return read


def _skip(size: int) -> Callable[[Cursor], None]:
    return lambda cursor: cursor.skip(size)


TEXTS: dict[str, Callable[[Cursor], str | None]] = {
    "STRING": lambda cursor: quoted(cursor.line()).decode("latin-1"),
    "UNICODE": lambda cursor: cursor.line().decode("raw-unicode-escape"),
    "BINSTRING": _counted(4, "latin-1"),
    "SHORT_BINSTRING": _counted(1, "latin-1"),
    "SHORT_BINUNICODE": _counted(1, "utf-8"),
    "BINUNICODE": _counted(4, "utf-8"),
    "BINUNICODE8": _counted(8, "utf-8"),
}
"""The opcodes of text, and how each is read."""
ARGUMENTS: dict[str, Callable[[Cursor], Any]] = {
    **TEXTS,
    "GLOBAL": lambda cursor: (cursor.line().decode("utf-8"), cursor.line().decode("utf-8")),
    "INST": lambda cursor: (cursor.line().decode("utf-8"), cursor.line().decode("utf-8")),
    "PUT": lambda cursor: int(cursor.line()),
    "GET": lambda cursor: int(cursor.line()),
    "BINPUT": lambda cursor: cursor.take(1)[0],
    "BINGET": lambda cursor: cursor.take(1)[0],
    "LONG_BINPUT": lambda cursor: cursor.number("<I", 4),
    "LONG_BINGET": lambda cursor: cursor.number("<I", 4),
}
LENGTHS = {
    pickletools.UP_TO_NEWLINE: Cursor.line,
    pickletools.TAKEN_FROM_ARGUMENT1: _counted(1, None),
    pickletools.TAKEN_FROM_ARGUMENT4: _counted(4, None),
    pickletools.TAKEN_FROM_ARGUMENT4U: _counted(4, None),
    pickletools.TAKEN_FROM_ARGUMENT8U: _counted(8, None),
}
"""How the arguments that nothing depends on are skipped."""
SPECIAL = {*TEXTS, "MARK", "DUP", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"} | {
    *("GET", "BINGET", "LONG_BINGET")
}
"""The opcodes after which the walker knows what lies on the stack."""


@dataclass(frozen=True, slots=True)
class _Effect:
    """What an opcode takes from the stack and puts on it."""

    to_mark: bool
    takes: int
    puts: int


def _effect(opcode: pickletools.OpcodeInfo) -> _Effect | None:
    if opcode.name in SPECIAL:
        return None
    before = list(opcode.stack_before)
    to_mark = pickletools.markobject in before
    takes = before.index(pickletools.markobject) if to_mark else len(before)
    return _Effect(to_mark, takes, len(opcode.stack_after))


def _reader(opcode: pickletools.OpcodeInfo) -> Callable[[Cursor], Any] | None:
    if opcode.arg is None:
        return None
    return ARGUMENTS.get(opcode.name) or LENGTHS.get(opcode.arg.n) or _skip(opcode.arg.n)


OPCODES: dict[int, tuple[str, Callable[[Cursor], Any] | None, _Effect | None]] = {
    ord(one.code): (one.name, _reader(one), _effect(one)) for one in pickletools.opcodes
}
STOP = ord(".")
