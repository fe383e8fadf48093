"""Pickles of a red team: whichever way a name comes onto the stack, it is told and refused."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scan_corpus as corpus

from purpleteam.scan.formats import torch_file
from purpleteam.scan.formats.problem import Problem
from purpleteam.scan.formats.walk import hidden_pickles, walk_pickle
from purpleteam.scan.gate import read_state_dict
from purpleteam.scan.judgement import judge


class Call:
    def __reduce__(self):
        return os.system, ("true",)


SYSTEM = b"\x80\x02cposix\nsystem\nX\x04\0\0\0true\x85R."


def short(text: str) -> bytes:
    return b"\x8c" + bytes([len(text.encode())]) + text.encode()


def name(module: str, attribute: str) -> bytes:
    return short(module) + short(attribute) + b"\x93"


def grade(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    assert read_state_dict(path).verdict == "refused"
    return judge(path).grade


NAMES = """
    torch.serialization os.system
    torch.nn.modules.module torch.utils.cpp_extension.subprocess.Popen
    torch.hub load
    torch load
    numpy load
    torch.jit._pickle __builtins__
    numpy.random._pickle __builtins__
    numpy.f2py.crackfortran _eval_length
    pip main
    timeit main
    cProfile run
    code interact
    pdb run
    webbrowser open
    _posixsubprocess fork_exec
    asyncio create_subprocess_shell
    multiprocessing.util spawnv_passfds
    logging.config fileConfig
    importlib import_module
    pydoc locate
    idlelib.run Executive.runcode
    unittest.mock _importer
    runpy run_path
    pty spawn
    ctypes CDLL
    functools partial
    operator attrgetter
    builtins getattr
    pathlib os.system
    collections namedtuple
    dill._dill _create_function
    cloudpickle.cloudpickle _make_function
    torch.fx.graph_module reduce_graph_module
    torch.package PackageImporter
    __torch__ os.system
    o\u017f system
