"""State dicts as wrappers, other precisions and old versions write them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from models_tiny import equal_weights
from safetensors.torch import save_file
from torch import Tensor, nn

from purpleteam.core.errors import ModelError
from purpleteam.models.weights import Weights, fill, plain_weights

State = dict[str, Tensor]


def normed(seed: int = 0) -> nn.Module:
    """Return a net with batch normalisation."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


class Wrapped(nn.Module):
    """A net whose own names begin as a wrapper's would."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.module = normed(seed)


def under(prefix: str) -> Callable[[State], State]:
    return lambda state: {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "net.", "module._orig_mod.", "_orig_mod.module."]
)
def test_what_wrappers_put_before_names_is_taken_off_and_said(prefix: str) -> None:
    net, other = normed(), normed(1)
    (note,) = fill(net, Weights(under(prefix)(other.state_dict())), "their.pt")
    assert note == f"names brought to the net's own: '{prefix}0.weight' is '0.weight'"
    assert equal_weights(net, other)


def test_a_part_that_was_compiled_by_itself_is_found() -> None:
    net, other = normed(), normed(1)
    state = {name.replace("1.", "1._orig_mod."): v for name, v in other.state_dict().items()}
    assert len(fill(net, Weights(state), "their.pt")) == 1
    assert equal_weights(net, other)


def test_names_that_fit_are_left_alone_even_where_they_begin_like_a_wrapper() -> None:
    net, other = Wrapped(), Wrapped(1)
    assert fill(net, Weights(other.state_dict()), "their.pt") == ()
    assert equal_weights(net, other)


def test_a_prefix_that_was_taken_off_too_much_is_put_back() -> None:
    net, other = Wrapped(), Wrapped(1)
    assert len(fill(net, Weights(other.module.state_dict()), "their.pt")) == 1
    assert equal_weights(net, other)


def test_notes_of_the_reader_come_first() -> None:
    notes = fill(normed(), Weights(under("net.")(normed().state_dict()), ("read",)), "their.pt")
    assert notes[0] == "read" and len(notes) == 2


def test_an_old_file_may_lack_the_counters_of_batches() -> None:
    net, other = normed(), normed(1)
    state = {n: v for n, v in other.state_dict().items() if not n.endswith("num_batches_tracked")}
    (note,) = fill(net, Weights(under("module.")(state) | {}), "their.pt")[1:]
    assert "num_batches_tracked is missing 1 times" in note
    assert equal_weights(net, other)


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64"])
def test_other_floats_become_float32_and_it_is_said(kind: str) -> None:
    dtype = getattr(torch, kind)
    state = {
        n: v.to(dtype) if v.is_floating_point() else v for n, v in normed(1).state_dict().items()
    }
    net = normed()
    assert fill(net, Weights(state), "their.pt") == (f"{kind} converted to float32",)
    torch.testing.assert_close(net[0].weight, normed(1)[0].weight, rtol=0.01, atol=1e-3)  # type: ignore[index]


def test_a_net_in_half_precision_is_made_float32_and_it_is_said() -> None:
    net = normed().half()
    assert fill(net, Weights(normed(1).state_dict()), "w") == (
        "the factory's net is float16: made float32",
    )
    assert equal_weights(net, normed(1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (under("x."), "missing '0.weight'"),
        (lambda state: under("module.")(state) | {"extra": torch.zeros(1)}, "left over 'extra'"),
        (lambda state: {n: v for n, v in state.items() if n != "3.bias"}, "missing '3.bias'$"),
        (lambda state: {**state, "1.num_batches_tracked2": torch.zeros(1)}, "left over '1.num"),
        (
            lambda state: under("net.")({**state, "3.bias": torch.zeros(4)}),
            r"has shape \(4,\), not",
        ),
        (lambda state: {**state, "0.bias": torch.tensor([torch.inf, 0])}, "'0.bias' holds"),
        (lambda state: {**state, "net.0.bias": state["0.bias"]}, "left over 'net.0.bias'"),
        (lambda _: {}, "missing '0.weight'"),
        (lambda _: {"net.": torch.zeros(1)}, "missing '0.weight'"),
    ],
    ids=range(9),
)
def test_what_does_not_fit_is_named_as_the_file_names_it(
    change: Callable[[State], State], message: str
) -> None:
    net = normed()
    with pytest.raises(ModelError, match=message):
        fill(net, Weights(change(normed(1).state_dict())), "their.pt")
    assert equal_weights(net, normed())


class Both(nn.Module):
    """A net that has a weight of its own beside one in a part called net."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.BatchNorm2d(2, affine=True, track_running_stats=False)
        self.weight = nn.Parameter(torch.zeros(2))
        self.bias = nn.Parameter(torch.zeros(2))


def test_a_name_that_is_there_is_never_taken_for_another() -> None:
    part = {name: value for name, value in Both().state_dict().items() if name.startswith("net.")}
    with pytest.raises(ModelError, match=r"missing 'weight'; missing 'bias'$"):
        fill(Both(), Weights(part), "their.pt")


def test_a_safetensors_file_is_read_as_it_is(tmp_path: Path) -> None:
    save_file({"module.w": torch.ones(2).half()}, tmp_path / "w.safetensors")
    weights = plain_weights(tmp_path / "w.safetensors")
    assert weights.notes == () and weights.tensors["module.w"].dtype == torch.float16


def test_an_average_over_training_is_taken_and_its_counter_left_out() -> None:
    net, other = normed(), normed(1)
    averaged = torch.optim.swa_utils.AveragedModel(other)
    notes = fill(net, Weights(averaged.state_dict()), "ema.pt")
    assert "n_averaged" in notes[1]
    assert equal_weights(net, other)


def test_a_missing_name_is_told_with_the_nearest_that_is_there() -> None:
    state = {name.replace("3.", "fc."): value for name, value in normed(1).state_dict().items()}
    message = r"missing '3.weight' \(the file has 'fc.weight'\); missing '3.bias' \(the file has"
    with pytest.raises(ModelError, match=message):
        fill(normed(), Weights(state), "their.pt")
