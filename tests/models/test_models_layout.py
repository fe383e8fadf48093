"""The order of a net's weights in memory: for speed, and never against the net's own code."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from models_tiny import SHAPE, bars
from torch import Tensor, nn

from purpleteam.models import RECIPES, build, logits, train
from purpleteam.models.devices import lay_out, to_batch


class Viewing(nn.Module):
    """What a tutorial writes: `view` on what a convolution gives, in torch's own order."""

    def __init__(self, channels: int = SHAPE[0], side: int = SHAPE[1]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 4, 3, padding=1)
        self.features = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4 * side * side, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.features(self.stem(x)))
        return self.head(x.view(len(x), -1))


@pytest.fixture(autouse=True)
def own_chance() -> Iterator[None]:
    """Keep the drawing of starting weights from the other tests."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def order(module: nn.Module) -> bool:
    """Say whether the last convolution is channels last."""
    weight = [one for one in module.parameters() if one.ndim == 4][-1]
    return weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch_is_in_the_order_that_every_net_takes(channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 7, channels), dtype=np.uint8)
    batch = to_batch(pixels)
    assert batch.stride() == torch.empty(5, channels, 6, 7).stride()
    assert np.array_equal(batch.permute(0, 2, 3, 1).numpy(), pixels / np.float32(255))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_net_that_takes_it_is_laid_out_channels_last_and_answers_alike(channels: int) -> None:
    net = build("small_cnn", (channels, 16, 16), 3, seed=0).eval()
    x = torch.rand((4, channels, 16, 16), generator=torch.Generator().manual_seed(0))
    before = net(x)
    lay_out(net, x)
    assert order(net)
    assert torch.allclose(net(x), before, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_net_that_calls_view_stays_as_it_was_written(channels: int) -> None:
    net = Viewing(channels, 8)
    x = to_batch(np.zeros((2, 8, 8, channels), np.uint8))
    lay_out(net, x)
    assert not order(net)
    assert net(x).shape == (2, 3)


def test_a_look_draws_no_chance_and_leaves_the_net_in_its_mode() -> None:
    net = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(), nn.Flatten(), nn.Linear(4, 2)).train()
    state = {name: one.clone() for name, one in net.state_dict().items()}
    before = torch.random.get_rng_state()
    lay_out(net, torch.ones(2, 1, 2, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert net.training and all(torch.equal(state[k], v) for k, v in net.state_dict().items())


def test_a_net_that_calls_view_learns_and_answers() -> None:
    images = bars(60)
    found = train(Viewing(), images, images, RECIPES["plain"](epochs=2), seed=0)
    assert np.isfinite(logits(found.module, images.images)).all()
