"""Membership inference: on channels with a known answer, and on nets that memorise or never saw."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn

from purpleteam.core.arrays import Bools
from purpleteam.core.errors import UsageError
from purpleteam.data.images import ImageSet
from purpleteam.models.devices import to_batch
from purpleteam.models.inference import logits
from purpleteam.privacy.membership import MEMBERSHIP, Evidence, lead_of
from purpleteam.privacy.membership.measure import Membership, measure
from purpleteam.privacy.questions import moved
from purpleteam.privacy.shadows import Pool, Shadows, halves, train_shadows

SHADOWED = [name for name in MEMBERSHIP if MEMBERSHIP[name].needs_shadows]


def noise(count: int, seed: int) -> ImageSet:
    """Images that share nothing, with labels that only memory can tell."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, 6, 6, 1), np.uint8)
    return ImageSet(pixels, rng.integers(0, 2, count))


def memorised(images: ImageSet, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 128), nn.ReLU(), nn.Linear(128, 2))
    x, y = to_batch(images.images), torch.from_numpy(np.array(images.labels))
    adam = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(200):
        adam.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()  # type: ignore[no-untyped-call]
        adam.step()
    return net.eval()


POOL, MEMBER = noise(300, 0), halves(300, 2, 7)[0]


@lru_cache
def shadows() -> Shadows:
    return train_shadows(POOL, memorised, count=8, seed=1)


def found(learned: ImageSet, **options: Any) -> dict[str, Membership]:
    target, told = memorised(learned, 9), shadows()
    evidence = Evidence(
        images=POOL,
        ask=lambda pixels: logits(target, pixels),
        shadows=told.scores,
        inside=told.inside,
    )
    attacks = [MEMBERSHIP[name]() for name in MEMBERSHIP]
    return {row.attack.name: row for row in measure(evidence, MEMBER, attacks, **options)}


def test_a_net_that_memorises_is_caught_by_every_attack_on_its_scores() -> None:
    rows = found(POOL.take(np.flatnonzero(MEMBER)))
    for name in ("loss", "entropy", *SHADOWED):
        assert rows[name].roc.auc().low > 0.7, name
        assert rows[name].roc.advantage().low > 0.2, name
        assert rows[name].power is not None and rows[name].power.low > 0.7, name
    for name in SHADOWED:
        rate = rows[name].roc.tpr_at(0.01)
        assert rate is not None and rate.low > 0.05, name


def test_a_net_that_never_saw_the_images_gives_nobody_away() -> None:
    rows = found(noise(150, 5))
    for name, row in rows.items():
        auc, rate = row.roc.auc(), row.roc.tpr_at(0.01)
        assert auc.low - 0.03 < 0.5 < auc.high + 0.03, name
        assert rate is not None and rate.low < 0.03, name


def test_sets_that_differ_by_themselves_are_a_doubt() -> None:
    bright = np.array(POOL.images)
    bright[MEMBER] = 200  # all of one look, and of one label
    labels = np.where(MEMBER, 1, POOL.labels)
    odd = ImageSet(bright, labels)
    told = train_shadows(odd, memorised, count=4, seed=1)
    target = memorised(odd.take(np.flatnonzero(MEMBER)), 9)
    evidence = Evidence(
        images=odd,
        ask=lambda pixels: logits(target, pixels),
        shadows=told.scores,
        inside=told.inside,
    )
    (row,) = measure(evidence, MEMBER, [MEMBERSHIP["loss"]()])
    assert "members and other images differ by themselves" in row.doubt
    assert row.to_json()["trusted"] is False


def channel(inside: Bools, mean: float, seed: int) -> np.ndarray:
    """Two logits whose difference is normal: 0 for what was not learned, `mean` for what was."""
    rng = np.random.default_rng(seed)
    leads = rng.normal(size=inside.shape) + mean * inside
    return np.stack([leads, np.zeros_like(leads)], -1).astype(np.float32)


@pytest.mark.parametrize("name", ["lira", "bavaria"])
def test_on_a_normal_channel_the_rates_are_those_of_neyman_and_pearson(name: str) -> None:
    n, mean = 4000, 1.0
    images = ImageSet(np.zeros((n, 1, 1, 1), np.uint8), np.zeros(n, np.int64))
    member, inside = halves(n, 2, 3)[0], halves(n, 600, 4)
    evidence = Evidence(
        images=images,
        ask=lambda _: channel(member, mean, 5),
        shadows=channel(inside, mean, 6),
        inside=inside,
    )
    (row,) = measure(evidence, member, [MEMBERSHIP[name]()])
    assert row.roc.auc().value == pytest.approx(norm.cdf(mean / np.sqrt(2)), abs=0.02)
    rate = row.roc.tpr_at(0.01)
    assert rate is not None
    assert rate.value == pytest.approx(norm.cdf(norm.ppf(0.01) + mean), abs=0.025)


