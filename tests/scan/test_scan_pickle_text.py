"""What our reader of pickles takes, both of Python's readers take, with an equal value."""

from __future__ import annotations

import io
import pickle
import re
import struct
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from purpleteam.scan.formats.pickles import PickleReader
from purpleteam.scan.formats.problem import Problem


class _Reader(PickleReader):
    names: ClassVar = {}


class _InC(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        raise pickle.UnpicklingError(f"{module}.{name}")


class _InPython(pickle._Unpickler):
    find_class = _InC.find_class


def read_alike(data: bytes) -> bool:
    """Return whether we read a pickle; where we do, Python's readers read the same."""
    try:
        ours = _Reader(memoryview(data)).read()
    except Problem:
        return False
    for reader in (_InC, _InPython):
        assert repr(reader(io.BytesIO(data), encoding="bytes").load()) == repr(ours), reader
    return True


TEXTS = """
0 00 01 1 -1 -0 +1 010 0x1F 0b1 1_0 1L 01L L - 2147483648 9223372036854775808
1. .5 1.5 1e5 1e+16 1e-05 1e999 -1e999 inf -inf nan -nan infinity
'a' "a" 'a" '\\x41' '\\xe4' '\\q' '\\101' '\\777' '\\' '\\\\' a \\u0041 \\ud800 \\U00110000 \\u1
"""
TEXTS = [*re.split(r"\s", TEXTS), " ", " 1", "1 ", "\t1", "1\0"]
texts = st.one_of(
    st.sampled_from([one.encode() for one in TEXTS]),
    st.text("0123456789+-._eELxXabfnit'\"\\u \t\r\0", max_size=8).map(str.encode),
    st.integers(-(1 << 80), 1 << 80).map(lambda one: b"%d" % one),
    st.floats().map(lambda one: repr(one).encode()),
    st.binary(max_size=6).map(lambda one: one.replace(b"\n", b"")),
)
small = st.one_of(st.integers(0, 6), st.sampled_from([255, 1 << 31, (1 << 32) - 1]))
parts = st.one_of(
    st.tuples(st.sampled_from(list(b"ILFSVpgP")), texts).map(
        lambda a: bytes([a[0]]) + a[1] + b"\n"
    ),
    st.tuples(st.sampled_from(list(b"U\x8c\x8aCKqh")), small).map(
        lambda a: bytes([a[0], a[1] & 255]) + b"abcdef"[: a[1]] * (a[0] not in b"Kqh")
    ),
    st.tuples(st.sampled_from(list(b"XTB\x8bJrj")), small).map(
        lambda a: bytes([a[0]]) + struct.pack("<I", a[1]) + b"abcdef"[: a[1]] * (a[0] not in b"Jrj")
    ),
    st.tuples(st.sampled_from(list(b"\x95\x8d\x8e\x96")), small).map(
        lambda a: bytes([a[0]]) + struct.pack("<Q", a[1]) + b"abcdef"[: a[1]] * (a[0] != 0x95)
    ),
    st.binary(min_size=8, max_size=8).map(lambda raw: b"G" + raw),
    st.integers(0, 7).map(lambda protocol: bytes([0x80, protocol])),
    st.sampled_from([bytes([one]) for one in b"(()]}Nltdeaus\x85\x86\x87\x88\x89\x94\x94.Q120"]),
)


@pytest.mark.parametrize("opcode", "ILFSV")
@pytest.mark.parametrize("text", TEXTS)
def test_text_that_we_take_python_takes(opcode, text):
    read_alike(opcode.encode() + text.encode() + b"\n.")


@pytest.mark.parametrize("text", TEXTS)
def test_a_place_of_the_memo_that_we_take_python_takes(text):
    read_alike(b"(K\5p" + text.encode() + b"\ng" + text.encode() + b"\nt.")


@settings(max_examples=1500, deadline=None)
@given(st.lists(parts, max_size=7), st.integers(0, 30))
def test_opcodes_that_we_take_python_takes(pieces, frame):
    body = b"".join(pieces)
    read_alike(body + b".")
    read_alike(b"(" + body + b"l.")
    read_alike(b"\x80\4\x95" + struct.pack("<Q", frame) + b"(" + body + b"t.")


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.text(max_size=2), inner, max_size=3)
            | st.tuples(inner, inner)
        ),
        max_leaves=8,
    ),
    st.integers(0, 5),
)
def test_what_python_writes_we_read(value, protocol):
    assert read_alike(pickle.dumps(value, protocol))


def test_what_python_2_writes_we_read():
    assert read_alike(b"(lp0\nS'a\\\\ \\n\\xe4'\np1\naI01\naI-3\naL5L\naF0.1\naV\\u20ac\na.")


@pytest.mark.parametrize(
    "data",
    [b"L01\n.", b"I+1\n.", b"I-0\n.", b"F1e999\n.", b"F 1\n.", b"S'\\q'\n.", b"(K\1p-1\nl.",
     b"(K\1r\xff\xff\xff\xffl.", b"\x80\4\x95\1\0\0\0\0\0\0\0K\1.", b"K\1K\2.", b"\x80\6K\1."],
)  # fmt: skip
def test_text_that_readers_read_differently_is_refused(data):
    with pytest.raises(Problem):
        _Reader(memoryview(data)).read()
