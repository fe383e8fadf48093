"""Model files, by content and not by name; pickles are walked wherever they hide, never loaded."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from purpleteam.scan.formats.arrays import ARRAY_NAMES
from purpleteam.scan.formats.onnx import inspect_onnx
from purpleteam.scan.formats.pickles import MAX_WALK, walk_pickle
from purpleteam.scan.formats.problem import Problem
from purpleteam.scan.formats.safetensors import inspect_safetensors
from purpleteam.scan.formats.sniff import MODEL_KINDS, MODEL_SUFFIXES, mapped, sniff
from purpleteam.scan.formats.tensors import NPY_MAGIC, read_npy_header
from purpleteam.scan.formats.torch_file import ALLOWED, MAX_PICKLE, open_archive
from purpleteam.scan.formats.zip_layout import Archive, read_layout
from purpleteam.scan.scanner import ScanResult, file_scanner

ARCHIVES = frozenset({"tar", "7z", "hdf5"})
LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # magic number of torch before 1.6
LEGACY_PICKLES = 5
MAX_PICKLES = 100


@file_scanner("model-file")
def scan_model_files(file: Path, name: str) -> ScanResult | None:
    """Return findings on a file that is, or claims to be, a model."""
    kind = sniff(file)
    if file.suffix.lower() not in MODEL_SUFFIXES and kind not in MODEL_KINDS - ARCHIVES:
        return None
    problems = model_problems(file, kind)
    findings = [row.rule.finding("model-file", str(row), path=name) for row in problems]
    return ScanResult(findings=tuple(findings), scanned=(name,))


def model_problems(path: Path, kind: str) -> Iterator[Problem]:
    """Yield what is wrong with a model file whose content is of `kind`."""
    suffix, data = path.suffix.lower(), mapped(path)
    if kind in MODEL_KINDS and kind not in MODEL_SUFFIXES.get(suffix, (kind,)):
        yield Problem("name", f"the file is named {suffix} and holds {kind}")
    try:
        if kind == "pickle":
            why = "the file is a pickle, which is refused by default: loading runs code"
            yield Problem("pickle", why)
            yield from _PickleWalks().pickles(data, "")
        elif kind == "zip":
            yield from _inspect_zip(data, claims_model=suffix in MODEL_SUFFIXES)
        elif kind == "numpy":
            yield from _PickleWalks().array(data, "")
        elif kind == "safetensors" or (kind != "onnx" and suffix == ".safetensors"):
            yield from inspect_safetensors(data)
        elif kind == "onnx" or suffix == ".onnx":
            yield from inspect_onnx(data)
        else:
            why = f"the file is of kind {kind!r}, which is not looked into"
            yield Problem("unknown-format", why)
    except Problem as problem:
        yield problem


def _inspect_zip(data: memoryview, *, claims_model: bool) -> Iterator[Problem]:
    """Yield what is wrong with an archive; a torch archive is a pickle with numbers beside."""
    archive = read_layout(data)
    names = list(archive.members)
    pickled = any(name.split("/", 1)[-1] == "data.pkl" for name in names)
    if pickled:
        yield Problem("pickle", "the file is a torch archive, a pickle: refused by default")
    elif claims_model and not (names and all(name.endswith(".npy") for name in names)):
        yield Problem("unknown-format", "the archive is of no known model format")
    if archive.odd and (pickled or claims_model):
        yield Problem("archive", f"the archive has {archive.odd}")
    walks = _PickleWalks()
    for name in names:
        yield from walks.member(archive, name, torch=pickled)
    if pickled and not archive.odd:
        open_archive(data)


class _PickleWalks:
    """Walks the pickles of one file, which share a limit of opcodes."""

    left = MAX_WALK

    def member(self, archive: Archive, name: str, *, torch: bool) -> Iterator[Problem]:
        """Look into a file that is, or claims to be, a pickle, an array or a model."""
        head = archive.head(name)
        array, storage = head.startswith(NPY_MAGIC), torch and "/data/" in name
        if array or name.endswith(".npy"):
            yield from self.array(archive.read(name), f"{name}: ")
        elif name.endswith(".pkl") or (head[:1] == b"\x80" and not storage):
            if (size := archive.members[name].size) > MAX_PICKLE:
                yield Problem("bomb", f"{name!r} unpacks to {size} bytes, over {MAX_PICKLE}")
            else:
                yield from self.pickles(archive.read(name), f"{name}: ")
        elif not torch and PurePosixPath(name).suffix.lower() in MODEL_SUFFIXES.keys() - {".bin"}:
            yield Problem("unknown-format", f"{name!r} is a model in an archive: not looked into")

    def array(self, data: memoryview, where: str) -> Iterator[Problem]:
        """Look at the header of an array, and at the pickle behind it if there is one."""
        dtype, _, _, behind = read_npy_header(data)
        if dtype.hasobject:
            why = f"{where}the array holds Python objects, which are a pickle"
            yield Problem("object-array", why)
            yield from self.pickles(behind, where)

    def pickles(self, data: memoryview, where: str) -> Iterator[Problem]:
        """Walk pickle after pickle to the end of the file, or to where no pickle follows."""
        legacy = data[: len(LEGACY_TORCH)] == LEGACY_TORCH
        seen: set[str | None] = set(ALLOWED | ARRAY_NAMES)
        place = 0
        for number in range(MAX_PICKLES):
            walk = walk_pickle(data, place, self.left)
            self.left = max(1, self.left - walk.opcodes)
            for name, position in walk.imports:
                if name not in seen:
                    seen.add(name)
                    why = f"a name at byte {position} cannot be told"
                    if name:
                        why = f"loading would import {name[:120]!r} (byte {position})"
                    yield Problem("unsafe-global", where + why)
            if walk.error:
                if number == 0 or walk.imports or self.left == 1:
                    yield Problem("damaged-pickle", f"{where}the pickle is broken: {walk.error}")
                return
            place = walk.end
            if (legacy and number + 1 >= LEGACY_PICKLES) or place == len(data):
                return
            if number == 0 and not legacy:
                yield Problem("damaged-pickle", f"{where}more follows behind the end of the pickle")
        yield Problem("damaged-pickle", f"{where}more than {MAX_PICKLES} pickles follow each other")