def test_on_a_channel_of_two_answers_the_advantage_is_the_difference_of_their_chances() -> None:
    n = 4000
    images = ImageSet(np.zeros((n, 1, 1, 1), np.uint8), np.zeros(n, np.int64))
    member, rng = halves(n, 2, 3)[0], np.random.default_rng(0)
    sure = rng.random(n) < np.where(member, 0.9, 0.5)
    scores = np.stack([np.where(sure, 3.0, 0.0), np.zeros(n)], 1).astype(np.float32)
    (row,) = measure(Evidence(images=images, ask=lambda _: scores), member, [MEMBERSHIP["loss"]()])
    advantage = row.roc.advantage()
    assert advantage.low < 0.4 < advantage.high


def test_the_lead_is_the_logit_of_the_probability() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(5, 3)).astype(np.float32)
    images = ImageSet(np.zeros((5, 1, 1, 1), np.uint8), np.array([0, 1, 2, 0, 1]))
    p = torch.from_numpy(scores).softmax(1)[torch.arange(5), torch.tensor([0, 1, 2, 0, 1])]
    assert lead_of(scores, images) == pytest.approx(torch.logit(p.double()).numpy(), rel=1e-4)


def test_no_attack_asks_more_than_it_may() -> None:
    asked: dict[str, int] = {}
    for name in ("loss", "merlin", "label_only"):
        attack = MEMBERSHIP[name]()

        def ask(pixels: np.ndarray, name: str = name) -> np.ndarray:
            asked[name] = asked.get(name, 0) + len(pixels)
            return np.zeros((len(pixels), 2), np.float32)

        (row,) = measure(Evidence(images=POOL, ask=ask), MEMBER, [attack], most=500)
        assert asked[name] <= 500 and row.queries <= 500, name
    with pytest.raises(UsageError, match="25 questions about each image: 20 are too few"):
        next(measure(Evidence(images=POOL, ask=ask), MEMBER, [MEMBERSHIP["label_only"]()], most=20))


def test_shadow_models_are_needed_where_they_are_compared_with() -> None:
    with pytest.raises(UsageError, match="compares with shadow models"):
        next(measure(Evidence(images=POOL, ask=lambda _: None), MEMBER, [MEMBERSHIP["lira"]()]))  # type: ignore[arg-type,return-value]


def test_each_image_is_learned_by_half_of_the_shadow_models() -> None:
    inside = halves(101, 6, 0)
    assert np.all(inside.sum(0) == 3)
    assert np.array_equal(inside, halves(101, 6, 0))
    assert not np.array_equal(inside, halves(101, 6, 1))
    with pytest.raises(UsageError, match="even number"):
        halves(10, 3, 0)


def test_a_pool_costs_at_most_three_trainings_and_tells_nothing_by_its_order() -> None:
    pool = Pool.of(noise(400, 1), noise(90, 2), shadows=8, seed=0)
    assert len(pool.images) * 8 / 2 <= 3 * 400
    assert (~pool.member).sum() == 90
    judged = pool.member[pool.judged(0)]
    assert judged.sum() == (~judged).sum() == 90
    known = {row.tobytes() for row in noise(400, 1).images}
    assert [row.tobytes() in known for row in pool.images.images] == pool.member.tolist()


def test_what_was_trained_is_not_trained_again(tmp_path: Any) -> None:
    trained: list[int] = []

    def one(images: ImageSet, seed: int) -> nn.Module:
        trained.append(seed)
        return memorised(images, seed)

    first = train_shadows(POOL, one, count=2, seed=0, folder=tmp_path)
    again = train_shadows(POOL, one, count=4, seed=0, folder=tmp_path)
    assert trained == [0, 1, 2, 3]
    assert np.array_equal(first.scores, again.scores[:2])
    file = next(tmp_path.iterdir())
    file.write_bytes(file.read_bytes()[:-1] + b"?")  # a flipped byte of the scores
    trained.clear()
    again = train_shadows(POOL, one, count=4, seed=0, folder=tmp_path)
    assert len(trained) == 1 and np.array_equal(first.scores, again.scores[:2])
    short = train_shadows(POOL, one, count=8, seed=3, budget_seconds=0)
    assert len(short) == 2


def test_moved_images_leave_black_behind() -> None:
    pixels = np.arange(1, 10, dtype=np.uint8).reshape(1, 3, 3, 1)
    assert moved(pixels, 1, -1)[0, ..., 0].tolist() == [[0, 0, 0], [2, 3, 0], [5, 6, 0]]
    assert np.array_equal(moved(pixels, 0, 0), pixels)