""".split()  # noqa: SIM905 - read more easily like this


def test_a_name_that_is_not_known_as_harmless_is_malicious_in_pickles_and_archives(tmp_path):
    for module, attribute in zip(NAMES[::2], NAMES[1::2], strict=True):
        data = b"\x80\x04" + name(module, attribute) + short("true") + b"\x85R."
        assert grade(tmp_path / "a.pkl", data) == "malicious", module
        path = corpus.archive(tmp_path / "a.pt", data)
        assert grade(path, path.read_bytes()) == "malicious", attribute


TRICKS = {
    "memo overwritten": b"\x80\x04" + short("re") + b"q\0" + short("os") + b"q\0"
    + short("system") + b"q\1h\0h\1\x93" + short("true") + b"\x85R.",
    "texts of protocol 0": b"Vo\\u0073\nVsystem\n\x93Vtrue\n\x85R.",
    "texts with escapes": b"\x80\x04S'o\\x73'\nS'system'\n\x93S'true'\n\x85R.",
    "extension": b"\x80\x02\x82\x01" + short("true") + b"\x85R.",
    "object": b"(cposix\nsystem\nX\x04\0\0\0trueo.",
    "keywords": b"\x80\x04" + name("subprocess", "Popen") + b"(t}" + short("args") + b"K\1s\x92.",
    "state of a class": b"\x80\x04" + name("torch.nn.modules.linear", "Linear") + b"}b.",
    "item of a module": b"\x80\x04" + name("torch.nn.functional", "relu") + b"K\1K\1s.",
    "nonsense behind": b"cos\nsystem\n(S'true'\ntRc \n \n)R.",
    "persistent": b"\x80\x02cposix\nsystem\nQ.",
    "two marks": b"\x80\x04\x80\x02N0cposix\nsystem\n" + short("true") + b"\x85R.",
    "after many opcodes": b"\x80\x04" + b"N0" * 20_000 + SYSTEM[2:],
}  # fmt: skip


@pytest.mark.parametrize("trick", TRICKS)
def test_a_call_is_told_however_its_name_comes_onto_the_stack(tmp_path, trick):
    assert grade(tmp_path / "a.pkl", TRICKS[trick]) == "malicious"


def loading(content: bytes, loader: bytes = name("torch.storage", "_load_from_bytes")) -> bytes:
    return b"\x80\x04" + loader + b"B" + struct.pack("<I", len(content)) + content + b"\x85R."


def zipped(content: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("m/data.pkl", content)
        archive.writestr("m/version", b"3\n")
    return target.getvalue()


def test_a_file_in_a_pickle_is_looked_into_and_its_loader_is_for_nothing_else(tmp_path):
    plain = pickle.dumps({"a": 1}, protocol=2)
    assert grade(tmp_path / "a.pkl", loading(plain)) == "unsupported"
    for content in (SYSTEM, zipped(SYSTEM), loading(SYSTEM)):
        assert grade(tmp_path / "a.pkl", loading(content)) == "malicious"
    hidden = b"\x80\x04" + name("torch.storage", "_load_from_bytes") + name("builtins", "bytes")
    octets = b"".join(b"K" + bytes([byte]) for byte in SYSTEM)
    assert grade(tmp_path / "a.pkl", hidden + b"](" + octets + b"e\x85R\x85R.") == "malicious"


def test_a_pickle_among_the_numbers_is_ambiguous_and_other_numbers_are_not(tmp_path):
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, 4 << 20, np.uint8)
    halves = np.full(1 << 19, -0.0, np.float16).view(np.uint8)  # the mark of a protocol, all over
    opcodes = np.tile(np.frombuffer(b"\x80\2N0", np.uint8), 20_000)
    at = 1 << 20  # a pickle may lie on the edge of what is searched at once
    for payload in (b"", SYSTEM, name("os", "system") + short("x") + b"\x85R."):
        for start in (0, at - 9, at + 3):
            content = np.concatenate([noise, halves, opcodes])
            content[start : start + len(payload)] = np.frombuffer(payload, np.uint8)
            save_file({"w": content}, tmp_path / "a.safetensors")
            np.save(tmp_path / "a.npy", content)
            grades = {judge(tmp_path / f"a.{kind}").grade for kind in ("safetensors", "npy")}
            assert grades == {"ambiguous" if payload else "note"}


@pytest.mark.parametrize("kind", [np.float32, np.float16, np.int64])
def test_a_pickle_is_found_at_every_place_among_large_weights(kind):
    weights = (np.random.default_rng(0).standard_normal(1 << 18) * 0.05).astype(kind).tobytes()
    run, middle = name("pdb", "run") + short("x") + b"\x85R.", len(weights) // 2
    for payload in (SYSTEM, SYSTEM[2:], run, pickle.dumps(Call(), 4)):
        for at in (0, (1 << 18) - 3, *range(middle, middle + 8)):
            content = memoryview(weights[:at] + payload + weights[at + len(payload) :])
            found = [walk.imports[0][0] for walk in hidden_pickles(content, 0, 1 << 20)]
            assert found in (["posix.system"], ["pdb.run"]), at


def test_a_file_that_is_an_archive_as_well_is_malicious(tmp_path):
    from safetensors.numpy import save_file

    save_file({"w": np.frombuffer(zipped(SYSTEM), np.uint8)}, tmp_path / "a.safetensors")
    assert "a zip archive as well" in str(judge(tmp_path / "a.safetensors").problems[0])
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("PK\3\4"))
    assert grade(tmp_path / "a.pt", content.getvalue()) == "malicious"


def test_a_text_of_lines_that_could_be_opcodes_is_a_text(tmp_path):
    (tmp_path / "words.txt").write_text("c\n" * 202_000 + "cab\ncob\n" * 1000)
    assert judge(tmp_path / "words.txt").problems == ()


def packed(**files: str) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "."), content)
    return target.getvalue()


LAYER = '{"module": %s, "class_name": "%s", "config": {}, "registered_name": %s}'
CONFIGS = {
    "a.yaml": b"a: !!python/object/apply:os.system ['true']\n",
    "b.yml": b"%TAG !e! tag:yaml.org,2002:python/\n--- !e!name:os.system\n",
    "c.yaml": b"- !<tag:yaml.org,2002:python/module:o%73> x\n",
    "d.keras": packed(config__json=LAYER % ("null", "L\\u0061mbda", "null")),
    "e.keras": packed(config__json=LAYER % ('"os"', "system", "null")),
    "f.keras": packed(config__json=LAYER % ('"keras.utils"', "get_file", "null")),
    "g.keras": packed(config__json=LAYER % ("null", "Net", '"mine>Net"')),
    "h.skops": packed(schema__json='{"__module__": "os", "__class__": "system"}'),
    "i.json": b'{"py/reduce": [{"py/function": "os.system"}]}',
    "j.pt2": packed(archive_format="pt2", a__so="\x7fELF"),
    "k.pt": b"\x7fELF" + bytes(99),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_code_that_a_configuration_or_a_library_brings_is_told(tmp_path, kind):
    assert grade(tmp_path / kind, CONFIGS[kind]) in ("malicious", "ambiguous")


def test_configurations_of_plain_parts_are_clean(tmp_path):
    good = LAYER % ('"keras.layers"', "Dense", "null")
    assert grade(tmp_path / "a.keras", packed(config__json=good)) == "note"
    tags = b"a: !!python/tuple [1]\nb: !!python/object:argparse.Namespace {}\nc: !Ref d\n"
    assert grade(tmp_path / "a.yaml", tags) == "note"


def test_links_and_names_that_lead_out_of_a_tar_archive_are_told(tmp_path):
    for name, link in (("../a", ""), ("/a", ""), ("a", "/etc/passwd"), ("b/a", "../../c")):
        content, info = io.BytesIO(), tarfile.TarInfo(name)
        info.type, info.linkname = (tarfile.SYMTYPE if link else tarfile.REGTYPE), link
        with tarfile.open(fileobj=content, mode="w") as archive:
            archive.addfile(info)
        assert grade(tmp_path / "a.tar", content.getvalue()) == "ambiguous"


def test_a_number_that_no_memory_holds_is_a_bomb(tmp_path):
    for maker in ("bytearray", "range"):
        data = b"\x80\x04" + name("builtins", maker) + b"\x8a\6\0\0\0\0\0\1\x85R."
        assert grade(tmp_path / "a.pkl", data) == "ambiguous"


def laughs(first: bytes, step: bytes) -> bytes:
    return b"\x80\x02" + first + step * 60 + b"."


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02" + b"".join(b"](" + b"h\0" * 9 * bool(n) + b"eq\0" for n in range(12)) + b".",
        b"\x80\x02" + b"".join(b"]q%c0" % n for n in range(60))  # from the outermost on
        + b"".join(b"h%c(h%ch%ce0" % (n, n + 1, n + 1) for n in range(59)) + b"h\0.",
        laughs(b")q\0", b"h\0\x86q\0"),
        laughs(b")q\0", b"h\0\x8a\x05\0\0\0\0\x01\x87q\0"),
        laughs(b"]", b"2\x86"),
        laughs(b"})q\0", b"h\0\x86q\0") [:-1] + b"K\1s.",
        laughs(b"ccollections\nOrderedDict\nq\1)Rq\0", b"0h\1)RK\1h\0sK\2h\0sq\0"),
    ],
)  # fmt: skip
def test_lists_in_lists_that_nobody_gets_to_the_end_of_are_a_bomb(tmp_path, content):
    assert grade(tmp_path / "a.pkl", content) == "ambiguous"
    assert "lists in lists" in str(judge(tmp_path / "a.pkl").problems)


def test_a_key_of_tuples_in_tuples_takes_our_own_reader_no_time():
    key = laughs(b"})q\0", b"h\0\x86q\0")[:-1] + b"K\1s."
    with pytest.raises(Problem, match="over 100 parts"):
        torch_file._PlainReader(memoryview(key)).read()


def test_weights_that_are_shared_by_many_are_no_bomb(tmp_path):
    torch = pytest.importorskip("torch")
    inner = {"w": torch.ones(2)}
    torch.save(
        {"state_dict": dict.fromkeys("abc", inner["w"]), "rest": [inner] * 1000}, tmp_path / "a.pt"
    )
    assert read_state_dict(tmp_path / "a.pt").verdict == "accepted"
    laugh: list[object] = [0] * 10
    for _ in range(12):
        laugh = [laugh] * 10
    torch.save({"state_dict": inner, "rest": laugh}, tmp_path / "a.pt")
    assert read_state_dict(tmp_path / "a.pt").verdict == "refused"


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_torchscript_is_harmless_as_far_as_it_computes(tmp_path):
    torch = pytest.importorskip("torch")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "a.pt")
    assert judge(tmp_path / "a.pt").grade == "unsupported"
    good = b"  def forward(self, x: Tensor) -> Tensor:\n    return torch.relu(x)\n"
    for call in (b"relu(", b"save(", b"from_file("):
        source = good.replace(b"relu(", call)
        files = {"code/net.py": source, "constants.pkl": b"\x80\2)."}
        path = corpus.archive(tmp_path / "b.pt", corpus.benign_pickle(), **files)
        assert judge(path).grade == ("unsupported" if call == b"relu(" else "ambiguous")


@pytest.mark.parametrize("place", ["code/net.py", "CODE/Net.PY"])  # torch finds both
@pytest.mark.parametrize(
    "call",
    ["torch .save(", "torch\\\n.save(", "(torch).save(", 'getattr(torch, "save")(', "ops .aten("],
)
def test_torchscript_that_leads_on_from_torch_by_any_way_is_told(tmp_path, place, call):
    files = {place: f"def f(x):\n  return {call}x)\n".encode(), "constants.pkl": b"\x80\2)."}
    path = corpus.archive(tmp_path / "a.pt", corpus.benign_pickle(), **files)
    assert judge(path).grade == "ambiguous"


def test_the_attention_of_torch_as_a_script_is_harmless(tmp_path):
    source = b'_0 = "torch.backends.mha.get_fastpath_enabled() was not True"\n'
    files = {"code/net.py": source, "constants.pkl": b"\x80\2)."}
    path = corpus.archive(tmp_path / "a.pt", corpus.benign_pickle(), **files)
    assert judge(path).grade == "unsupported"


@pytest.mark.parametrize("protocol", [2, 4, 5])  # protocol 2 makes a text of bytes
@pytest.mark.parametrize("inner", [pickle.dumps(Call(), 2), pickle.dumps(Call(), 4)])
def test_a_pickle_that_waits_as_bytes_in_a_pickle_is_told(tmp_path, protocol, inner):
    for held in (inner, bytearray(inner), gzip.compress(inner)):
        content = pickle.dumps({"a": held}, protocol)
        assert grade(tmp_path / "a.pkl", content) == "ambiguous"
    for plain in (b"n" * 99, np.arange(9).tobytes(), pickle.dumps({"a": 1})):
        assert grade(tmp_path / "a.pkl", pickle.dumps([plain], protocol)) == "unsupported"


def test_lzma_without_a_mark_is_unpacked(tmp_path):
    packed = lzma.compress(pickle.dumps(Call()), lzma.FORMAT_ALONE)
    assert grade(tmp_path / "a.pkl.lzma", packed) == "malicious"
    huge = packed[:1] + (1 << 31).to_bytes(4, "little") + packed[5:]  # of memory, for its reader
    assert grade(tmp_path / "a.pkl.lzma", huge) == "unread"


def test_a_place_of_the_memo_that_fills_the_memory_is_a_bomb(tmp_path):
    assert grade(tmp_path / "a.pkl", b"\x80\4Nr\xff\xff\xff\x7f.") == "ambiguous"
    assert walk_pickle(memoryview(b"\x80\4N" + b"\x94" * 90), 0, 100).error is not None


def test_classes_of_libraries_that_train_are_code_of_others_and_no_attack(tmp_path):
    content = b"\x80\4" + name("sklearn.svm._classes", "SVC") + b")\x81."
    assert grade(tmp_path / "a.pkl", content) == "ambiguous"
    content = b"\x80\4" + name("sklearn.utils", "call") + b")R."
    assert grade(tmp_path / "a.pkl", content) == "malicious"


def test_views_that_negate_or_conjugate_are_harmless(tmp_path):
    torch = pytest.importorskip("torch")
    numbers = torch.ones(2, dtype=torch.complex64).conj()
    for value in (numbers, numbers.imag, ...):
        torch.save({"w": torch.ones(2), "value": value}, tmp_path / "a.pt")
        assert judge(tmp_path / "a.pt").grade == "unsupported"


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_files_before_torch_1_6_are_known_in_every_protocol(tmp_path, protocol):
    torch = pytest.importorskip("torch")
    old = {"_use_new_zipfile_serialization": False, "pickle_protocol": protocol}
    torch.save({"w": torch.ones(2)}, tmp_path / "a.pt", **old)
    assert judge(tmp_path / "a.pt").grade == ("note" if protocol == 3 else "unsupported")


def plain() -> dict[str, object]:
    """Return what people pickle of NumPy and torch."""
    from argparse import Namespace

    torch = pytest.importorskip("torch")
    one = torch.arange(4.0)
    return {
        "tensors": {"w": one, "half": one.half(), "fp8": one.to(torch.float8_e4m3fn)},
        "parameter": torch.nn.Parameter(one),
        "sparse": torch.eye(3).to_sparse(),
        "module": torch.nn.Linear(2, 2),
        "optimiser": torch.optim.SGD([one], lr=0.1),
        "sizes": [torch.Size([1]), torch.device("cpu"), torch.float16, one.untyped_storage()],
        "arrays": {"a": np.ones(3), "b": np.array(["x"]), "objects": np.array([None, 1], object)},
        "masked": np.ma.array([1, 2], mask=[0, 1]),
        "numbers": [np.float32(1), range(3), Namespace(a=1)],
        "generator": np.random.default_rng(0),
    }


@pytest.mark.parametrize("protocol", range(6))
def test_plain_pickles_of_torch_and_numpy_are_harmless(tmp_path, protocol):
    for kind, value in plain().items():
        data = pickle.dumps(value, protocol=protocol)
        assert grade(tmp_path / "a.pkl", data) == "unsupported", kind
