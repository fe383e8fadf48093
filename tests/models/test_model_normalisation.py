"""The layer in front of a brought net: what `--normalise` says and what it does."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from purpleteam.core.errors import ModelError, UsageError
from purpleteam.models.adapters import NORMALISATIONS, Normalisation

finite = st.floats(-10, 10).filter(lambda value: abs(value) > 1e-3)


@given(finite, finite, st.integers(1, 4))
def test_it_subtracts_the_mean_and_divides_by_the_deviation(
    mean: float, std: float, channels: int
) -> None:
    x = torch.linspace(0, 1, 2 * channels * 9).view(2, channels, 3, 3)
    found = Normalisation.parse(f"mean={mean!r},std={std!r}")(x)
    torch.testing.assert_close(found, (x - mean) / std)


@pytest.mark.parametrize(
    ("name", "low", "high"), [("bytes", 0, 255), ("signed", -1, 1), ("inverted", 1, 0)]
)
def test_a_name_means_a_range(name: str, low: float, high: float) -> None:
    found = NORMALISATIONS[name](torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)).flatten()
    torch.testing.assert_close(found, torch.tensor([low, high]).float())


def test_each_channel_may_have_its_own() -> None:
    layer = Normalisation.parse("mean=[0,0.5,1],std=[1,0.5,-1]")
    found = layer(torch.ones(1, 3, 2, 2))[0, :, 0, 0]
    assert found.tolist() == [1, 1, 0]


def test_it_has_no_weights_and_leaves_those_of_the_net_alone() -> None:
    net = nn.BatchNorm2d(3).eval()
    before = NORMALISATIONS["signed"].before(net)
    assert [*before.parameters()] == [*net.parameters()]
    assert [*before.state_dict()] == [f"module.{name}" for name in net.state_dict()]
    x = torch.linspace(0, 1, 60).view(5, 3, 2, 2)
    torch.testing.assert_close(before(x), net(2 * x - 1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("imagnet", r"unknown normalisation 'imagnet' \(did you mean 'imagenet'\?\); known: bytes"),
        ("", "unknown normalisation ''"),
        ("mean=0.5", "not of the form mean=M,std=S"),
        ("mean=0.5,std=1,x=3", "not of the form"),
        ("mean=0.5,std=0", "divides by 0"),
        ("mean=[0.5,1],std=[1,1,1]", "2 means, 3 deviations"),
        ("mean=[],std=[]", "is no number"),
        ("mean=a,std=1", "'a' is no number and no list of numbers"),
        ("mean=true,std=1", "True is no number"),
        ("mean=nan,std=1", "nan is not finite"),
        ("mean=0,std=inf", "inf is not finite"),
    ],
)
def test_what_cannot_be_meant_is_a_clear_error(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        Normalisation.parse(text)
    assert "\n" not in str(error.value)


def test_another_number_of_channels_is_a_clear_error() -> None:
    with pytest.raises(ModelError, match="'imagenet' is of 3 channels, the images have 1"):
        NORMALISATIONS["imagenet"](torch.zeros(1, 1, 2, 2))
