"""`purple import`: what torch wrote, made safe; what it must not have written, refused."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_values import Purple
from torch import nn

from purpleteam.models.loading import build, load

State = dict[str, torch.Tensor]
ARCH = ("--arch", "small_cnn", "--json")


@pytest.fixture
def state() -> State:
    """The state dict of a small net."""
    return build("small_cnn", (1, 28, 28), 10, seed=5).state_dict()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda state: state, ""),
        (lambda state: {name: value.double() for name, value in state.items()}, "float64"),
        (lambda state: {name: value.half() for name, value in state.items()}, "float16"),
        (lambda state: {name: value.bfloat16() for name, value in state.items()}, "bfloat16"),
        (lambda state: {f"module.{name}": value for name, value in state.items()}, "'module.'"),
        (lambda state: {"state_dict": state, "epoch": 3}, "'state_dict'"),
        (lambda state: {"model": {f"module.{n}": v for n, v in state.items()}}, "'model'"),
    ],
    ids=["plain", "double", "half", "bfloat16", "parallel", "wrapped", "both"],
)
def test_a_state_dict_becomes_a_stored_model(
    purple: Purple, state: State, change: Callable[[State], Any], reason: str
) -> None:
    torch.save(change(state), "their.pt")
    ended = purple("import", "their.pt", *ARCH, "--out", "ours/net")
    assert (ended.code, ended.err) == (0, "")
    found = ended.json
    assert found["verdict"] == "accepted" and found["model"] == "ours/net.safetensors"
    assert reason in " ".join(found["reasons"])
    ours = load("ours/net")
    assert ours.digest == found["digest"]
    for name, value in ours.module.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, state[name], rtol=0.01, atol=1e-3)
    assert ours.card is not None and (ours.card.converted_from or "") == reason * (
        "float" in reason
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda state: {f"x.{name}": value for name, value in state.items()}, "missing"),
        (lambda state: {**state, "extra": torch.zeros(1)}, "left over 'extra'"),
        (lambda state: {**state, "1.weight": torch.zeros(8, 1, 3, 3)}, "'1.weight' has shape"),
        (lambda state: {**state, "1.bias": torch.full((8,), torch.nan)}, "'1.bias' holds NaN"),
        (lambda _: {"epoch": 3}, "no state dict"),
        (lambda state: [state], "no dict"),
    ],
    ids=["other-names", "left-over", "shape", "nan", "no-weights", "list"],
)
def test_what_does_not_fit_is_refused_with_the_reason(
    purple: Purple, state: State, change: Callable[[State], Any], reason: str
) -> None:
    torch.save(change(state), "their.pt")
    ended = purple("import", "their.pt", *ARCH, "--out", "ours/net")
    assert (ended.code, ended.err) == (1, "")
    assert ended.json["verdict"] == "refused" and ended.json["model"] is None
    assert reason in " ".join(ended.json["reasons"])
    assert not list(Path().glob("ours/*"))


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (Path("boom"), "it ran")


def _malicious_zip(path: Path, state: State) -> None:
    torch.save(state, path)
    with zipfile.ZipFile(path) as archive:
        members = {one.filename: archive.read(one) for one in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            evil = name.endswith("data.pkl")
            archive.writestr(name, pickle.dumps({"w": _Bomb()}) if evil else content)


@pytest.mark.parametrize("form", ["zip", "raw"])
def test_a_file_that_runs_code_is_refused_and_runs_nothing(
    purple: Purple, state: State, here: Path, form: str
) -> None:
    if form == "zip":
        _malicious_zip(here / "evil.pt", state)
    else:
        (here / "evil.pt").write_bytes(pickle.dumps(_Bomb()))
    ended = purple("import", "evil.pt", *ARCH)
    assert (ended.code, ended.json["verdict"]) == (1, "refused")
    assert ended.json["reasons"]
    assert not Path("boom").exists()


def test_a_whole_module_is_refused_with_advice(purple: Purple) -> None:
    torch.save(nn.Linear(2, 2), "whole.pt")
    ended = purple("import", "whole.pt", *ARCH)
    assert ended.code == 1 and "state_dict()" in " ".join(ended.json["reasons"])


def test_people_are_told_the_reasons_too(purple: Purple) -> None:
    torch.save({"w": torch.zeros(2)}, "their.pt")
    ended = purple("import", "their.pt", "--arch", "small_cnn")
    assert ended.code == 1 and ended.out.startswith("refused: their.pt\n- ")


def test_the_file_itself_is_never_overwritten(purple: Purple, state: State, here: Path) -> None:
    from safetensors.torch import save_file

    (here / "models").mkdir()
    save_file({name: value.double() for name, value in state.items()}, "models/net.safetensors")
    before = Path("models/net.safetensors").read_bytes()
    ended = purple("import", "models/net.safetensors", *ARCH)
    assert ended.code == 2 and "--out" in ended.err
    assert Path("models/net.safetensors").read_bytes() == before
