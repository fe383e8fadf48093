"""What is read as a protobuf message, and what is refused."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from purpleteam.core.protobuf import Field, Malformed, Reader, TooMany


def read(content: bytes, limit: int = 100) -> list[Field]:
    return list(Reader(limit).fields(memoryview(content)))


def test_each_kind_of_field_is_read() -> None:
    told = read(b"\x08\x96\x01" + b"\x11" + bytes(8) + b"\x1a\x02hi" + b"\x25" + bytes(4))
    assert [field.number for field in told] == [1, 2, 3, 4]
    assert (told[0].value, told[2].text) == (150, "hi")
    assert (len(told[1].message), len(told[3].message)) == (8, 4)


def test_repeated_numbers_are_read_packed_or_alone() -> None:
    assert [field.numbers for field in read(b"\x0a\x03\x03\x96\x01\x08\x07")] == [[3, 150], [7]]


def test_the_largest_number_has_64_bits() -> None:
    assert read(b"\x08" + b"\xff" * 9 + b"\x01")[0].value == 2**64 - 1


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\x08" + b"\xff" * 9 + b"\x02", "no end within 64 bits"),
        (b"\x08" + b"\x80" * 10 + b"\x00", "no end within 64 bits"),
        (b"\x08", "no end within 64 bits"),
        (b"\x00\x01", "no field begins"),  # number 0
        (b"\x0b\x0c", "no field begins"),  # a group
        (b"\x80\x80\x80\x80\x10\x01", "no field begins"),  # a number of 30 bits
        (b"\x0a\x02a", "field 1 at byte 2 reaches behind its end"),
        (b"\x09" + bytes(7), "field 1 at byte 1 reaches behind its end"),
    ],
)
def test_what_is_no_message_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        read(content)


def test_the_fields_of_all_messages_of_a_file_are_counted() -> None:
    reader = Reader(3)
    assert len(list(reader.fields(memoryview(b"\x08\x01" * 2)))) == 2
    with pytest.raises(TooMany, match="more than 3 fields"):
        list(reader.fields(memoryview(b"\x08\x01" * 2)))


def test_a_number_is_no_message() -> None:
    with pytest.raises(Malformed, match="field 1 is a number where a message belongs"):
        _ = read(b"\x08\x01")[0].message


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_read_to_its_end(content: bytes) -> None:
    with suppress(Malformed):
        assert all(0 < field.number < 2**29 for field in read(content, 1000))
