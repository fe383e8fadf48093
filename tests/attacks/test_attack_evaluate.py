"""Robust accuracy: the worst case over a ladder, image by image, and what is kept of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from purpleteam.attacks import FGSM, PGD, RobustEvaluation, curve, evaluate
from purpleteam.attacks.outcomes import NOT_BROKEN, WRONG_WHEN_CLEAN, Breaks
from purpleteam.core.errors import UsageError
from purpleteam.core.records import record_from_json
from purpleteam.data.images import ImageSet
from purpleteam.models.devices import to_batch
from purpleteam.models.inference import Nets

LADDER = (FGSM(epsilon=0.03), PGD(epsilon=0.03, steps=10))


@pytest.fixture(scope="module")
def found(standard: nn.Module, images: ImageSet) -> RobustEvaluation:
    return evaluate(standard, images, *LADDER)


def test_an_image_is_robust_where_no_attack_of_the_ladder_breaks_it(
    standard: nn.Module, images: ImageSet, found: RobustEvaluation
) -> None:
    alone = [evaluate(standard, images, attack).robust for attack in LADDER]
    assert np.array_equal(found.robust, alone[0] & alone[1])
    assert np.array_equal(found.broken_by == 0, found.clean_correct & ~alone[0])
    assert np.array_equal(found.broken_by == 1, alone[0] & ~alone[1])


def test_robust_accuracy_counts_over_all_images(found: RobustEvaluation) -> None:
    rate, clean = found.robust_accuracy, found.clean_accuracy
    assert rate.n == clean.n == len(found.broken_by) == 60
    assert rate.successes == found.robust.sum()
    assert rate.successes < clean.successes == found.clean_correct.sum() < 60


def test_an_image_that_is_wrong_when_clean_is_never_attacked(
    images: ImageSet, found: RobustEvaluation
) -> None:
    wrong = ~found.clean_correct
    assert wrong.any()
    assert (found.broken_by[wrong] == WRONG_WHEN_CLEAN).all()
    assert np.isnan(found.distance[wrong]).all()
    assert np.array_equal(found.x_adv[wrong], images.images[wrong] / np.float32(255))


def test_the_distance_of_what_broke_is_kept_and_nothing_else(
    images: ImageSet, found: RobustEvaluation
) -> None:
    fell = found.broken_by >= 0
    assert fell.any() and np.isnan(found.distance[~fell]).all()
    moved = np.abs(found.x_adv.astype(np.float64) - (images.images / np.float32(255)))
    assert np.allclose(found.distance[fell], moved.max((1, 2, 3))[fell], atol=1e-12)


def test_what_is_kept_of_a_broken_image_breaks_the_model(
    standard: nn.Module, images: ImageSet, found: RobustEvaluation
) -> None:
    fell = found.broken_by >= 0
    with torch.no_grad():
        labels = standard(torch.from_numpy(found.x_adv).permute(0, 3, 1, 2)).argmax(1).numpy()
    assert np.array_equal(labels != images.labels, fell | ~found.clean_correct)


def test_the_rows_of_the_ladder_count_down_to_the_result(found: RobustEvaluation) -> None:
    first, second = found.attacks
    assert (first.name, first.steps, second.name, second.steps) == ("fgsm", 1, "pgd", 10)
    assert first.survived.successes == (found.broken_by != 0)[found.clean_correct].sum()
    assert second.survived == found.robust_accuracy
    assert second.to_json()["config"]["restarts"] == 1


@pytest.mark.parametrize("batch_size", [1, 7])
def test_the_batch_size_does_not_change_a_verdict(
    standard: nn.Module, images: ImageSet, found: RobustEvaluation, batch_size: int
) -> None:
    again = evaluate(standard, images, *LADDER, batch_size=batch_size)
    assert np.array_equal(again.broken_by, found.broken_by)


def test_each_point_of_a_curve_is_an_evaluation_of_its_own(
    standard: nn.Module, images: ImageSet
) -> None:
    points = curve(standard, images, [PGD(steps=5)], [0.05, 0.02, 0.05], seed=3)
    assert list(points) == [0.02, 0.05]
    alone = {e: evaluate(standard, images, PGD(epsilon=e, steps=5), seed=3) for e in points}
    assert np.array_equal(points[0.02].x_adv, alone[0.02].x_adv)
    assert np.array_equal(points[0.05].robust, alone[0.02].robust & alone[0.05].robust)
    assert points[0.02].robust_accuracy.value > points[0.05].robust_accuracy.value


def found_beside(found: RobustEvaluation, rows: list[int], epsilon: float, far: float) -> Breaks:
    return Breaks(
        epsilon=epsilon,
        rows=np.array(rows),
        by=("soundness/far_start", "soundness/more steps")[: len(rows)],
        x_adv=np.full((len(rows), *found.x_adv.shape[1:]), 0.5, np.float32),
        distance=np.full(len(rows), far),
    )


def test_what_is_found_beside_the_ladder_counts_and_its_rows_stay(found: RobustEvaluation) -> None:
    rows = np.flatnonzero(found.robust)[[0, -1]].tolist()
    counted = found.counting(found_beside(found, rows, 0.03, 0.03 + 1e-9))  # rounding
    assert counted.robust_accuracy.successes == found.robust_accuracy.successes - 2
    assert counted.attacks == found.attacks
    assert [counted.rungs[counted.broken_by[row]] for row in rows] == [
        "soundness/far_start",
        "soundness/more steps",
    ]
    assert (counted.x_adv[rows] == 0.5).all() and (counted.distance[rows] > 0.03).all()
    others = np.setdiff1d(np.arange(60), rows)
    assert np.array_equal(counted.broken_by[others], found.broken_by[others])


def test_what_lies_outside_the_ball_or_fell_already_does_not_count(
    found: RobustEvaluation,
) -> None:
    standing, fell = int(np.flatnonzero(found.robust)[0]), int(np.flatnonzero(~found.robust)[0])
    assert found.counting(None) is found
    assert found.counting(found_beside(found, [standing], 0.1, 0.031)) is found
    assert found.counting(found_beside(found, [standing], 0.1, 0.03)) is not found
    assert found.counting(found_beside(found, [fell], 0.03, 0.01)) is found


def test_outcomes_are_the_same_bytes_each_time(
    standard: nn.Module, images: ImageSet, found: RobustEvaluation, tmp_path: Path
) -> None:
    found.save_outcomes(tmp_path / "new" / "one.npz")
    evaluate(standard, images, *LADDER).save_outcomes(tmp_path / "two.npz")
    assert (tmp_path / "new" / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    with np.load(tmp_path / "two.npz", allow_pickle=False) as rows:
        kept = {"index", "clean_correct", "broken_by", "rungs", "distance", "queries", "steps"}
        assert set(rows) == kept
        assert np.array_equal(rows["broken_by"], found.broken_by)


def test_images_are_kept_without_loss(
    found: RobustEvaluation, images: ImageSet, tmp_path: Path
) -> None:
    found.save_images(tmp_path / "images.npz", images)
    with np.load(tmp_path / "images.npz", allow_pickle=False) as rows:
        assert rows["x_adv"].dtype == np.float32
        assert np.array_equal(rows["x_adv"], found.x_adv)
        clean = images.images / np.float32(255)
        assert np.array_equal(rows["perturbation"], found.x_adv - clean)
        assert "bytes_images" not in rows


def test_as_bytes_they_are_judged_anew(
    standard: nn.Module, images: ImageSet, found: RobustEvaluation, tmp_path: Path
) -> None:
    rounded = found.as_bytes(standard, images)
    moved = np.abs(rounded.images.astype(int) - images.images)
    assert moved.max() <= 0.03 * 255
    with torch.no_grad():
        wrong = standard(to_batch(rounded.images)).argmax(1).numpy() != images.labels
    assert np.array_equal(rounded.breaks, wrong & (found.broken_by >= 0))
    assert 0 < rounded.breaks.sum() <= (found.broken_by >= 0).sum()
    found.save_images(tmp_path / "images.npz", images, rounded)
    with np.load(tmp_path / "images.npz", allow_pickle=False) as rows:
        assert np.array_equal(rows["bytes_images"], rounded.images)


def test_the_record_names_attack_norm_and_epsilon(found: RobustEvaluation) -> None:
    record = found.measurement({"model": "sha256:0"}, seed=0, detail={"more": 1}, curve=True)
    assert record.value == found.robust_accuracy
    assert record.how["attack"] == "fgsm+pgd"
    assert (record.how["norm"], record.how["epsilon"], record.how["curve"]) == ("linf", 0.03, True)
    assert record_from_json(record.to_json()).id == record.id


def test_the_cost_counts_every_call_of_the_model(images: ImageSet) -> None:
    calls: list[int] = []

    def spy(x: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))
        return torch.stack([x.flatten(1).sum(1), 100 * x.flatten(1).std(1)], 1)

    x, y = to_batch(images.images), torch.from_numpy(images.labels % 2)
    nets = Nets.of(spy, x)
    calls.clear()  # not those that look at the model beforehand
    found = FGSM(epsilon=0.1).run(nets, x, y)
    assert sum(calls) == found.cost.forward >= found.cost.backward == len(x)


def test_a_ladder_needs_an_attack_and_one_ball(standard: nn.Module, images: ImageSet) -> None:
    with pytest.raises(UsageError, match="not no attack"):
        evaluate(standard, images)
    with pytest.raises(UsageError, match=r"not l2 1, linf 0\.3"):
        evaluate(standard, images, FGSM(), PGD(norm="l2", epsilon=1.0))


def test_an_image_that_still_stands_was_not_broken(found: RobustEvaluation) -> None:
    assert np.array_equal(found.robust, found.broken_by == NOT_BROKEN)
    assert not (found.robust & ~found.clean_correct).any()


def test_an_image_gets_its_own_noise_wherever_it_lies(
    standard: nn.Module, images: ImageSet
) -> None:
    attack = PGD(epsilon=0.03, steps=2)
    x, y = to_batch(images.images), torch.from_numpy(images.labels.copy())
    whole = attack.run(standard, x, y, index=torch.arange(60))
    part = attack.run(standard, x[40:], y[40:], index=torch.arange(40, 60))
    torch.testing.assert_close(part.x_adv, whole.x_adv[40:], rtol=0, atol=1e-6)
