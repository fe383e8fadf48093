"""Model files by content: what is not plain data is a finding, and nothing is loaded."""

from __future__ import annotations

import json
import pickle
import zipfile

import numpy as np
import pytest
import scan_corpus as corpus
import scan_pickles
from hypothesis import given, settings
from hypothesis import strategies as st

from purpleteam.scan.formats.problem import PROBLEMS
from purpleteam.scan.formats.sniff import kind_of, mapped
from purpleteam.scan.formats.walk import walk_pickle
from purpleteam.scan.gate import read_state_dict
from purpleteam.scan.scanners.model_file import scan_model_files


def rules(path) -> dict[str, str]:
    return {one.rule: one.severity for one in scan_model_files(path).findings}


def test_every_sample_of_the_corpus_is_a_finding_and_nothing_runs(tmp_path, marker, events):
    files = corpus.malicious_files(tmp_path, marker)
    events.clear()
    worst = {name: set(rules(path).values()) for name, path in files.items()}
    assert [
        name for name, found in worst.items() if not found & {"medium", "high", "critical"}
    ] == []
    assert events == []
    assert not marker.exists()


def test_every_way_to_run_code_is_red_and_refused_and_runs_nothing(tmp_path, monkeypatch, events):
    monkeypatch.chdir(tmp_path)
    green = []
    samples = [one for one in scan_pickles.raw() if one.name != "behind_many_opcodes.pkl"]
    events.clear()
    for sample in samples:
        path = tmp_path / sample.name
        path.write_bytes(sample.data)
        red = set(rules(path).values()) & {"medium", "high", "critical"}
        if not red or read_state_dict(path).verdict != "refused":
            green.append(sample.name)
    assert len(samples) > 100 and green == []
    assert events == [] and list(tmp_path.glob("it-ran*")) == []


def test_every_payload_is_critical_whatever_its_file_is_called(tmp_path, marker):
    for name, data in corpus.pickles(marker).items():
        for suffix in (".pkl", ".bin", ".h5", ".safetensors", ".dat", ""):
            path = tmp_path / f"sample{suffix}"
            path.write_bytes(data)
            assert rules(path).get("PM001") == "critical", (name, suffix)


