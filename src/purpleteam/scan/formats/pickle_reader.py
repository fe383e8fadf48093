"""Pickles interpreted over plain values: the opcodes that data need, and no way to anything else.

This is no unpickler: nothing is imported and no object is made. Numbers, text, bytes, lists,
tuples and dicts are what they are; a name, a call and a state go to the subclass, which knows a
handful of names and makes descriptions of what they stand for. Every other name and every opcode
that is not in the table is refused (pickletools; PEP 307, PEP 3154, PEP 574).
"""

from __future__ import annotations

import codecs
import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from purpleteam.scan.formats.problem import Malformed

MAX_OPCODES = 2_000_000
MAX_MARKS = 1000
"""How deep containers may lie in one another."""
MAX_LINE = 1 << 31
STOP = ord(".")


@dataclass(frozen=True)
class Symbol:
    """A name that the subclass knows; only ever compared, never looked up."""

    name: str


class OrderedItems(dict[Any, Any]):
    """A collections.OrderedDict of the pickle."""


class Buffer(bytes):
    """A bytearray of the pickle."""


class Cursor:
    """A place in a pickle, and what is read from there on."""

    def __init__(self, data: bytes | memoryview, at: int = 0) -> None:
        self.data, self.at = data, at

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        start = self.at
        self.skip(count)
        return bytes(self.data[start : self.at])

    def skip(self, count: int) -> None:
        """Leave out the next bytes."""
        if count > len(self.data) - self.at:
            raise ValueError("the pickle ends early")
        self.at += count

    def line(self) -> bytes:
        """Return the bytes up to the next line feed, which is left out."""
        length = 64
        while length <= MAX_LINE:
            piece = bytes(self.data[self.at : self.at + length])
            if (end := piece.find(b"\n")) >= 0:
                self.at += end + 1
                return piece[:end]
            if len(piece) < length:
                break
            length *= 8
        raise ValueError("a line without an end")

    def number(self, form: str, size: int) -> int:
        """Return the next number of a `struct` form."""
        value: int = struct.unpack(form, self.take(size))[0]
        return value


