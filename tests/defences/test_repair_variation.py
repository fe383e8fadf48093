"""What a repair tries beside the recovered trigger: moved, scaled, worsened; and mixed images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from purpleteam.defences.repair import put_together
from purpleteam.defences.repair.unlearn import (
    Adversary,
    moved,
    rolled,
    scaled,
    where_it_leads,
)
from purpleteam.models import build


class Add:
    """A trigger that adds a tenth."""

    def apply(self, x: Tensor) -> Tensor:
        return (x + 0.1).clamp(0, 1)


def test_what_the_trigger_changes_is_scaled_within_its_bounds() -> None:
    x = torch.full((200, 1, 2, 2), 0.5)
    changed = scaled(x, Add().apply(x), 0.5, 1.5, torch.Generator().manual_seed(0)) - x
    assert 0.05 - 1e-6 <= changed.min() < 0.06 and 0.14 < changed.max() <= 0.15 + 1e-6
    assert torch.allclose(scaled(x, Add().apply(x), 1, 1, torch.Generator()), Add().apply(x))


def test_each_image_is_rolled_by_its_own_number() -> None:
    x = torch.rand(3, 2, 5, 4)
    found = rolled(x, torch.tensor([1, -2, 0]), torch.tensor([0, 3, -1]))
    for image, row, column, expected in zip(x, (1, -2, 0), (0, 3, -1), found, strict=True):
        assert torch.equal(image.roll((row, column), (1, 2)), expected)


class Dot:
    """A trigger of one white pixel."""

    def apply(self, x: Tensor) -> Tensor:
        x = x.clone()
        x[:, :, 5, 5] = 1
        return x


def test_a_moved_trigger_is_nearby_and_the_image_where_it_was() -> None:
    x = torch.rand(400, 1, 11, 11) / 2
    changed = moved(Dot(), x, 2, torch.Generator().manual_seed(0)) != x
    assert (changed.flatten(1).sum(1) == 1).all()
    rows, columns = changed[:, 0].any(2).int().argmax(1), changed[:, 0].any(1).int().argmax(1)
    assert set(rows.tolist()) == set(columns.tolist()) == {3, 4, 5, 6, 7}
    assert torch.equal(moved(Dot(), x, 0, torch.Generator()), Dot().apply(x))


def test_a_trigger_leads_where_most_of_what_changes_goes() -> None:
    x = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.1, 0.9]])[:, None, None]

    class Swap:
        def apply(self, x: Tensor) -> Tensor:
            return torch.cat([x[:1], x[1:].flip(3)])

    assert where_it_leads(nn.Flatten(), Swap(), x) == 0  # two of three changes
    assert where_it_leads(nn.Flatten(), Swap(), x[:1]) is None


def test_the_adversary_opens_a_door_within_its_bound_and_begins_anew() -> None:
    net, x = build("small_cnn", (1, 28, 28), 10, seed=0), torch.rand(16, 1, 28, 28)
    adversary = Adversary(x, target_label=3, size=0.05, restart=30, seed=0)
    before = net(x)[:, 3].mean()
    worse = [adversary.worsen(net, x) for _ in range(30)][-1]
    assert net(worse)[:, 3].mean() > before and 0 <= worse.min() <= worse.max() <= 1
    assert 10 < adversary.addition.abs().sum() <= 0.05 * 784 + 1e-3
    adversary.worsen(net, x)
    assert adversary.addition.abs().max() < 0.1  # one step from a start near 0
    assert all(one.grad is None for one in net.parameters())


def test_a_mixed_image_is_one_up_to_a_cut_and_another_from_there_on() -> None:
    x = torch.arange(1, 41).reshape(40, 1, 1, 1).expand(40, 1, 6, 4).float()  # one grey each
    mixed = put_together(x, 0.75, torch.Generator().manual_seed(0))
    for own, image in zip(x[:30, 0], mixed[:30, 0], strict=True):
        assert set(image.unique().tolist()) - {own[0, 0].item()} <= {image[-1, -1].item()}
        taken = image != own
        along_rows = torch.equal(taken, taken[:, :1].expand(6, 4))
        assert along_rows or torch.equal(taken, taken[:1].expand(6, 4))
        line = taken[:, 0] if along_rows else taken[0]
        assert line.int().diff().ge(0).all()  # once the other image begins it goes on
    assert torch.equal(mixed[30:], x[30:])
    assert 10 < (mixed != x).flatten(1).any(1).sum() <= 30
