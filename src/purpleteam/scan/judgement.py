"""The one judgement of a model file, which the scan tells and the gate heeds.

Content decides and never the name, and all of the content: containers are opened to a bounded
depth, pickles are looked for wherever they may begin, and what was not read is said.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from purpleteam.core.errors import reason_of
from purpleteam.scan.formats.config import inspect_config, inspect_script
from purpleteam.scan.formats.containers import STREAMS, tar_members, unpacked
from purpleteam.scan.formats.names import FOREIGN, RAW, is_harmless
from purpleteam.scan.formats.onnx import inspect_onnx
from purpleteam.scan.formats.problem import GRADES, Grade, Problem
from purpleteam.scan.formats.safetensors import read_safetensors
from purpleteam.scan.formats.sniff import (
    CLOSED,
    MAGIC,
    MODEL_KINDS,
    MODEL_SUFFIXES,
    kind_of,
    mapped,
    other_kinds,
)
from purpleteam.scan.formats.state_dict import select_state
from purpleteam.scan.formats.tensors import NPY_MAGIC, Tensor, inspect_npy
from purpleteam.scan.formats.torch_file import LEGACY, open_archive, open_legacy
from purpleteam.scan.formats.walk import LOADER, MAX_WALK, PickleWalk, hidden_pickles, walk_pickle
from purpleteam.scan.formats.zip_layout import Archive, read_layout
from purpleteam.scan.scanner import PYTHON

MAX_BYTES = 64 << 30
MAX_INNER = 10_000  # opcodes of bytes in a pickle, which are looked into if they go on
MAX_DEPTH = 4  # of containers in containers
MAX_MEMBERS = 10_000  # that are looked into, in all of them
MAX_UNPACKED = 512 << 20  # bytes, in all of them
MAX_MEMBER = 64 << 20  # bytes of a packed file of a zip archive, which are unpacked in memory
MAX_SHARING = 8  # how often the tensors may use the bytes of the file, as tied weights do
EXPANDED = 16 << 20  # bytes that views of few numbers may have in addition
OPENED = frozenset(
    {".npz", ".mar", ".keras", ".skops", ".nemo", ".pt2"}
)  # archives of several files
PACKED = {".tgz": ".tar", **dict.fromkeys((".gz", ".bz2", ".xz", ".z", ".lzma"), "")}
LAMBDA = re.compile(rb'"(?:class_name|registered_name)"\s*:\s*"(?:Lambda|__lambda__|TFSMLayer)"')
STORAGE = re.compile(r"[^/]*/data/[0-9]+")


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What a file is by its content, what is wrong with it, and the state dict that it holds."""

    kind: str
    claims_model: bool
    problems: tuple[Problem, ...]
    tensors: Mapping[str, Callable[[], Tensor]] | None
    """By name; None where it holds no state dict, or one that is not taken."""
    dtypes: Mapping[str, str]
    notes: tuple[str, ...]
    """What was left out of the state dict."""

    @property
    def grade(self) -> Grade:
        return max((row.grade for row in self.problems), key=GRADES.index, default="note")


def judge(path: Path) -> Judgement:
    """Return the judgement of a file; what fails while it is read makes it unread.

    Raises:
        OSError: the file cannot be read.
    """
    suffix, looker, problems = path.suffix.lower(), _Looker(path), []
    try:
        for problem in looker.look(mapped(path), path.name, 0):
            problems.append(problem)  # noqa: PERF402 - those before a failure count
        problems += looker.values()
    except OSError:
        raise
    except Exception as error:
        why = f"reading it failed: {type(error).__name__}: {reason_of(error)}"
        problems.append(Problem("unread", why))
    bad = any(problem.grade != "note" for problem in problems)
    return Judgement(
        kind=looker.kind,
        claims_model=suffix in MODEL_SUFFIXES,
        problems=tuple(problems),
        tensors=None if bad or looker.tensors is None else looker.tensors,
        dtypes=looker.dtypes,
        notes=tuple(looker.notes),
    )


