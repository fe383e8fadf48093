"""Whatever is not plain tensors is refused, and nothing of it runs."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import pickletools
import re
import subprocess
import sys

import pytest
import scan_corpus as corpus
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from purpleteam.core.errors import ModelError
from purpleteam.scan.formats.problem import Problem
from purpleteam.scan.formats.torch_file import read_state_pickle
from purpleteam.scan.gate import read_state_dict


def test_every_sample_of_the_corpus_is_refused_and_nothing_runs(tmp_path, marker, events):
    files = corpus.malicious_files(tmp_path, marker)
    events.clear()
    verdicts = {name: read_state_dict(path) for name, path in files.items()}
    assert [name for name, one in verdicts.items() if one.verdict != "refused"] == []
    assert all(one.reasons and not one.tensors for one in verdicts.values())
    assert events == []
    assert not marker.exists()
    assert len(files) >= 40


def test_the_samples_are_live_when_they_are_unpickled(tmp_path, marker):
    for name in corpus.live(marker):
        path = tmp_path / name
        path.write_bytes(corpus.pickles(marker)[name])
        code = f"import pickle; pickle.load(open({str(path)!r}, 'rb'))"
        subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
        assert marker.exists(), name
        marker.unlink()


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        ("payload_in_pt", "names 'posix.system'"),
        ("hidden_second_pickle", "'data.config'"),
        ("unnamed_storage", "'data/1'"),
        ("stride_zero", "claims"),
        ("beyond_storage", "claims 5 numbers"),
        ("leads_out", "leads out"),
        ("big_endian", "'byteorder' says b'big'"),
        ("torchscript", "code/net.py"),
        ("not_a_number", "tensor 'w' holds NaN"),
        ("zip_bomb", "unpacks"),
        ("wrong_crc", "CRC"),
        ("other_flags", "flags"),
        ("other_local_name", "called 'model/data.pk2'"),
        ("two_of_one_name", "two files of one name"),
        ("bytes_behind", "damaged|comment|follow|begins"),
        ("bytes_between", "hidden"),
        ("bytes_between_and_said", "belong to no file"),
        ("encrypted", "has flags"),
        ("other_local_crc", "other sizes before"),
        ("comment", "comment"),
        ("beyond_by_stride", "up to place 4 of a storage of 4"),
        ("hooks", "gives a tensor hooks"),
        ("bytes_behind_pickle", "2 bytes follow the pickle"),
        ("attributes", "sets attributes other than"),
        ("storage_too_long", "claims 16 bytes and has 32"),
    ],
)
def test_a_refusal_says_what_was_found(tmp_path, marker, sample, reason):
    verdict = read_state_dict(corpus.archives(tmp_path, marker)[sample])
    assert re.search(reason, verdict.reasons[0]), verdict.reasons


def test_the_good_twin_of_the_samples_is_accepted(tmp_path):
    verdict = read_state_dict(corpus.archive(tmp_path / "good.pt", corpus.benign_pickle()))
    assert verdict.verdict == "accepted", verdict.reasons
    assert verdict.tensors["w"].tolist() == [0, 1, 2, 3]


def test_a_whole_module_is_refused_with_what_to_do(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "module.pt"
    torch.save(torch.nn.Linear(2, 2), path)
    (reason,) = read_state_dict(path).reasons
    assert "torch.nn.modules.linear.Linear" in reason
    assert "model.state_dict()" in reason


def test_a_missing_file_is_an_error_and_no_verdict(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        read_state_dict(tmp_path / "nothing.pt")


@given(st.binary(max_size=60))
def test_no_bytes_make_the_interpreter_do_anything_but_refuse(data):
    with contextlib.suppress(Problem):
        read_state_pickle(b"\x80\x02" + data)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(st.integers(0, len(corpus.benign_pickle()) - 1), st.integers(0, 255))
def test_one_changed_byte_of_a_pickle_never_ends_in_a_crash(tmp_path, place, value):
    data = bytearray(corpus.benign_pickle())
    data[place] = value
    path = corpus.archive(tmp_path / "changed.pt", bytes(data))
    assert read_state_dict(path).verdict in ("accepted", "refused")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=120)
@given(st.data())
def test_one_changed_byte_of_an_archive_never_gives_other_numbers(tmp_path, data):
    whole = corpus.archive(tmp_path / "whole.pt", corpus.benign_pickle()).read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    changed = bytearray(whole)
    changed[place] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path / "changed.pt"
    path.write_bytes(bytes(changed))
    verdict = read_state_dict(path)
    if verdict.verdict == "accepted":
        assert [one.tolist() for one in verdict.tensors.values()] == [[0, 1, 2, 3]]


@pytest.mark.parametrize(
    "value", [b"bytes", 1 << 2000, {1, 2}, frozenset(), 1j, print, pickle.PickleBuffer]
)
def test_values_that_no_state_dict_has_are_refused(tmp_path, value):
    path = corpus.archive(tmp_path / "odd.pt", pickle.dumps({"epoch": value}, protocol=4))
    assert read_state_dict(path).verdict == "refused"


def test_a_safetensors_file_that_is_a_pickle_as_well_is_refused(tmp_path, events):
    length = ord("X") + (40 << 8)  # read as a pickle: a text of 40 bytes, then what follows it
    header = json.dumps(corpus.good_header()).encode()
    call = b"0cposix\nsystem\n(S'true'\ntR."
    padded = b"{".ljust(37) + call + header[1:-1]
    path = tmp_path / "a.safetensors"
    path.write_bytes(corpus.safetensors(padded.ljust(length - 1) + b"}", corpus.FLOATS))
    assert pickletools.dis(path.read_bytes(), out=io.StringIO()) is None
    verdict = read_state_dict(path)
    assert verdict.grade == "malicious"
    assert verdict.reasons[0].startswith("the file is a pickle that calls something as well")
    assert events == []


@pytest.mark.parametrize(("name", "kind"), [("a.pt", "safetensors"), ("a.safetensors", "zip")])
def test_a_file_is_read_as_what_its_name_says_or_not_at_all(tmp_path, name, kind):
    path = corpus.archive(tmp_path / name, corpus.benign_pickle())
    if kind == "safetensors":
        header = json.dumps(corpus.good_header()).encode()
        path.write_bytes(corpus.safetensors(header, corpus.FLOATS))
    assert f"holds {kind}" in read_state_dict(path).reasons[0]


TENSOR = corpus.benign_pickle()[13:-2]
OTHERWISE = {
    "a storage in two formats": (
        b"\x80\x02}(X\1\0\0\0a%sX\1\0\0\0b%su."
        % (TENSOR, TENSOR.replace(b"FloatStorage", b"IntStorage")),
        "in two formats or sizes",
    ),
    "a name twice": (b"\x80\x02}X\1\0\0\0aK\1sX\1\0\0\0aK\2s.", "sets a key twice"),
    "a gradient of whole numbers": (
        corpus.benign_pickle().replace(b"FloatStorage", b"IntStorage").replace(b"\x89c", b"\x88c"),
        "asks for a gradient of int32",
    ),
    "a call with a list": (b"\x80\x02ctorch\nSize\n](K\1eR.", "with what is no tuple"),
    "a storage named by a list": (
        b"\x80\x02](X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\x000X\3\0\0\0cpuK\4eQ.",
        "in a form that is not known",
    ),
    "another protocol": (pickle.dumps({"a": 1}, protocol=4), "FRAME .* is not needed"),
    "half a surrogate pair": (b"\x80\x02}X\x03\0\0\0\xed\xa0\x80K\x01s.", "broken at byte"),
    "no protocol": (b"}.", "does not begin with its protocol"),
}


@pytest.mark.parametrize("name", OTHERWISE)
def test_a_pickle_that_torch_reads_otherwise_or_not_at_all_is_refused(name):
    data, reason = OTHERWISE[name]
    with pytest.raises(Problem, match=reason):
        read_state_pickle(data)


def test_a_truth_value_is_nothing_but_0_or_1(tmp_path):
    data = corpus.benign_pickle().replace(b"FloatStorage", b"BoolStorage")
    path = corpus.archive(tmp_path / "a.pt", data, **{"data/0": b"\0\1\2\1"})
    assert "truth values holds another byte" in read_state_dict(path).reasons[0]