def test_a_file_of_many_faults_has_its_worst_and_a_count_as_findings(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number in range(300):
            archive.writestr(f"{number}.pkl", b"\x80\2N.")
        archive.writestr("evil.pkl", b"\x80\2cposix\nsystem\n(tR.")
    findings = scan_model_files(tmp_path / "a.zip").findings
    assert len(findings) == 101 and findings[0].message.startswith("malicious")
    assert any("more faults of this file" in finding.message for finding in findings)


@pytest.mark.parametrize(
    ("sample", "name"),
    [
        ("os_system", "posix.system"),
        ("stack_global_by_memo", "posix.system"),
        ("getattr_of_import", "builtins.__import__"),
        ("timeit", "timeit.timeit"),
        ("urlopen", "urllib.request.urlopen"),
        ("inst", "posix.system"),
    ],
)
def test_what_a_pickle_would_import_is_named(marker, sample, name):
    walk = walk_pickle(memoryview(corpus.pickles(marker)[sample]))
    assert name in [used for used, _ in walk.imports]


def test_a_name_that_cannot_be_told_is_critical(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(b"\x80\x04}\x8c\x06system\x93.")
    (tmp_path / "b.pkl").write_bytes(b"\x80\x02\x82\x01.")
    found = scan_model_files(tmp_path).findings
    assert [one.severity for one in found if "cannot be told" in one.message] == ["critical"] * 2


@pytest.mark.parametrize("opcode", [b"\0", b"\xff", b"Bxy", b"F1.5", b"ios"])
def test_an_opcode_that_no_state_dict_has_is_critical_even_where_it_is_broken(tmp_path, opcode):
    path = corpus.archive(tmp_path / "net.pt", corpus.benign_pickle()[:-1] + opcode)
    assert rules(path)["PM001"] == "critical"


def test_a_benign_state_dict_is_told_as_a_pickle_at_low_severity(tmp_path):
    path = corpus.archive(tmp_path / "net.pt", corpus.benign_pickle())
    (finding,) = scan_model_files(path).findings
    assert (finding.rule, finding.severity) == ("PM002", "low")
    assert "purple import" in finding.fix


def test_old_torch_files_are_walked_to_their_storages(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "old.pt"
    torch.save({"w": torch.zeros(2)}, path, _use_new_zipfile_serialization=False)
    assert rules(path) == {"PM002": "low"}


@pytest.mark.parametrize("name", ["good.safetensors", "good.onnx", "numbers.npy"])
def test_plain_data_gives_no_finding(tmp_path, name):
    import json

    path = tmp_path / name
    good = json.dumps(corpus.good_header() | {"__metadata__": {"format": "pt"}}).encode()
    content = {
        "good.safetensors": corpus.safetensors(good, corpus.FLOATS),
        "good.onnx": corpus.onnx_file(),
    }
    if name.endswith(".npy"):
        np.save(path, np.ones(3))
    else:
        path.write_bytes(content[name])
    result = scan_model_files(path)
    assert result.findings == ()
    assert len(result.scanned) == 1


def test_safetensors_and_onnx_of_the_libraries_give_no_finding(tmp_path):
    onnx = pytest.importorskip("onnx")
    from safetensors.numpy import save_file

    save_file({"b": np.ones((2, 3), np.float32), "a": np.zeros(0)}, tmp_path / "a.safetensors")
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    floats = onnx.TensorProto.FLOAT
    value = [onnx.helper.make_tensor_value_info(name, floats, [1]) for name in "xy"]
    graph = onnx.helper.make_graph([node], "g", value[:1], value[1:])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "a.onnx")
    result = scan_model_files(tmp_path)
    assert result.findings == ()
    assert len(result.scanned) == 2


def test_external_data_deep_in_a_branch_of_an_operator_is_found(tmp_path):
    onnx = pytest.importorskip("onnx")
    weight = onnx.numpy_helper.from_array(np.ones(1, np.float32), "w")
    onnx.external_data_helper.set_external_data(weight, "../outside.bin")
    weight.ClearField("raw_data")
    inner = onnx.helper.make_graph([], "inner", [], [], [weight])
    node = onnx.helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    graph = onnx.helper.make_graph([node], "g", [], [])
    (tmp_path / "a.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
    assert rules(tmp_path / "a.onnx") == {"PM009": "high"}


@pytest.mark.parametrize("sample", sorted(corpus.safetensors_files()))
def test_a_malformed_safetensors_file_says_how(tmp_path, sample):
    path = tmp_path / "a.safetensors"
    path.write_bytes(corpus.safetensors_files()[sample])
    (finding,) = scan_model_files(path).findings
    assert finding.rule == "PM006"


def test_metadata_that_looks_like_code_is_a_note(tmp_path):
    code = corpus.good_header() | {"__metadata__": {"note": "__import__('os').system('true')"}}
    path = tmp_path / "a.safetensors"
    path.write_bytes(corpus.safetensors(json.dumps(code).encode(), corpus.FLOATS))
    assert rules(path) == {"PM007": "note"}


@pytest.mark.parametrize("part", ["dtype", "shape", "name"])
def test_a_finding_is_of_bounded_length_whatever_the_file_says(tmp_path, part):
    tensor = {"dtype": "F32", "shape": [4], "data_offsets": [0, 8]}
    tensor |= {"dtype": "F" * 100_000} if part == "dtype" else {}
    tensor |= {"shape": [1] * 100_000} if part == "shape" else {}
    header = {"w" * (100_000 if part == "name" else 1): tensor}
    path = tmp_path / "a.safetensors"
    path.write_bytes(corpus.safetensors(json.dumps(header).encode(), corpus.FLOATS))
    (finding,) = scan_model_files(path).findings
    assert finding.rule == "PM006" and len(finding.message) <= 1000


def test_weights_that_are_not_finite_are_found_by_name(tmp_path):
    from safetensors.numpy import save_file

    save_file({"w": np.array([1, np.inf], np.float16)}, tmp_path / "a.safetensors")
    (finding,) = scan_model_files(tmp_path).findings
    assert "tensor 'w'" in finding.message


def test_text_and_pictures_are_no_models(tmp_path):
    (tmp_path / "a.md").write_text("cat\ndog\n. And so on.")
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00")
    (tmp_path / "c.py").write_text("class A:\n    pass\n")
    assert scan_model_files(tmp_path).scanned == ()


@given(st.text(max_size=200))
def test_no_text_is_taken_for_something_that_calls(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "text.md"
    path.write_text(text, encoding="utf-8")
    assert kind_of(mapped(path), claims_model=False) in ("text", "empty", "unknown", "gzip")


@settings(max_examples=40)
@given(st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=20))
def test_a_pickle_of_plain_values_imports_nothing(value):
    for protocol in range(6):
        walk = walk_pickle(memoryview(pickle.dumps(value, protocol=protocol)))
        assert walk.imports == ()
        assert walk.error is None


def test_rule_names_are_unique_and_well_formed():
    assert len({one.id for one in PROBLEMS.values()}) == len(PROBLEMS)


def test_a_finding_has_the_same_id_at_every_scan(tmp_path):
    path = tmp_path / "x.npy"
    header = b"{'descr': print, 'fortran_order': False, 'shape': (1,)}\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 8)
    (finding,) = scan_model_files(path).findings
    assert "cannot be read" in finding.message and "0x" not in finding.message