class _Looker:
    """Looks into one file and into all that lies in it, within limits that they share."""

    def __init__(self, path: Path) -> None:
        self.folder, self.kind, self.model = path.parent, "unknown", False
        self.opcodes, self.unpacked, self.members = MAX_WALK, MAX_UNPACKED, MAX_MEMBERS
        self.tensors: dict[str, Callable[[], Tensor]] | None = None
        self.dtypes: dict[str, str] = {}
        self.notes: list[str] = []

    def look(self, data: memoryview, name: str, depth: int) -> Iterator[Problem]:
        """Yield what is wrong with the bytes of a file of that name."""
        suffix = PurePosixPath(name).suffix.lower()
        claims = suffix in MODEL_SUFFIXES and (suffix != ".bin" or not depth)
        kind = kind_of(data, claims_model=claims)
        self.model = self.model or claims
        if not depth:
            self.kind = kind
            if len(data) > MAX_BYTES:
                yield Problem("bomb", f"the file has {len(data)} bytes; at most {MAX_BYTES}")
                return
            if kind in MODEL_KINDS and kind not in MODEL_SUFFIXES.get(suffix, (kind,)):
                yield Problem("name", f"the file is named {suffix} and holds {kind}")
        for other in other_kinds(data, kind):
            yield Problem("unsafe-global", f"the file is a {other} as well, and loads as one")
        try:
            if kind == "pickle":
                yield from self._pickles(data, depth)
            elif kind == "zip":
                yield from self._zip(data, suffix, depth)
            elif kind == "tar" or kind in STREAMS:
                yield from self._container(data, kind, name, depth)
            elif kind == "numpy":
                yield from self._array(data, len(data), depth)
            elif kind == "safetensors" or (kind != "onnx" and suffix == ".safetensors"):
                yield from self._safetensors(data, depth)
            elif kind == "onnx" or suffix == ".onnx":
                yield from inspect_onnx(data, None if depth else self.folder)
            elif kind == "native" and (claims or self.model):
                yield Problem("foreign-code", "it is a native library or program")
            elif claims or kind in CLOSED:
                yield Problem("unknown-format", f"the file is of kind {kind!r}: not looked into")
        except Problem as problem:
            yield problem
            searched = kind != "pickle"
        else:
            searched = kind in ("unknown", "text", *CLOSED)
        yield from inspect_config(data, suffix)
        if searched:
            yield from self._hidden(data, 0)
        elif kind in ("safetensors", "onnx", "numpy"):
            yield from self._hidden(data, 0, read=True)

    def values(self) -> Iterator[Problem]:
        """Yield what is wrong with the numbers of the state dict."""
        for name, read in (self.tensors or {}).items():
            tensor = read()
            yield from tensor.problems(name)
            if tensor.dtype == "float64":
                single = tensor.converted()
                if (np.isinf(single) & np.isfinite(tensor.array)).any():
                    yield Problem("not-finite", f"tensor {name!r} does not fit float32")

    def _inside(self, data: memoryview, name: str, depth: int) -> Iterator[Problem]:
        """Look into a file of a container, if the limits allow."""
        self.members -= 1
        if depth >= MAX_DEPTH or self.members < 0:
            limit = f"{MAX_DEPTH} containers deep" if depth >= MAX_DEPTH else f"{MAX_MEMBERS} files"
            yield Problem("unread", f"only so much is looked into: {limit}").inside(name)
            return
        for problem in self.look(data, name, depth + 1):
            yield problem.inside(name)

    def _safetensors(self, data: memoryview, depth: int) -> Iterator[Problem]:
        tensors, odd = read_safetensors(data)
        yield from odd
        if depth:
            for name, tensor in tensors.items():
                yield from tensor.problems(name)
        else:
            self.tensors = {name: partial(Tensor, *tensor) for name, tensor in tensors.items()}
            self.dtypes = {name: tensor.dtype for name, tensor in tensors.items()}

    def _zip(self, data: memoryview, suffix: str, depth: int) -> Iterator[Problem]:
        """Look into an archive; one of torch is a pickle with numbers beside."""
        archive = read_layout(data)
        torch = any(name.split("/", 1)[-1] == "data.pkl" for name in archive.members)
        claims = suffix in MODEL_SUFFIXES
        named = {name.rpartition("/")[2] for name in archive.members}
        self.model |= bool(named & {"archive_format", ".format_version", "data.pkl"})
        if torch:
            try:
                self._state(*open_archive(archive), depth)
            except Problem as problem:
                yield problem
            else:
                why = "the file is a torch archive, a pickle: torch.load without weights_only runs"
                yield Problem("pickle", f"{why} what others may write into it", "note")
                yield from self._hidden(data, 0, read=True)
                return
        elif claims and (suffix not in OPENED or not archive.members):
            yield Problem("unknown-format", "the archive is of no known model format")
        elif claims and archive.odd and not archive.odd.startswith("two"):  # of one in it
            yield Problem("archive", f"the archive has {archive.odd}")
        for name, member in archive.members.items():
            if torch and STORAGE.fullmatch(name):
                numbers = archive.data[member.start : member.start + member.packed]
                yield from self._hidden(numbers, 0, read=True)
                continue
            if claims and PurePosixPath(name).suffix in PYTHON and not torch:
                yield Problem("unread", "it is source code, which is not scanned").inside(name)
            if name.endswith(".npy") and archive.head(name, len(NPY_MAGIC)) == NPY_MAGIC:
                yield from self._npz_array(archive, name, depth)
                continue
            if member.deflated:
                if member.size > min(MAX_MEMBER, self.unpacked):
                    why = f"it unpacks to {member.size} bytes; so much is not looked into"
                    yield Problem("unread", why).inside(name)
                    continue
                self.unpacked -= member.size
            try:
                content = archive.read(name)
            except Problem as problem:
                yield problem
                continue
            if torch and re.search(r"(?i)/code/.*\.py$", name):  # as torch looks for it
                yield from (problem.inside(name) for problem in inspect_script(content))
            # That what lies in a torch archive is a pickle is no news.
            found = self._inside(content, name, depth)
            yield from (one for one in found if not torch or one.kind != "pickle")

    def _npz_array(self, archive: Archive, name: str, depth: int) -> Iterator[Problem]:
        """Look at an array; of a large one that is packed at its header."""
        member = archive.members[name]
        try:
            if member.deflated and member.size > MAX_MEMBER:
                yield from self._array(memoryview(archive.head(name, 16 << 10)), member.size, depth)
            else:
                content = archive.read(name)
                yield from self._array(content, member.size, depth)
                for problem in self._hidden(content, 0, read=True):
                    yield problem.inside(name)
        except Problem as problem:
            yield problem.inside(name)

    def _array(self, data: memoryview, size: int, depth: int) -> Iterator[Problem]:
        behind = inspect_npy(data, size)
        if behind is None:
            return
        yield Problem("object-array", "the array holds Python objects, which are a pickle")
        if size > len(data):
            yield Problem("unread", "the pickle of the array is too large to be looked into")
        else:
            yield from self._walked(behind, depth)

    def _container(self, data: memoryview, kind: str, name: str, depth: int) -> Iterator[Problem]:
        if kind == "tar":
            try:
                for inner, content in tar_members(data):
                    if isinstance(content, Problem):
                        yield content.inside(inner)
                    else:
                        yield from self._inside(content, inner, depth)
                    if self.members < 0:
                        return
            except ValueError as error:
                yield Problem("unread", str(error))
            return
        content, why = unpacked(data, kind, self.unpacked)
        self.unpacked -= len(content)
        stem, _, suffix = name.rpartition(".")
        ending = PACKED.get(f".{suffix.lower()}")
        inner = f"unpacked {stem}{ending}" if ending is not None else name
        yield from self._inside(content, inner, depth)
        if why:
            yield Problem("unread", f"{kind}: {why}")

    def _state(self, stored: object, storages: Mapping[str, memoryview], depth: int) -> None:
        """Keep the state dict of a torch file."""
        notes: list[str] = []
        state = select_state(stored, notes)
        total = sum(row.bytes for row in state.values())
        if total > MAX_SHARING * (size := sum(map(len, storages.values()))) + EXPANDED:
            raise Problem("bomb", f"the state dict claims {total} bytes, and the file has {size}")
        if not depth:
            self.notes += notes
            self.dtypes = {name: row.dtype for name, row in state.items()}
            self.tensors = {
                name: partial(row.read, storages[row.storage.key]) for name, row in state.items()
            }

    def _pickles(self, data: memoryview, depth: int) -> Iterator[Problem]:
        if LEGACY.match(data):
            self.kind = self.kind if depth else "legacy torch"
            try:
                self._state(*open_legacy(data), depth)
            except Problem as problem:
                yield problem
            else:
                yield Problem("pickle", "the file is a pickle of torch before 1.6", "note")
                yield from self._hidden(data, 0, read=True)
                return
        yield Problem("pickle", "the file is a pickle: loading runs what others write into it")
        yield from self._walked(data, depth)

    def _walked(self, data: memoryview, depth: int) -> Iterator[Problem]:
        """Walk a pickle, look into files in it, and find the pickles behind it."""
        walk = walk_pickle(data, 0, self.opcodes)
        self.opcodes -= walk.opcodes
        yield from _named(walk)
        for file in walk.files or ():
            yield from self._inside(file, "a file in the pickle", depth)
        for content in walk.inner:
            inner = walk_pickle(content, 0, min(MAX_INNER, self.opcodes))
            self.opcodes -= inner.opcodes
            packed = bytes(content[:8]).startswith((*MAGIC,))
            if inner.calls_a_name or inner.opcodes == MAX_INNER or packed:
                for row in self._inside(content, "bytes in the pickle", depth):  # it only waits
                    yield Problem(row.kind, str(row), min(row.grade, "ambiguous", key=GRADES.index))
        raw = any(name == RAW for name, _ in walk.imports)
        if (walk.error and raw) or self.opcodes <= 0:
            why = "numbers between the opcodes" if raw else f"more than {MAX_WALK} opcodes"
            yield Problem("unread", f"the pickle has {why}: the rest was only searched")
        elif walk.error:
            yield Problem("damaged-pickle", f"the pickle is broken: {walk.error}")
        elif walk.end < len(data) and not LEGACY.match(data):
            yield Problem("damaged-pickle", "more follows behind the end of the pickle")
        if walk.end < len(data):
            yield from self._hidden(data, walk.end)

    def _hidden(self, data: memoryview, start: int, *, read: bool = False) -> Iterator[Problem]:
        """Find the pickles that call something, and layers of code, wherever they begin.

        Among the numbers of a file that is read as what it is, a pickle waits for someone who cuts
        it out, or is chance. So it is ambiguous there, and never what the file would run.
        """
        limit = MAX_WALK + len(data) // 64 if read else max(1, self.opcodes)
        for walk in hidden_pickles(data, start, limit):
            self.opcodes -= 0 if read else walk.opcodes
            if walk.error and "too many" in walk.error:
                yield Problem("unread", walk.error)
            for problem in _named(walk):
                why = f"a pickle among the numbers: {problem}"
                yield Problem(problem.kind, why, "ambiguous") if read else problem
        if not read and LAMBDA.search(data, start):
            yield Problem("foreign-code", "the file names a Lambda layer, which is code")


def _named(walk: PickleWalk) -> Iterator[Problem]:
    """Yield what a pickle would import, each name once, but for what is harmless."""
    if walk.bomb:
        yield Problem("bomb", walk.bomb)
    for name, position in dict(reversed(walk.imports)).items():
        if name is None:
            yield Problem("unsafe-global", f"a name at byte {position} cannot be told")
        elif not is_harmless(name) and (name != LOADER or walk.files is None):
            kind = "foreign-code" if FOREIGN.fullmatch(name) else "unsafe-global"
            yield Problem(kind, f"loading would import {name[:120]!r} (byte {position})")
