"""What torch and safetensors write is read without them, number for number."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from purpleteam.scan.gate import read_state_dict

torch = pytest.importorskip("torch")

FLOATS = ("float64", "float32", "float16", "bfloat16")
WHOLE = ("int64", "int32", "int16", "int8", "uint8", "bool", "uint16", "uint32", "uint64")


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def small_net(seed: int = 0) -> object:
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.Flatten(), torch.nn.Linear(3, 2)
    )


def assert_same(verdict, expected) -> None:
    assert verdict.verdict == "accepted", verdict.reasons
    assert list(verdict.tensors) == list(expected)
    for name, tensor in expected.items():
        found = verdict.tensors[name]
        wanted = tensor.detach().float() if tensor.is_floating_point() else tensor
        assert np.array_equal(found, wanted.numpy()), name
        assert found.dtype == wanted.numpy().dtype
        assert found.flags["C_CONTIGUOUS"]


def test_a_state_dict_is_what_torch_loads_safely(tmp_path):
    path = saved(tmp_path / "net.pt", small_net().state_dict())
    assert_same(read_state_dict(path), torch.load(path, weights_only=True))


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_weights_are_found_in_a_training_checkpoint(tmp_path, key):
    net = small_net()
    moments = {0: {"step": torch.tensor(1.0), "exp_avg": torch.rand(3)}}
    groups = [{"lr": 1e-3, "betas": (0.9, 0.999), "foreach": None, "params": [0]}]
    optimiser = {"state": moments, "param_groups": groups}
    content = {"epoch": 3, "loss": 0.5, key: net.state_dict(), "optimizer": optimiser}
    verdict = read_state_dict(saved(tmp_path / "net.pth", content))
    assert_same(verdict, net.state_dict())
    assert f"weights taken from key '{key}'" in verdict.reasons[0]


def test_two_state_dicts_in_one_file_are_refused_as_ambiguous(tmp_path):
    content = {"state_dict": small_net().state_dict(), "model": small_net(1).state_dict()}
    (reason,) = read_state_dict(saved(tmp_path / "net.pt", content)).reasons
    assert "several state dicts" in reason


def test_a_wrong_crc_counts_also_where_no_weight_is_read(tmp_path):
    content = {"state_dict": small_net().state_dict(), "extra": torch.full((3,), 7.25)}
    path = saved(tmp_path / "net.pt", content)
    changed = path.read_bytes().replace(content["extra"].numpy().tobytes(), bytes(12))
    path.write_bytes(changed)
    (reason,) = read_state_dict(path).reasons
    assert "CRC" in reason


def test_the_prefix_of_data_parallel_is_taken_off_and_said(tmp_path):
    state = {f"module.{name}": value for name, value in small_net().state_dict().items()}
    verdict = read_state_dict(saved(tmp_path / "net.pt", state))
    assert_same(verdict, small_net().state_dict())
    assert "prefix 'module.'" in verdict.reasons[0]


@pytest.mark.parametrize(
    "dtype",
    [
        "float64",
        "float16",
        "bfloat16",
        "int64",
        "int32",
        "int16",
        "int8",
        "uint8",
        "bool",
        "uint16",
        "uint32",
        "uint64",
    ],
)
def test_every_number_format_is_read(tmp_path, dtype):
    tensor = torch.tensor([0, 1, 2.5, 100]).to(getattr(torch, dtype))
    verdict = read_state_dict(saved(tmp_path / "net.pt", {"w": tensor}))
    assert_same(verdict, {"w": tensor})
    assert verdict.dtypes["w"] == dtype
    assert bool(verdict.reasons) == (dtype in FLOATS and dtype != "float32")


def test_strides_offsets_and_shared_storages_are_followed(tmp_path):
    base = torch.arange(24.0).reshape(4, 6)
    state = {"t": base.T, "slice": base[1:3, ::2], "scalar": base[2, 3], "none": base[:0]}
    assert_same(read_state_dict(saved(tmp_path / "net.pt", state)), state)


def test_parameters_and_channels_last_weights_are_read(tmp_path):
    net = small_net().to(memory_format=torch.channels_last)
    path = saved(tmp_path / "net.pt", dict(net.named_parameters()))
    assert_same(read_state_dict(path), dict(net.named_parameters()))


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40
)
@given(st.lists(st.integers(0, 5), max_size=4), st.data())
def test_any_view_of_a_tensor_is_read_as_torch_reads_it(tmp_path, shape, data):
    tensor = torch.arange(float(np.prod(shape, dtype=int))).reshape(shape)
    order = data.draw(st.permutations(range(len(shape))))
    tensor = tensor.permute(*order) if shape else tensor
    step = data.draw(st.integers(1, 3))
    tensor = tensor[::step] if shape else tensor
    assert_same(read_state_dict(saved(tmp_path / "net.pt", {"w": tensor})), {"w": tensor})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_what_is_not_finite_is_refused_by_name(tmp_path, value, dtype):
    state = {
        "ok": torch.ones(2),
        "bad.weight": torch.tensor([1.0, value], dtype=getattr(torch, dtype)),
    }
    verdict = read_state_dict(saved(tmp_path / "net.pt", state))
    assert verdict.reasons == ("tensor 'bad.weight' holds NaN or an infinity",)


def test_a_double_that_does_not_fit_float32_is_refused(tmp_path):
    path = saved(tmp_path / "net.pt", {"w": torch.tensor([1e300], dtype=torch.float64)})
    assert read_state_dict(path).reasons == ("tensor 'w' does not fit float32",)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16", "int64", "bool"])
def test_safetensors_are_read_as_their_library_reads_them(tmp_path, dtype):
    from safetensors.torch import load_file, save_file

    state = {
        "b": torch.ones(2, 3).to(getattr(torch, dtype)),
        "a": torch.zeros(()),
        "e": torch.ones(0),
    }
    save_file(state, tmp_path / "net.safetensors", metadata={"format": "pt"})
    found = load_file(tmp_path / "net.safetensors")
    verdict = read_state_dict(tmp_path / "net.safetensors")
    assert_same(verdict, {name: found[name] for name in verdict.tensors})
    assert set(verdict.tensors) == set(state)


def test_reading_takes_neither_torch_nor_long(tmp_path):
    path = saved(tmp_path / "net.pt", {"w": torch.rand(430_000)})
    code = (
        "import sys; from pathlib import Path; from purpleteam.scan.gate import read_state_dict;"
        f"assert read_state_dict(Path({str(path)!r})).verdict == 'accepted';"
        "assert 'torch' not in sys.modules and 'safetensors' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    started = time.perf_counter()
    read_state_dict(path)
    assert time.perf_counter() - started < 0.5


def test_a_thousand_tensors_take_no_longer_than_twice_what_torch_takes(tmp_path):
    state = {f"layer{place}.weight": torch.rand(8) for place in range(1000)}
    path = saved(tmp_path / "net.pt", state)

    def least(work) -> float:
        spent = []
        for _ in range(3):
            before = time.process_time()
            work()
            spent.append(time.process_time() - before)
        return min(spent)

    ours = least(lambda: read_state_dict(path))
    assert ours <= 2 * least(lambda: torch.load(path, weights_only=True)) + 0.02
