"""Foreign weights and models through the gate, as the verbs and the stages call it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from purpleteam.core.errors import ModelError, Refused
from purpleteam.data.folders import load_dataset
from purpleteam.models.loading import build
from purpleteam.models.weights import fill
from purpleteam.verbs._subject import open_subject, read_weights


def test_weights_come_with_what_was_changed_on_the_way(tmp_path: Path) -> None:
    tensors = {"module.w": torch.arange(3.0).double(), "module.n": torch.tensor(7)}
    torch.save({"model": tensors}, tmp_path / "w.pt")
    found = read_weights(tmp_path / "w.pt")
    assert {name: value.tolist() for name, value in found.tensors.items()} == {
        "w": [0, 1, 2],
        "n": 7,
    }
    assert found.tensors["w"].dtype == torch.float32
    assert len(found.notes) == 3 and "'model'" in found.notes[0]


def test_they_belong_to_the_caller(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(3)}, tmp_path / "w.pt")
    found = read_weights(tmp_path / "w.pt").tensors["w"]
    found += 1  # arrays that may not be written to would warn
    assert found.sum() == 3


def test_a_net_is_filled_from_the_file_of_its_parallel_twin(tmp_path: Path) -> None:
    net, other = (build("small_cnn", (1, 8, 8), 3, seed=seed) for seed in (0, 1))
    torch.save(torch.nn.DataParallel(other).state_dict(), tmp_path / "w.pt")
    assert fill(net, read_weights(tmp_path / "w.pt"), "w.pt") == (
        "prefix 'module.' taken off every name",
    )
    pairs = zip(net.state_dict().values(), other.state_dict().values(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)


def test_a_file_that_is_refused_gives_every_reason(tmp_path: Path) -> None:
    torch.save({"w": torch.nn.Linear(2, 2)}, tmp_path / "w.pt")
    with pytest.raises(Refused, match=r"w\.pt' are refused: .*allow-list"):
        read_weights(tmp_path / "w.pt")
    with pytest.raises(ModelError, match="does not exist"):
        read_weights(tmp_path / "none.pt")


def test_a_model_of_the_zoo_has_nothing_to_tell() -> None:
    loaded = open_subject(load_dataset("digits"), model="standard").loaded
    assert loaded.notes == () and loaded.normalisation is None


def test_a_normalisation_is_part_of_what_was_loaded() -> None:
    digits = load_dataset("digits")
    loaded = open_subject(digits, model="standard", normalise="inverted").loaded
    assert loaded.normalisation is not None and loaded.normalisation.name == "inverted"
    x = torch.from_numpy(np.array(digits.test.images[:2])).permute(0, 3, 1, 2).float() / 255
    plain = open_subject(digits, model="standard").loaded
    torch.testing.assert_close(loaded.module(x), plain.module(1 - x))
