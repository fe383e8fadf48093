"""What each opcode of plain data does to a `PickleReader` (pickletools; PEP 307, 3154, 574)."""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable
from typing import Any

from purpleteam.scan.formats.pickle_reader import Buffer, PickleReader

__all__ = ["BINARY", "LATER", "TEXT", "quoted"]


def _text(data: bytes) -> str:
    return data.decode("utf-8")


def _long(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


def _int(text: bytes) -> int | bool:
    return text == b"01" if text in (b"00", b"01") else int(text)


def quoted(line: bytes) -> bytes:
    """Return the text of the opcode STRING, which stands in quotation marks with escapes."""
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise ValueError("a text without quotation marks")
    return codecs.escape_decode(line[1:-1])[0]


def _global(reader: PickleReader) -> None:
    module, attribute = reader.line(), reader.line()
    reader.name(module.decode("ascii"), attribute.decode("ascii"))


def _stack_global(reader: PickleReader) -> None:
    attribute, module = reader.stack.pop(), reader.stack.pop()
    reader.name(module, attribute)


def _push(make: Callable[[PickleReader], Any]) -> Callable[[PickleReader], None]:
    def step(reader: PickleReader) -> None:
        value = make(reader)  # may put another stack in place
        reader.stack.append(value)

    return step


def _constant(make: Callable[[], Any]) -> Callable[[PickleReader], None]:
    return lambda reader: reader.stack.append(make())


def _put(index: Callable[[PickleReader], int]) -> Callable[[PickleReader], None]:
    def step(reader: PickleReader) -> None:
        reader.memo[index(reader)] = reader.stack[-1]

    return step


def _counted(form: str, size: int) -> Callable[[PickleReader], bytes]:
    return lambda reader: reader.take(reader.number(form, size))


def _dict_of(reader: PickleReader) -> None:
    items = reader.to_mark()
    reader.stack.append({})
    reader.fill(items)


_byte = _counted("<B", 1)
_four = _counted("<I", 4)
_eight = _counted("<Q", 8)

BINARY: dict[int, Callable[[PickleReader], None]] = {
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
    ord("X"): _push(lambda reader: _text(_four(reader))),
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

TEXT: dict[int, Callable[[PickleReader], None]] = {
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
}
"""Protocols 0 and 1, and the text of Python 2, which is bytes."""

LATER: dict[int, Callable[[PickleReader], None]] = {
    0x8B: _push(lambda reader: _long(_four(reader))),
    ord("B"): _push(_four),
    ord("C"): _push(_byte),
    0x8C: _push(lambda reader: _text(_byte(reader))),
    0x8D: _push(lambda reader: _text(_eight(reader))),
    0x8E: _push(_eight),
    0x93: _stack_global,
    0x94: _put(lambda reader: len(reader.memo)),
    0x95: PickleReader.frame,
    0x96: _push(lambda reader: Buffer(_eight(reader))),
}
"""Protocols 3 to 5."""
