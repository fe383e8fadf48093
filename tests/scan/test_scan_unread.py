"""What lies in containers, behind prefixes and far into a file is found, or the file is unread."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import tarfile
import time
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import scan_corpus as corpus

from purpleteam.scan import judgement, scanner
from purpleteam.scan.gate import read_state_dict
from purpleteam.scan.judgement import judge
from purpleteam.scan.scanners.model_file import scan_model_files

MARKED = b"\x80\x02cposix\nsystem\nX\x04\0\0\0true\x85R."
BARE = b"cposix\nsystem\n(S'true'\ntR."
INSTANCE = b"(S'true'\niposix\nsystem\n."
LATER = b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x04true\x94\x85\x94R\x94."


def zipped(**files: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name.replace("_", "."), content)
    return target.getvalue()


def tarred(**files: bytes) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name.replace("_", "."))
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return target.getvalue()


def grade(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return judge(path).grade


NESTED = {
    "model.mar": zipped(MANIFEST_json=b"{}", model_pt=MARKED),
    "model.nemo": tarred(model_ckpt=BARE, config_yaml=b"a: 1\n"),
    "a.tar": tarred(inner_zip=zipped(weights_dat=LATER)),
    "a.tgz": gzip.compress(tarred(weights_dat=LATER)),
    "net.pkl.gz": gzip.compress(MARKED),
    "net.pkl.bz2": bz2.compress(BARE),
    "net.pkl.xz": lzma.compress(MARKED),
    "net.joblib": zlib.compress(MARKED),
    "two.gz": gzip.compress(b"first") + gzip.compress(MARKED),
    "cut.gz": gzip.compress(MARKED + bytes(1 << 16))[:-8],
    "protocol 0 in a zip": zipped(notes_txt=BARE),
    "zip in zip": zipped(a_zip=zipped(b_zip=zipped(c_dat=BARE))),
}


@pytest.mark.parametrize("name", NESTED)
def test_a_payload_in_a_container_is_named(tmp_path, name, events):
    assert grade(tmp_path / name, NESTED[name]) == "malicious"
    assert any("posix.system" in str(row) for row in judge(tmp_path / name).problems)
    assert events == []


@pytest.mark.parametrize("payload", [MARKED, BARE, INSTANCE, LATER, LATER[2:]])
@pytest.mark.parametrize("prefix", [b"# notes\n", b"\x01MODEL\0", bytes(3 << 20), b"\x80\x02}."])
@pytest.mark.parametrize("suffix", [".md", ".pt", ""])
def test_a_payload_behind_any_prefix_is_named(tmp_path, payload, prefix, suffix):
    assert grade(tmp_path / f"a{suffix}", prefix + payload) == "malicious"


def test_a_payload_behind_the_raw_numbers_of_joblib_is_named_and_without_it_the_file_is_unread(
    tmp_path,
):
    wrapper = b"\x80\x02cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81"
    raw = wrapper + np.arange(9.0).tobytes() + b"\xff"
    assert grade(tmp_path / "a.joblib", raw + b".") == "unread"
    assert grade(tmp_path / "b.joblib", raw + BARE) == "malicious"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("net.keras", zipped(config_json=b"{}", model_h5=b"\x89HDF\r\n\x1a\n" + bytes(99))),
        ("net.mar", zipped(MANIFEST_json=b"{}", handler_py=b"x = 1\n")),
        ("net.gguf", b"GGUF" + bytes(99)),
        ("data.7z", b"7z\xbc\xaf\x27\x1c" + bytes(99)),
        ("net.pt", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        ("cut.tar", tarred(a_txt=bytes(2000))[:900]),
        ("much.gz", gzip.compress(bytes(3 << 20))),
        ("deep.gz", zipped(a_zip=zipped(a_zip=zipped(a_zip=zipped(a_zip=zipped(a_txt=b"")))))),
    ],
)
def test_what_is_not_read_to_the_end_is_unread_and_never_green(
    tmp_path, monkeypatch, name, content
):
    monkeypatch.setattr(judgement, "MAX_UNPACKED", 1 << 20)
    assert grade(tmp_path / name, content) == "unread"
    result = scan_model_files(tmp_path / name)
    assert result.scanned == () and result.skipped[0][1].startswith("unread: ")
    assert "medium" in {one.severity for one in result.findings}
    assert read_state_dict(tmp_path / name).verdict == "refused"


def test_a_lambda_layer_of_keras_is_named(tmp_path):
    config = json.dumps({"class_name": "Lambda", "config": {"function": "4wEA"}}).encode()
    assert grade(tmp_path / "net.keras", zipped(config_json=config)) == "ambiguous"
    assert grade(tmp_path / "net.keras", zipped(config_json=b'{"class_name": "Dense"}')) == "note"


def test_plain_containers_texts_and_numbers_are_clean(tmp_path):
    words = b"cos\nsin\ncat\ndog\nbird\n(see also)\nRead me.\n" * 50
    numbers = np.random.default_rng(0).integers(0, 256, 1 << 20, np.uint8).tobytes()
    npy = io.BytesIO()
    np.save(npy, np.ones(3))
    clean = {
        "a.tgz": gzip.compress(tarred(a_md=words, b_npy=npy.getvalue())),
        "a.md": words,
        "a.dat": numbers,
        "data.bz2": bz2.compress(numbers),
        "data.npz": zipped(x_npy=npy.getvalue()),
    }
    assert [grade(tmp_path / name, content) for name, content in clean.items()] == ["note"] * 5


@pytest.mark.parametrize(
    "shape", [(1 << 31, 1 << 31), (5,), (3,)], ids=["far more", "more", "fewer"]
)
def test_an_array_that_claims_another_size_than_it_has_is_found(tmp_path, shape):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    content = b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header + corpus.FLOATS
    assert grade(tmp_path / "a.npy", content) == "ambiguous"
    assert grade(tmp_path / "a.npz", zipped(a_npy=content)) == "ambiguous"


def test_a_bomb_in_a_container_takes_little_memory(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(bytes(64 << 20), 1))
    tracemalloc.start()
    try:
        judge(path)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_a_judgement_that_fails_is_unread_and_one_without_end_too(tmp_path, monkeypatch):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"a": 1}))

    def endless(*_: object) -> None:
        while True:
            pass

    monkeypatch.setattr(scanner, "SECONDS", 0.05)
    for failing in (endless, {}.__getitem__):
        monkeypatch.setattr(judgement, "walk_pickle", failing)
        (found,) = [one for one in scan_model_files(path).findings if one.rule == "PM016"]
        assert "unread: reading it failed" in found.message


@pytest.mark.parametrize("unit", [b"c", b"iiii\n", b"\x80\x02I", b"\x8c\x05posix"])
def test_what_looks_like_a_beginning_everywhere_takes_no_long_time(tmp_path, unit):
    path = tmp_path / "a.dat"
    path.write_bytes(b"{" + unit * ((1 << 20) // len(unit)))
    before = time.process_time()
    judge(path)
    assert time.process_time() - before < 8
