"""What a pickle would import and call, from its opcodes, wherever in a file it begins."""

import re
import struct
import sys
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from purpleteam.scan.formats.pickles import (
    ARGUMENTS,
    EFFECTS,
    NO_END,
    OPCODES,
    VALUES,
    endless,
    full_name,
    opcodes,
    quoted,
)
from purpleteam.scan.formats.problem import Problem

MAX_NAME = 1000  # a longer text is no name of anything that can be imported
MAX_WALK = 1_000_000  # opcodes that are walked over in one file; a longer pickle counts as broken
LEAST_INNER = 12  # bytes; in fewer no pickle or archive does anything
MAX_INNER = 50_000  # pieces of bytes in one pickle
MAX_HIDDEN = 10_000  # opcodes of a pickle that begins somewhere else than its file
CALLS = frozenset(["REDUCE", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD"])
CHANGES = frozenset(["APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"])
PUTS, GETS = ("BINPUT", "LONG_BINPUT", "PUT"), ("BINGET", "LONG_BINGET", "GET")
LITERALS: dict[str, str | None] = {
    **dict.fromkeys(("STRING", "BINSTRING", "SHORT_BINSTRING"), "latin-1"),
    **dict.fromkeys(("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"), "utf-8"),
    "UNICODE": "raw-unicode-escape",
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8")),
}
"""The opcodes of text, and its encoding; of bytes, and none."""
LOADER = "torch.storage._load_from_bytes"  # of a tensor that was pickled and not saved by torch
_MARK = object()


class _Named(str):
    """What was imported, on the stack."""

    __slots__ = ()


class _Made(list[Any]):
    """Something made of others, and those of them that are made of others as well."""


class _Huge(_Made):
    """A number that no memory holds, or a tuple with one."""


class PickleWalk(NamedTuple):
    """What the opcodes up to STOP, or up to the first broken one, say."""

    imports: tuple[tuple[str | None, int], ...]
    """Names, None where one cannot be told, and first bytes; `module:outer.inner` where a name
    leads on from what the module holds."""
    calls: int  # of the imports, those before the first call; 0 where nothing is called
    end: int  # the byte behind STOP; where the walk broke, that of the last whole opcode
    opcodes: int
    error: str | None
    bomb: str  # what of it no memory holds, or no reader gets to the end of
    marks: frozenset[int]  # of a protocol, where a pickle may begin
    files: tuple[memoryview, ...] | None
    """Files of torch in the pickle, which it loads; None where it uses their loader otherwise."""
    inner: tuple[memoryview, ...]  # other bytes, in which a file may lie

    @property
    def calls_a_name(self) -> bool:
        """Whether it calls something, and all that it imports before may be names of Python."""
        names = [name.replace(":", ".") for name, _ in self.imports[: self.calls] if name]
        return bool(names) and all(
            part.isidentifier() for name in names for part in name.split(".")
        )


def walk_pickle(data: memoryview, start: int = 0, limit: int = MAX_WALK) -> PickleWalk:
    """Walk one pickle from byte `start` on, for at most `limit` opcodes."""
    stack: list[Any] = []  # places of literals, names, marks, what is made of others, or None
    memo: dict[int, Any] = {}
    imports: list[tuple[str | None, int]] = []
    marks: list[int] = []
    files: dict[int, memoryview] = {}
    inner: dict[int, memoryview] = {}
    loaders = 0  # that lie on the stack, or were used for something else than to load
    built, shared, calls, count, at, end, error, bomb = False, False, 0, 0, start, start, None, ""
    made: Any = None
    try:
        for name, raw, at, end in islice(opcodes(data, start), limit):  # noqa: B007 - `end` is said
            count += 1
            made = None
            if name in LITERALS:
                stack.append(at)  # a million of them take little memory
                if name == "STRING":
                    quoted(bytes(raw))
                elif LITERALS[name] is None and len(raw) >= LEAST_INNER:
                    inner[at] = raw
            elif name in PUTS or name == "MEMOIZE":
                place = len(memo) if name == "MEMOIZE" else ARGUMENTS[name](bytes(raw))
                if place > len(data):  # pickle's own memo is a list
                    bomb = bomb or f"place {place} of the memo is taken (byte {at})"
                elif len(memo) > limit // 2:
                    raise ValueError("the memo has more places than there can be values")
                memo[place] = stack[-1]
            elif name in GETS or name == "DUP":
                made = stack[-1] if name == "DUP" else memo[ARGUMENTS[name](bytes(raw))]
                stack.append(made)
                shared |= isinstance(made, _Made)
            elif name in ("INT", "LONG", "LONG1", "LONG4"):
                stack.append(_Huge() if abs(ARGUMENTS[name](bytes(raw))) >> 31 else None)
            elif name == "MARK":
                stack.append(_MARK)
            elif name in VALUES:
                stack.append(_Made() if name.startswith("EMPTY") else None)
            else:
                if name in ("GLOBAL", "INST", "STACK_GLOBAL"):
                    made = _named(data, stack[-2:] if name == "STACK_GLOBAL" else raw)
                    imports.append((made, at))
                elif name in ("EXT1", "EXT2", "EXT4"):
                    imports.append((None, at))
                elif name == "PROTO":
                    marks.append(at)
                to_mark, takes, puts = EFFECTS[name]
                above = []
                while to_mark and (item := stack.pop()) is not _MARK:
                    above.append(item)
                if takes > len(stack):
                    raise ValueError("takes more from the stack than there is")
                taken = stack[len(stack) - takes :] + above[::-1]
                held = [item for item in taken if isinstance(item, _Made)]
                huge = any(isinstance(item, _Huge) for item in held)
                if name in CHANGES:
                    made = taken[0]
                    if isinstance(made, _Named):  # what others use as well
                        imports.append((f"{made}:__setattr__", at))
                    elif isinstance(made, _Made) and name != "BUILD":  # objects may know each other
                        made += held[1:]
                elif name in CALLS and huge:
                    bomb = bomb or f"something is called with a number over 2**31 (byte {at})"
                elif name.startswith("TUPLE"):
                    made = (_Huge if huge else _Made)(taken if len(taken) <= 2 else held)
                elif name == "REDUCE":
                    match taken:
                        case [str(function), (int(one),)] if function == LOADER:
                            files[one] = files.get(one) or _content(data, one)
                            inner.pop(one, None)
                            loaders -= 1
                        case ["_codecs.encode", (int(one), int(encoding))] if _text(
                            data, encoding
                        ) in ("latin1", "latin-1"):
                            made, inner[one] = one, inner.get(one) or _content(data, one)
                made = _Made(held) if made is None else made
                built |= name == "BUILD"  # a text may well have lines that begin with c and b
                if name in CALLS and name != "BUILD":
                    calls = calls or len(imports)
                del stack[len(stack) - takes :]
                stack.extend([made] * puts)
            if len(inner) > MAX_INNER:
                raise ValueError(f"over {MAX_INNER} pieces of bytes")
            loaders += made == LOADER
            if name == "STOP":
                break
        else:
            error = f"more than {limit} opcodes"
    except (ValueError, LookupError, OverflowError, struct.error, Problem) as reason:
        error = f"{reason} after byte {at}"[:200]
    return PickleWalk(
        imports=tuple(imports), calls=calls or (len(imports) if built else 0),
        end=at if error else end, opcodes=count, error=error, marks=frozenset(marks),
        bomb=bomb or (endless([*memo.values(), *stack, made]) if shared else ""),
        files=None if loaders else tuple(files.values()), inner=tuple(inner.values()),
    )  # fmt: skip


def _literal(data: memoryview, at: int) -> tuple[memoryview, str | None]:
    """Return the text or bytes that an opcode gives, as they lie there, and a text's encoding."""
    name, raw, *_ = next(opcodes(data, at))
    return memoryview(quoted(bytes(raw))) if name == "STRING" else raw, LITERALS[name]


def _text(data: memoryview, at: int) -> str | None:
    """Return the text, if it is one that could name something."""
    raw, encoding = _literal(data, at)
    return str(raw, encoding or "latin-1", "surrogatepass") if len(raw) <= MAX_NAME else None


def _content(data: memoryview, at: int) -> memoryview:
    """Return the bytes, of which protocols 0 to 2 make a text."""
    raw, code = _literal(data, at)
    return raw if code in (None, "latin-1") else memoryview(str(raw, code).encode("latin-1"))


def _named(data: memoryview, parts: Any) -> _Named | None:
    """Return the name that two lines, or two texts on the stack, give."""
    if isinstance(parts, memoryview):
        return _Named(full_name(*str(parts, "utf-8").split("\n")))
    match [_text(data, part) for part in parts if isinstance(part, int)]:
        case [str(module), str(attribute)]:
            return _Named(full_name(module, attribute))
    return None


_NAME = re.compile(rb"\n(?<=[\w.]{2}\n)[A-Za-z_][\w.]{1,200}+(?=\n)")  # after `os`, or longer
_MODULES = {*sys.stdlib_module_names, "__builtin__", "commands", "numpy", "pandas", "pip", "torch"}
_NO_WORD = re.compile(r"(?a)[^\w.]")
LONGEST, LOOKED_BACK, MARKS_TRIED, PIECE = 60, 512, 20, 1 << 18
WORDS = bytes(byte for byte in range(128) if chr(byte).isalnum() or byte in b"_.")
WORD = np.isin(np.arange(256), [*WORDS])
MEMOIZE = 0x94
FIRST = np.array([byte in OPCODES and byte != 0x80 for byte in range(256)])


def hidden_pickles(data: memoryview, start: int, limit: int) -> Iterator[PickleWalk]:
    """Yield each pickle that calls something and begins anywhere behind byte `start`.

    The last one has an error where looking for them took more than `limit` opcodes.
    """
    at, passed = start, frozenset[int]()
    for begin in _beginnings(data, start):
        if begin < at or begin in passed:  # a walk that goes on past a beginning tells it as well
            continue
        for place in _two_lines(data, start, begin) if data[begin] == ord("\n") else [begin]:
            walk = walk_pickle(data, place, min(limit, MAX_HIDDEN))
            no_end = walk.error is not None and NO_END in walk.error  # so much was read for it
            limit -= walk.opcodes + (1000 if no_end else 1)
            if limit <= 0:
                yield walk._replace(error="there are too many places where a pickle may begin")
                return
            passed = walk.marks or passed
            if walk.calls_a_name:
                yield walk
                at = walk.end
                break


def _beginnings(data: memoryview, start: int) -> Iterator[int]:
    """Yield where a pickle may begin, in order; of two lines the newline between them.

    It begins with the mark of a protocol and an opcode, or with two texts that name something.
    """
    for first in range(start, len(data), PIECE):
        # What of the bytes before and after can matter is in each piece as well.
        before = min(first - start, LOOKED_BACK)
        if before and not _may_name(data[first - before : first + 2 * PIECE]):
            continue
        piece = np.frombuffer(data[first - before : first + PIECE + 2], np.uint8)
        marks = np.flatnonzero(piece[:-2] == 0x80)
        marks = marks[(piece[marks + 1] <= 5) & FIRST[piece[marks + 2]]]
        pairs = np.flatnonzero(piece[6:] == 0x93) + 6
        near = {back: piece[pairs - back] for back in (1, 2, 5)}
        named = WORD[piece[pairs - 2]] & (WORD[near[1]] | (near[1] == MEMOIZE))
        named |= (near[2] == ord("q")) & WORD[piece[pairs - 3]]
        named |= (near[5] == ord("r")) & WORD[piece[pairs - 6]]
        raw = piece.tobytes()
        found = marks.tolist()
        found += [name.start() for name in _NAME.finditer(raw)]
        for place in pairs[named].tolist():
            if (one := _text_before(raw, _text_before(raw, place))) >= 0:
                found.append(one)
        yield from (first - before + place for place in sorted(found))


def _may_name(data: memoryview) -> bool:
    """Return whether a name of four letters may be there, of which one is at each fourth byte.

    One in four bytes of weights is all exponents, which are no letters. A little is not told.
    """
    whole = len(data) - 4 & -4
    numbers = [np.frombuffer(data[first : first + whole], "<i4") for first in range(4)]
    quiet = [some for some in numbers if some[:500].max() < ord("A") << 24 > some.max()]
    return whole < PIECE or not quiet


def _text_before(raw: bytes, end: int) -> int:
    """Return where the opcode of a name begins that ends there, maybe put in the memo; -1: none."""
    for code, width in ((None, 0), (MEMOIZE, 1), (ord("q"), 2), (ord("r"), 5)):
        stop = end - width
        if stop < 2 or (width and raw[stop] != code):
            continue
        text = raw[max(0, stop - 200) : stop]
        most = len(text) - len(text.rstrip(WORDS))
        for length in range(most, 0, -1):  # a length may be a letter as well
            for opcode in (b"\x8c%c" % length, b"X%c\0\0\0" % length):
                if text.endswith(opcode, 0, -length):
                    return stop - length - len(opcode)
    return -1


def _two_lines(data: memoryview, start: int, newline: int) -> list[int]:
    """Return where a pickle may begin that names a module before a newline, and a name behind."""
    run = _NO_WORD.split(str(data[max(start, newline - LONGEST) : newline], "latin-1"))[-1]
    tails = (run[at:] for at, letter in enumerate(run) if letter in "ci")
    known = next((tail for tail in tails if tail[1:].partition(".")[0] in _MODULES), "")
    if not known:
        return []
    place = newline - len(known)
    if data[place] == ord("c"):
        return [place]
    # The opcode INST, whose arguments come before it, behind a mark.
    before = bytes(data[max(start, place - LOOKED_BACK) : place])
    marks = [at for at, byte in enumerate(before) if byte == ord("(")][-MARKS_TRIED:]
    return [place - len(before) + mark for mark in reversed(marks)]
