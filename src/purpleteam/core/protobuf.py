"""A strict reader of protobuf messages, without their schema (protobuf.dev/encoding).

What two readers could read differently is refused: numbers of more than 64 bits, groups, fields
that reach behind the end of their message.
"""

from collections.abc import Iterator
from typing import NamedTuple

MOST_FIELDS = 1_000_000
WIDTHS = {1: 8, 5: 4}  # bytes of what is of fixed size


class Malformed(ValueError):
    """It is no protobuf message."""


class TooMany(Malformed):
    """It has more fields than are read."""


class Field(NamedTuple):
    """One field: its number in the schema, and a number or the bytes that it holds."""

    number: int
    value: int | memoryview

    @property
    def message(self) -> memoryview:
        """The bytes of the field, such as another message; Malformed where it is a number."""
        if isinstance(self.value, int):
            raise Malformed(f"field {self.number} is a number where a message belongs")
        return self.value

    @property
    def text(self) -> str:
        return str(self.message, "utf-8", "replace")

    @property
    def numbers(self) -> list[int]:
        """The numbers of a repeated field, packed or one alone."""
        if isinstance(self.value, int):
            return [self.value]
        found, at = [], 0
        while at < len(self.value):
            number, at = _number(self.value, at)
            found.append(number)
        return found


class Reader:
    """Reads the messages of one file, up to so many fields in all of them."""

    def __init__(self, limit: int = MOST_FIELDS) -> None:
        self.limit = self.left = limit

    def fields(self, data: memoryview) -> Iterator[Field]:
        """Yield the fields of one message; raise Malformed where it is none."""
        at = 0
        while at < len(data):
            self.left -= 1
            if self.left < 0:
                raise TooMany(f"the file has more than {self.limit} fields")
            key, at = _number(data, at)
            number, wire = key >> 3, key & 7
            if not 0 < number < 1 << 29 or wire not in (0, 1, 2, 5):
                raise Malformed(f"no field begins before byte {at}")
            if wire == 0:
                value, at = _number(data, at)
                yield Field(number, value)
                continue
            length, at = _number(data, at) if wire == 2 else (WIDTHS[wire], at)
            if length > len(data) - at:
                raise Malformed(f"field {number} at byte {at} reaches behind its end")
            yield Field(number, data[at : at + length])
            at += length


def _number(data: memoryview, at: int) -> tuple[int, int]:
    """Return the number that begins at a byte, and the byte after it."""
    value = 0
    for place, byte in enumerate(data[at : at + 10]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80 and value < 1 << 64:
            return value, at + place + 1
    raise Malformed(f"the number at byte {at} has no end within 64 bits")