class PickleReader(Cursor):
    """Reads one pickle; a subclass says which names it knows and what they make."""

    table: ClassVar[dict[int, Callable[[Any], None]]]
    """The opcodes that are understood."""
    keys: ClassVar[tuple[type, ...]] = (str, int)

    def __init__(self, data: bytes | memoryview) -> None:
        super().__init__(data)
        self.start = self.frame_end = 0
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def known(self, module: str, name: str) -> Any:
        """Return what stands for a name of the pickle, or None if it is not known."""
        raise NotImplementedError

    def called(self, function: Any, arguments: Any) -> Any:
        """Return what a call stands for."""
        raise NotImplementedError

    def given(self, target: Any, state: Any) -> None:
        """Give `target` a state."""
        raise NotImplementedError

    def outside(self, reference: Any) -> Any:
        """Return what stands for something that lies outside of the pickle."""
        raise self.refused("names something outside of the pickle")

    def read(self) -> Any:
        """Return what the pickle describes.

        Raises:
            Malformed: for any opcode, name or form that is not understood.
        """
        table, data = self.table, self.data
        try:
            for _ in range(MAX_OPCODES):
                self.start = at = self.at
                self.at += 1
                code = data[at]
                if code == STOP:
                    break
                step = table.get(code)
                if step is None:
                    raise self.refused("is not needed by plain data")
                step(self)
            else:
                raise Malformed("bomb", f"the pickle has more than {MAX_OPCODES} opcodes")
        except (ValueError, TypeError, LookupError, OverflowError, struct.error) as error:
            reason = str(error) or type(error).__name__
            raise Malformed(
                "damaged-pickle", f"broken at byte {self.start}: {reason}"[:200]
            ) from None
        if self.at != len(data):
            raise Malformed("damaged-pickle", f"{len(data) - self.at} bytes follow the pickle")
        if len(self.stack) != 1 or self.marks:
            raise Malformed(
                "damaged-pickle", "the pickle ends with a stack that is not of one value"
            )
        return self.stack[0]

    def refused(self, why: str) -> Malformed:
        """Return the refusal of the opcode that is being read."""
        code = self.data[self.start]
        names = (opcode.name for opcode in pickletools.opcodes if ord(opcode.code) == code)
        name = next(names, f"{code:#04x}")
        return Malformed("unsafe-global", f"opcode {name} at byte {self.start} {why}")

    def to_mark(self) -> list[Any]:
        if not self.marks:
            raise ValueError("no mark on the stack")
        items, self.stack = self.stack, self.marks.pop()
        return items

    def mark(self) -> None:
        if len(self.marks) >= MAX_MARKS:
            raise Malformed("bomb", f"the pickle is more than {MAX_MARKS} containers deep")
        self.marks.append(self.stack)
        self.stack = []

    def tuple_of(self, length: int) -> None:
        if length > len(self.stack):
            raise ValueError("takes more from the stack than there is")
        items = tuple(self.stack[-length:])
        del self.stack[-length:]
        self.stack.append(items)

    def name(self, module: Any, attribute: Any) -> None:
        if not (isinstance(module, str) and isinstance(attribute, str)):
            raise self.refused("names something by what is no text")
        value = None if "." in attribute else self.known(module, attribute)
        if value is None:
            full = f"{module}.{attribute}"
            raise self.refused(f"names {full[:80]!r}, which is not on the allow-list")
        self.stack.append(value)

    def call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if type(arguments) is not tuple:
            raise self.refused("calls something with what is no tuple")
        self.stack.append(self.called(function, arguments))

    def build(self) -> None:
        state = self.stack.pop()
        self.given(self.stack[-1], state)

    def extend(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise self.refused("adds to something that is no list")
        self.stack[-1].extend(items)

    def fill(self, items: list[Any]) -> None:
        target, keys = self.stack[-1], items[::2]
        if not isinstance(target, dict) or len(items) % 2:
            raise self.refused("sets items of something that is no dict")
        for key in keys:
            if type(key) not in self.keys:
                raise self.refused("sets a key that is neither text nor a whole number")
        before = len(target)
        target.update(zip(keys, items[1::2], strict=True))
        if len(target) != before + len(keys):
            raise self.refused("sets a key twice")

    def frame(self) -> None:
        """Check the claim that the next opcodes lie in one piece of so many bytes."""
        end = self.number("<Q", 8) + self.at
        if not self.frame_end <= self.start <= end <= len(self.data):
            raise ValueError("a frame that reaches into another, or behind the end")
        self.frame_end = end

    def proto(self) -> None:
        if self.start or self.take(1)[0] > 5:
            raise ValueError("a protocol mark out of place, or of an unknown protocol")


Step = Callable[[PickleReader], None]


def quoted(line: bytes) -> bytes:
    """Return the text of the opcode STRING, which stands in quotation marks with escapes."""
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise ValueError("a text without quotation marks")
    return codecs.escape_decode(line[1:-1])[0]


def _push(make: Callable[[PickleReader], Any]) -> Step:
    def step(reader: PickleReader) -> None:
        value = make(reader)  # may put another stack in place
        reader.stack.append(value)

    return step


def _constant(make: Callable[[], Any]) -> Step:
    return lambda reader: reader.stack.append(make())


def _put(index: Callable[[PickleReader], int]) -> Step:
    def step(reader: PickleReader) -> None:
        reader.memo[index(reader)] = reader.stack[-1]

    return step


def _global(reader: PickleReader) -> None:
    module, attribute = reader.line(), reader.line()
    reader.name(module.decode("ascii"), attribute.decode("ascii"))


def _stack_global(reader: PickleReader) -> None:
    attribute, module = reader.stack.pop(), reader.stack.pop()
    reader.name(module, attribute)


def _dict_of(reader: PickleReader) -> None:
    items = reader.to_mark()
    reader.stack.append({})
    reader.fill(items)


def _int(text: bytes) -> int | bool:
    return text == b"01" if text in (b"00", b"01") else int(text)


def _long(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


def _byte(reader: PickleReader) -> bytes:
    return reader.take(reader.take(1)[0])


def _four(reader: PickleReader) -> bytes:
    return reader.take(reader.number("<I", 4))


def _eight(reader: PickleReader) -> bytes:
    return reader.take(reader.number("<Q", 8))


BINARY: dict[int, Step] = {
    0x80: PickleReader.proto,
    ord("("): PickleReader.mark,
    ord("N"): _constant(lambda: None),
    0x88: _constant(lambda: True),
    0x89: _constant(lambda: False),
    ord("J"): _push(lambda reader: reader.number("<i", 4)),
    ord("K"): _push(lambda reader: reader.take(1)[0]),
    ord("M"): _push(lambda reader: reader.number("<H", 2)),
    0x8A: _push(lambda reader: _long(_byte(reader))),
    ord("G"): _push(lambda reader: struct.unpack(">d", reader.take(8))[0]),
    ord("X"): _push(lambda reader: _four(reader).decode("utf-8")),
    ord("}"): _constant(dict),
    ord("]"): _constant(list),
    ord(")"): _constant(tuple),
    ord("t"): _push(lambda reader: tuple(reader.to_mark())),
    0x85: lambda reader: reader.tuple_of(1),
    0x86: lambda reader: reader.tuple_of(2),
    0x87: lambda reader: reader.tuple_of(3),
    ord("q"): _put(lambda reader: reader.take(1)[0]),
    ord("r"): _put(lambda reader: reader.number("<I", 4)),
    ord("h"): _push(lambda reader: reader.memo[reader.take(1)[0]]),
    ord("j"): _push(lambda reader: reader.memo[reader.number("<I", 4)]),
    ord("c"): _global,
    ord("a"): lambda reader: reader.extend([reader.stack.pop()]),
    ord("e"): lambda reader: reader.extend(reader.to_mark()),
    ord("s"): lambda reader: reader.fill([reader.stack.pop(-2), reader.stack.pop()]),
    ord("u"): lambda reader: reader.fill(reader.to_mark()),
    ord("b"): PickleReader.build,
    ord("R"): PickleReader.call,
    ord("Q"): _push(lambda reader: reader.outside(reader.stack.pop())),
}
"""Protocol 2, as torch.save writes it and as torch.load(weights_only=True) reads it."""

ALL_PROTOCOLS: dict[int, Step] = BINARY | {
    # protocols 0 and 1, and the text of Python 2, which is bytes
    ord("I"): _push(lambda reader: _int(reader.line())),
    ord("L"): _push(lambda reader: int(reader.line().removesuffix(b"L"))),
    ord("F"): _push(lambda reader: float(reader.line())),
    ord("S"): _push(lambda reader: quoted(reader.line())),
    ord("V"): _push(lambda reader: reader.line().decode("raw-unicode-escape")),
    ord("T"): _push(_four),
    ord("U"): _push(_byte),
    ord("l"): _push(PickleReader.to_mark),
    ord("d"): _dict_of,
    ord("p"): _put(lambda reader: int(reader.line())),
    ord("g"): _push(lambda reader: reader.memo[int(reader.line())]),
    # protocols 3 to 5
    0x8B: _push(lambda reader: _long(_four(reader))),
    ord("B"): _push(_four),
    ord("C"): _push(_byte),
    0x8C: _push(lambda reader: _byte(reader).decode("utf-8")),
    0x8D: _push(lambda reader: _eight(reader).decode("utf-8")),
    0x8E: _push(_eight),
    0x93: _stack_global,
    0x94: _put(lambda reader: len(reader.memo)),
    0x95: PickleReader.frame,
    0x96: _push(lambda reader: Buffer(_eight(reader))),
}
