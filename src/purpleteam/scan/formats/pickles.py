"""Pickles read opcode by opcode: what one would import, and the plain data that one describes.

Nothing is imported and no object is made (pickletools; PEP 307, 3154, 574).
"""

import codecs
import pickletools
import re
import struct
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, ClassVar

from purpleteam.scan.formats.problem import Problem

MAX_LINE = 16 << 20
LINE, TWO_LINES = re.compile(rb"[^\n]*+\n"), re.compile(rb"[^\n]*+\n[^\n]*+\n")
MAX_OPCODES = 2_000_000  # opcodes that are read of one pickle
MAX_MARKS = 1000  # how deep containers may lie in one another
MAX_PARTS, MAX_KEY = 10**8, 100  # of lists in lists, and of a tuple that is a key
NO_END = "a line without an end"
NOT_NEEDED = "is not needed by plain data"


def _described(opcode: pickletools.OpcodeInfo) -> tuple[str, int, bool, int, int]:
    """Return name, length of the argument, whether it takes up to a mark, and takes, and puts."""
    before, length = list(opcode.stack_before), opcode.arg.n if opcode.arg else 0
    to_mark = pickletools.markobject in before
    takes = before.index(pickletools.markobject) if to_mark else len(before)
    return opcode.name, length, to_mark, takes, len(opcode.stack_after)


OPCODES = {ord(opcode.code): _described(opcode) for opcode in pickletools.opcodes}
EFFECTS = {name: effect for name, _, *effect in OPCODES.values()}
WIDTHS = {  # bytes of the length that stands before an argument
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}


def opcodes(
    data: memoryview, at: int = 0, allowed: Container[str] = EFFECTS
) -> Iterator[tuple[str, memoryview, int, int]]:
    """Yield each opcode up to STOP: name, argument as it lies there, first byte, byte behind.

    Bytes that end early are a ValueError; an opcode that is unknown or not allowed is a `Problem`.
    """
    name = ""
    while name != "STOP":
        if at >= len(data):
            raise ValueError("the pickle ends early")
        if data[at] not in OPCODES:
            raise Problem("unsafe-global", f"there is no opcode {data[at]:#04x}")
        name, length, *_ = OPCODES[data[at]]
        if name not in allowed:
            raise Problem("unsafe-global", f"opcode {name} at byte {at} {NOT_NEEDED}")
        begin, ending = at + 1, 0
        if length == pickletools.UP_TO_NEWLINE:
            lines = TWO_LINES if name in ("GLOBAL", "INST") else LINE
            if not (found := lines.match(data, begin, begin + MAX_LINE)):
                raise ValueError(NO_END)
            length, ending = found.end() - begin - 1, 1
        elif length < 0:
            width = WIDTHS[length]
            signed = length == pickletools.TAKEN_FROM_ARGUMENT4
            length = int.from_bytes(data[begin : begin + width], "little", signed=signed)
            begin += width
        end = begin + length + ending
        if not begin <= end <= len(data):
            raise ValueError("the pickle ends early")
        yield name, data[begin : begin + length], at, end
        at = end


def quoted(line: bytes) -> bytes:
    """Return the text of the opcode STRING, which stands in quotation marks with escapes."""
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise ValueError("a text without quotation marks")
    return codecs.escape_decode(line[1:-1])[0]


def endless(values: list[Any], most: int = MAX_PARTS) -> str:
    """Return what to say if one of the values has more parts, each counted wherever it lies."""
    sizes: dict[int, int] = {}
    todo: list[tuple[Any, bool]] = [(values, False)]
    while todo:  # each is looked at once; one that holds itself counts once
        value, known = todo.pop()
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        if known:
            inner = [sizes.get(id(part), 0) for part in parts]
            sizes[id(value)] = min(len(inner) + sum(inner), 2 * MAX_PARTS)
        elif id(value) not in sizes:
            sizes[id(value)] = 0
            todo.append((value, True))
            todo += [(part, False) for part in parts if isinstance(part, (list, tuple, dict))]
    many = max((sizes.get(id(value), 0) for value in values), default=0) > most
    return f"lists in lists, named again and again, have over {most} parts" if many else ""


def full_name(module: str, attribute: str) -> str:
    """Return the name of what is imported; one that leads on into it is known by its colon."""
    return f"{module}{':' if '.' in attribute else '.'}{attribute}"


