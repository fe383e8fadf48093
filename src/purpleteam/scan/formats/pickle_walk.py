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

from purpleteam.scan.formats.pickle_reader import STOP, Cursor, quoted

CALLS = frozenset(["REDUCE", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD"])
MAX_WALK = 1_000_000
"""Opcodes that are looked at in one file; a longer pickle counts as broken."""
MAX_NAME = 1000
"""A longer text is no name of anything that can be imported."""
_MARK = object()
_UNKNOWN = object()


@dataclass(frozen=True)
class PickleWalk:
    """What the opcodes up to STOP, or up to the first broken one, say."""

    imports: tuple[tuple[str | None, int], ...]
    """Each name that it imports, None where it cannot be told, and at which byte."""
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
        parts = [part for name, _ in self.imports if name is not None for part in name.split(".")]
        return self.calls and bool(self.imports) and all(part.isidentifier() for part in parts)


def walk_pickle(data: memoryview, start: int = 0, limit: int = MAX_WALK) -> PickleWalk:
    """Walk one pickle from byte `start` on, for at most `limit` opcodes."""
    return _Walker(data, start).walk(limit)


class _Walker(Cursor):
    def __init__(self, data: memoryview, start: int) -> None:
        super().__init__(data, start)
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.imports: list[tuple[str | None, int]] = []
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
                    self._follow(name, argument)
                else:
                    self._take_and_put(name, argument, *effect)
                if code == STOP:
                    break
            else:
                error = f"more than {limit} opcodes"
        except (ValueError, IndexError, KeyError, OverflowError, struct.error) as reason:
            error = f"{reason} after byte {self.position}"[:200]
        end = self.position if error else self.at
        return PickleWalk(tuple(self.imports), self.calls, end, count + 1, error)

    def _follow(self, name: str, argument: Any) -> None:
        """Do what an opcode of text, of the memo or of marks does."""
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

    def _take_and_put(self, name: str, argument: Any, to_mark: bool, takes: int, puts: int) -> None:
        """Take from the stack and put on it as many values as the opcode's description says."""
        if name in ("GLOBAL", "INST"):
            self.imports.append((".".join(argument), self.position))
        elif name == "STACK_GLOBAL":
            parts = self.stack[-2:]
            known = len(parts) == 2 and all(isinstance(part, str) for part in parts)
            self.imports.append((".".join(parts) if known else None, self.position))
        elif name in ("EXT1", "EXT2", "EXT4"):
            self.imports.append((None, self.position))
        if name in CALLS:
            self.calls = True
        if to_mark:
            while self.stack.pop() is not _MARK:
                pass
        if takes > len(self.stack):
            raise ValueError("takes more from the stack than there is")
        if takes:
            del self.stack[-takes:]
        self.stack.extend([_UNKNOWN] * puts)


Reader = Callable[[Cursor], Any]


def _counted(size: int, encoding: str | None) -> Reader:
    """Return what reads text behind its length; where there is no encoding, what skips bytes."""
    form = {1: "<B", 4: "<I", 8: "<Q"}[size]

    def read(cursor: Cursor) -> str | None:
        length = cursor.number(form, size)
        if encoding is None or length > MAX_NAME:
            cursor.skip(length)
            return None
        return cursor.take(length).decode(encoding, "surrogatepass")

    return read


def _two_lines(cursor: Cursor) -> tuple[str, str]:
    return cursor.line().decode("utf-8"), cursor.line().decode("utf-8")


TEXTS: dict[str, Reader] = {
    "STRING": lambda cursor: quoted(cursor.line()).decode("latin-1"),
    "UNICODE": lambda cursor: cursor.line().decode("raw-unicode-escape"),
    "BINSTRING": _counted(4, "latin-1"),
    "SHORT_BINSTRING": _counted(1, "latin-1"),
    "SHORT_BINUNICODE": _counted(1, "utf-8"),
    "BINUNICODE": _counted(4, "utf-8"),
    "BINUNICODE8": _counted(8, "utf-8"),
}
"""The opcodes of text, and how each is read."""
MEMO: dict[str, Reader] = {
    **dict.fromkeys(("PUT", "GET"), lambda cursor: int(cursor.line())),
    **dict.fromkeys(("BINPUT", "BINGET"), lambda cursor: cursor.take(1)[0]),
    **dict.fromkeys(("LONG_BINPUT", "LONG_BINGET"), lambda cursor: cursor.number("<I", 4)),
}
ARGUMENTS: dict[str, Reader] = {**TEXTS, **MEMO, "GLOBAL": _two_lines, "INST": _two_lines}
FOLLOWED = {*TEXTS, *MEMO, "MARK", "DUP", "MEMOIZE"}
"""The opcodes after which the walker knows what lies on the stack."""
LENGTHS: dict[int, Reader] = {
    pickletools.UP_TO_NEWLINE: Cursor.line,
    pickletools.TAKEN_FROM_ARGUMENT1: _counted(1, None),
    pickletools.TAKEN_FROM_ARGUMENT4: _counted(4, None),
    pickletools.TAKEN_FROM_ARGUMENT4U: _counted(4, None),
    pickletools.TAKEN_FROM_ARGUMENT8U: _counted(8, None),
}
"""How the arguments that nothing depends on are skipped."""


def _described(
    opcode: pickletools.OpcodeInfo,
) -> tuple[str, Reader | None, tuple[bool, int, int] | None]:
    """Return name, reader and effect: whether it takes up to a mark, how many it takes and puts."""
    read, before = None, list(opcode.stack_before)
    if opcode.arg is not None:
        length = opcode.arg.n
        read = ARGUMENTS.get(opcode.name) or LENGTHS.get(length) or (lambda at: at.skip(length))
    if opcode.name in FOLLOWED:
        return opcode.name, read, None
    to_mark = pickletools.markobject in before
    takes = before.index(pickletools.markobject) if to_mark else len(before)
    return opcode.name, read, (to_mark, takes, len(opcode.stack_after))


OPCODES = {ord(opcode.code): _described(opcode) for opcode in pickletools.opcodes}
