"""Scan and gate say the same of every file, and what is harmless is never called anything else."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import scan_corpus as corpus
import scan_fuzz

from purpleteam.scan.formats.problem import GRADES, PROBLEMS, Problem
from purpleteam.scan.gate import read_state_dict
from purpleteam.scan.judgement import judge
from purpleteam.scan.scanner import severity_at_least
from purpleteam.scan.scanners.model_file import scan_model_files

torch = pytest.importorskip("torch")
GREEN = ("note", "unsupported")


def disagreement(path: Path) -> str:
    """Return how scan and gate differ on a file, if they do."""
    gate, scanned = read_state_dict(path), scan_model_files(path)
    told = {one.message.partition(": ")[0] for one in scanned.findings} | {"note"}
    worst = max(told, key=GRADES.index)
    red = any(severity_at_least(one.severity, "medium") for one in scanned.findings)
    if max(worst, gate.grade, key=GRADES.index) != gate.grade:
        return f"the scan says {worst}, the gate {gate.grade}"
    if red != (gate.grade not in GREEN):
        return f"the scan is {'red' if red else 'green'}, and the gate says {gate.grade}"
    if gate.verdict == "accepted" and gate.grade != "note":
        return f"the gate accepts what is {gate.grade}"
    return ""


def test_scan_and_gate_agree_on_the_corpus_and_on_changed_files(tmp_path, marker):
    files = list(corpus.malicious_files(tmp_path, marker).values())
    originals, rng = scan_fuzz.originals(), random.Random(7)  # noqa: S311 (it guards nothing)
    for number in range(200):
        name = list(originals)[number % len(originals)]
        files.append(tmp_path / f"{number}-{name}")
        files[-1].write_bytes(scan_fuzz.changed(name, originals[name], rng))
    assert {path.name: why for path in files if (why := disagreement(path))} == {}
    accepted = [path for path in files if read_state_dict(path).verdict == "accepted"]
    assert 2 < len(accepted) < len(files) - 100


def test_a_grade_is_red_where_its_severity_is():
    for kind, rule in PROBLEMS.items():
        green = Problem(kind, "").grade in GREEN
        assert green != severity_at_least(rule.severity, "medium"), kind


def forms() -> dict[str, object]:
    """Return what people save, by its name; `+` where the gate takes it."""
    from argparse import Namespace

    import numpy as np

    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(), torch.nn.Linear(2, 2))
    state, one = net.state_dict(), torch.ones(4)
    return {
        "+state": state,
        "+expanded": {"w": one[:1].expand(3, 4)},
        "+no numbers": {"w": torch.zeros(3, 0, 2), "v": one},
        "+mask": {"mask": torch.full((3, 3), -torch.inf).triu(1), "w": one},
        "+numbers and text beside": {"w": one, "epoch": 3, "name": "net", "best": None},
        "+nested": {"checkpoint": {"model": state}, "epoch": 1},
        "+params": {"params": state},
        "+average": {"params": {"w": one}, "params_ema": {"w": one + 1}},
        "+key of one's own": {"netG": state, "step": 2},
        "fp8": {"w": one.to(torch.float8_e4m3fn)},
        "complex": {"w": one.to(torch.complex64)},
        "quantised": {"w": torch.quantize_per_tensor(one, 0.1, 0, torch.qint8)},
        "sparse": {"w": torch.eye(3).to_sparse()},
        "options": {"args": Namespace(lr=0.1), "model": state},
        "NumPy scalar": {"best": np.float64(0.5), "model": state},
        "module": net,
        "tensor": one,
        "optimiser": {"state": {0: {"step": one}}, "param_groups": [{"lr": 0.1}]},
        "two": {"encoder": state, "decoder": state},
    }


WAYS = {"zip": {}, "before 1.6": {"_use_new_zipfile_serialization": False}}


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("way", WAYS)
def test_what_people_save_is_taken_or_unsupported_and_harmless(tmp_path, way):
    for name, content in forms().items():
        path = tmp_path / "net.pt"
        torch.save(content, path, **WAYS[way])
        verdict = read_state_dict(path)
        wanted = ("accepted", "note") if name.startswith("+") else ("refused", "unsupported")
        assert (verdict.verdict, verdict.grade) == wanted, (name, verdict.reasons)
        assert disagreement(path) == "", name
        if name == "+average":
            assert verdict.tensors["w"].tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize("way", WAYS)
def test_the_numbers_of_every_format_and_view_are_those_of_torch(tmp_path, way):
    base = torch.arange(24.0).reshape(4, 6)
    state = {"t": base.T, "part": base[1:3, ::2], "wide": base[:1, :1].expand(3, 2)}
    state |= {kind: base.to(getattr(torch, kind)) for kind in ("float64", "bfloat16", "int16")}
    torch.save(state, tmp_path / "net.pt", **WAYS[way])
    found = read_state_dict(tmp_path / "net.pt").tensors
    assert {name: array.tolist() for name, array in found.items()} == {
        name: tensor.tolist() for name, tensor in state.items()
    }


@pytest.mark.parametrize("place", [-1, -9, -20, 30])
def test_a_file_before_torch_1_6_that_does_not_fit_is_refused(tmp_path, place):
    path = tmp_path / "net.pt"
    torch.save({"w": torch.ones(4)}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    for changed in (whole[:place], whole + b"\0", whole[:-24] + b"\x05" + whole[-23:]):
        path.write_bytes(changed)
        assert read_state_dict(path).grade in ("ambiguous", "malicious", "unread")


def test_a_file_of_its_own_class_is_ambiguous_and_named(tmp_path):
    data = b"\x80\x02c__main__\nNet\n)\x81}b."
    path = corpus.archive(tmp_path / "net.pt", data)
    (reason, *_) = read_state_dict(path).reasons
    assert "__main__.Net" in reason and "state_dict()" in reason


def test_weights_beside_an_onnx_file_are_no_finding_and_elsewhere_they_are(tmp_path):
    (tmp_path / "w.bin").write_bytes(corpus.FLOATS)
    (tmp_path / "out").symlink_to("/etc")
    grades = {}
    for place in ("w.bin", "no.bin", "../w.bin", "/etc/passwd", "C:\\w.bin", "out/passwd"):
        (tmp_path / "net.onnx").write_bytes(corpus.onnx_file(location=place))
        grades[place] = judge(tmp_path / "net.onnx").grade
    assert grades.pop("w.bin") == "note" and set(grades.values()) == {"ambiguous"}


def test_a_tensor_of_onnx_that_claims_more_than_it_has_is_found(tmp_path):
    good = corpus.onnx_file()
    (tmp_path / "net.onnx").write_bytes(good.replace(b"\x08\x04\x10\x01", b"\x08\x7f\x10\x01"))
    (problem,) = judge(tmp_path / "net.onnx").problems
    assert "claims 127 numbers in 16" in str(problem)


def test_a_tensor_of_onnx_has_as_many_numbers_as_it_claims_in_every_format(tmp_path):
    onnx = pytest.importorskip("onnx")
    kinds = ["FLOAT", "DOUBLE", "INT64", "INT32", "BOOL", "FLOAT16", "COMPLEX64", "UINT64"]
    for kind in kinds:
        values = [300.0] * 4 if kind != "BOOL" else [True] * 4
        tensor = onnx.helper.make_tensor("w", getattr(onnx.TensorProto, kind), [4], values)
        graph = onnx.helper.make_graph([], "g", [], [], [tensor])
        for size, found in ((4, 0), (2, 1), (5, 1)):
            graph.initializer[0].dims[0] = size
            (tmp_path / "a.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
            assert len(judge(tmp_path / "a.onnx").problems) == found, (kind, size)
        graph.initializer[0].data_type, graph.initializer[0].dims[0] = 33, 4  # of no format
        (tmp_path / "a.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
        assert judge(tmp_path / "a.onnx").grade == "ambiguous"