def _as_written(make: Callable[[bytes], Any], raw: bytes) -> Any:
    """Return what a text means; of text that pickle never writes its readers make this or that."""
    value = make(raw)
    if repr(value).encode().removeprefix(b"b") != raw:
        raise ValueError(f"pickle never writes {raw[:20]!r}")
    return value


@dataclass(frozen=True)
class Symbol:
    """A name that the reader knows; only ever compared, never looked up."""

    name: str


class OrderedItems(dict[Any, Any]):
    """A collections.OrderedDict of the pickle."""


_unsigned = partial(int.from_bytes, byteorder="little")
_signed = partial(int.from_bytes, byteorder="little", signed=True)
_whole = partial(_as_written, int)
VALUES: dict[str, Callable[[bytes], Any]] = {  # of the opcodes that are one by themselves
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_DICT": lambda _: {},
    "EMPTY_LIST": lambda _: [],
    "EMPTY_TUPLE": lambda _: (),
    **dict.fromkeys(("BININT1", "BININT2"), _unsigned),
    **dict.fromkeys(("BININT", "LONG1", "LONG4"), _signed),
    "BINFLOAT": lambda raw: struct.unpack(">d", raw)[0],
    **dict.fromkeys(("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"), bytes.decode),
    **dict.fromkeys(("SHORT_BINBYTES", "BINBYTES", "BINBYTES8"), bytes),
    "BYTEARRAY8": bytearray,
    # protocols 0 and 1, and the text of Python 2, which is bytes
    "INT": lambda raw: raw == b"01" if raw in (b"00", b"01") else _whole(raw),
    "LONG": lambda raw: _whole(raw.removesuffix(b"L")),
    "FLOAT": partial(_as_written, float),
    "STRING": partial(_as_written, quoted),
    "UNICODE": lambda raw: raw.decode("raw-unicode-escape"),
    **dict.fromkeys(("BINSTRING", "SHORT_BINSTRING"), bytes),
}
ARGUMENTS: dict[str, Callable[[bytes], Any]] = VALUES | {  # what the bytes behind an opcode mean
    **dict.fromkeys(("PUT", "GET"), int),
    **{"INT": int, "LONG": lambda raw: int(raw.removesuffix(b"L"))},  # of a walk, which is lax
    **dict.fromkeys(("BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"), _unsigned),
    **dict.fromkeys(("FRAME", "PROTO"), _unsigned),
    "GLOBAL": lambda raw: raw.decode("ascii").split("\n"),
}


class PickleReader:
    """Reads one pickle; a subclass makes descriptions of the names that it knows, and of calls."""

    names: ClassVar[Mapping[str, Symbol]]
    keys: ClassVar[tuple[type, ...]] = (str, int)
    allowed: ClassVar[frozenset[str]] = frozenset(EFFECTS)  # as far as they are understood
    most_parts: ClassVar[int] = MAX_PARTS

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.opcode, self.at, self.end, self.frame_end = "", 0, 0, 0
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.shared = False  # whether a container lies in several places

    def called(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        raise self.refused("calls something")

    def given(self, target: Any, state: Any) -> None:
        raise self.refused("gives something a state")

    def outside(self, reference: Any) -> Any:
        """Return what stands for something that lies outside of the pickle."""
        raise self.refused("names something outside of the pickle")

    def refused(self, why: str) -> Problem:
        return Problem("unsafe-global", f"opcode {self.opcode} at byte {self.at} {why}")

    def read(self) -> Any:
        steps = islice(opcodes(self.data, allowed=self.allowed), MAX_OPCODES)
        try:
            for self.opcode, raw, self.at, self.end in steps:
                if self.at < self.frame_end < self.end:
                    raise ValueError("an opcode that reaches over the end of its frame")
                if self.opcode in VALUES:
                    self.stack.append(VALUES[self.opcode](bytes(raw)))
                elif self.opcode != "STOP":
                    self._step(ARGUMENTS.get(self.opcode, bytes)(bytes(raw)))
        except (ValueError, TypeError, LookupError, OverflowError, Warning) as error:
            why = f"broken at byte {self.at}: {error or type(error).__name__}"[:200]
            raise Problem("damaged-pickle", why) from None
        if self.opcode != "STOP":
            raise Problem("bomb", f"the pickle has more than {MAX_OPCODES} opcodes")
        if self.end != len(self.data):
            behind = len(self.data) - self.end
            raise Problem("damaged-pickle", f"{behind} bytes follow the pickle")
        if len(self.stack) != 1 or self.marks:
            raise Problem("damaged-pickle", "the pickle ends with a stack that is not of one value")
        if self.shared and (why := endless(self.stack, self.most_parts)):
            raise Problem("bomb", why)
        return self.stack[0]

    def _step(self, argument: Any) -> None:
        """Do what an opcode does that is no value by itself."""
        stack = self.stack
        match self.opcode:
            case "BINPUT" | "LONG_BINPUT" | "PUT" | "MEMOIZE":
                place = len(self.memo) if self.opcode == "MEMOIZE" else argument
                if not 0 <= place < MAX_OPCODES:  # pickle's own memo is a list
                    raise ValueError(f"place {place} of the memo")
                self.memo[place] = stack[-1]
            case "BINGET" | "LONG_BINGET" | "GET":
                stack.append(self.memo[argument])
                self.shared |= isinstance(stack[-1], (list, tuple, dict))
            case "MARK":
                if len(self.marks) >= MAX_MARKS:
                    raise Problem("bomb", f"the pickle is more than {MAX_MARKS} containers deep")
                self.marks.append(stack)
                self.stack = []
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [stack.pop() for _ in range(int(self.opcode[-1]))]
                stack.append(tuple(items[::-1]))
            case "TUPLE" | "LIST":
                items = self._to_mark()
                self.stack.append(tuple(items) if self.opcode == "TUPLE" else items)
            case "DICT":
                items = self._to_mark()
                self.stack.append({})
                self._fill(items)
            case "APPENDS":
                self._extend(self._to_mark())
            case "SETITEMS":
                self._fill(self._to_mark())
            case "APPEND":
                self._extend([stack.pop()])
            case "SETITEM":
                self._fill([stack.pop(-2), stack.pop()])
            case "GLOBAL":
                self._name(*argument)
            case "STACK_GLOBAL":
                self._name(stack.pop(-2), stack.pop())
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                if type(arguments) is not tuple:
                    raise self.refused("calls something with what is no tuple")
                stack.append(self.called(function, arguments))
            case "BUILD":
                state = stack.pop()
                self.given(stack[-1], state)
            case "BINPERSID":
                stack.append(self.outside(stack.pop()))
            case "FRAME":  # claims that the next opcodes lie in one piece of so many bytes
                end = self.end + argument
                if not self.frame_end <= self.at <= end <= len(self.data):
                    raise ValueError("a frame that reaches into another, or behind the end")
                self.frame_end = end
            case "PROTO":
                if self.at or argument > 5:
                    raise ValueError("a protocol mark out of place, or of an unknown protocol")
            case _:
                raise self.refused(NOT_NEEDED)

    def _to_mark(self) -> list[Any]:
        if not self.marks:
            raise ValueError("no mark on the stack")
        items, self.stack = self.stack, self.marks.pop()
        return items

    def _extend(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise self.refused("adds to something that is no list")
        self.stack[-1].extend(items)

    def _fill(self, items: list[Any]) -> None:
        target, keys = self.stack[-1], items[::2]
        if not isinstance(target, dict) or len(items) % 2:
            raise self.refused("sets items of something that is no dict")
        if any(type(key) not in self.keys for key in keys):
            raise self.refused("sets a key that is neither text nor a whole number")
        if why := endless(keys, MAX_KEY):  # to find one takes as long as to walk it
            raise Problem("bomb", why)
        before = len(target)
        target.update(zip(keys, items[1::2], strict=True))
        if len(target) != before + len(keys):
            raise self.refused("sets a key twice")

    def _name(self, module: Any, attribute: Any) -> None:
        if not (isinstance(module, str) and isinstance(attribute, str)):
            raise self.refused("names something by what is no text")
        full = full_name(module, attribute)
        gone = module == "__builtin__" and bytes(self.data[:2]) >= b"\x80\3"  # of Python 2
        if gone or full not in self.names:
            raise self.refused(f"names {full[:80]!r}, which is not on the allow-list")
        self.stack.append(self.names[full])
