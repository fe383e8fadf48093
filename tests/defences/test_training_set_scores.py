"""What each detector of poisoned images computes, against closed forms and brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import nn

from purpleteam.data.images import ImageSet
from purpleteam.defences.detection.recovered import RecoveredTrigger
from purpleteam.defences.detection.training_set._analysis import (
    margins,
    out_of_part_votes,
    patch_features,
    penultimate,
    pixel_features,
)
from purpleteam.defences.detection.training_set._groups import (
    compact_groups,
    contents_in_turn,
    shared_group,
    split_along,
    whiten,
)
from purpleteam.defences.detection.training_set.activation_clustering import two_clusters
from purpleteam.defences.detection.training_set.label_errors import confident_labels
from purpleteam.defences.detection.training_set.mask_removal import mask_removal_scores
from purpleteam.defences.detection.training_set.scan import anomaly_index, two_groups
from purpleteam.defences.detection.training_set.spectral_signatures import (
    spectral_signature_scores,
)
from purpleteam.defences.detection.training_set.spectre import (
    quantum_entropy_scores,
    robustly_whitened,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def a_group_among(n: int = 400, members: int = 20, d: int = 12, shift: float = 8.0) -> np.ndarray:
    """Return normal rows, the first `members` of them moved along the first axis."""
    rows = rng().normal(size=(n, d)).astype(np.float32)
    rows[:members, 0] += shift
    return rows


@given(some.integers(0, 10_000))
@settings(max_examples=20)
def test_a_spectral_signature_is_the_centred_projection_and_ignores_the_mean(seed: int) -> None:
    rows = rng(seed).normal(size=(30, 5)) * [5, 2, 1, 1, 1] + 40
    centred = rows - rows.mean(0)
    _, _, right = np.linalg.svd(centred, full_matrices=False)
    brute = np.array([float(right[0] @ row) ** 2 for row in centred])
    assert spectral_signature_scores(rows) == pytest.approx(brute)
    assert spectral_signature_scores(rows + 1000) == pytest.approx(brute, rel=1e-6, abs=1e-6)


def test_two_clusters_are_told_apart_and_the_smaller_one_is_the_suspect() -> None:
    rows = a_group_among(shift=30.0)
    nearness, share = two_clusters(rows)
    assert share == 20 / 400
    assert (nearness[:20] > 0).all() and (nearness[20:] < 0).all()


def test_trimmed_whitening_makes_the_bulk_round_and_leaves_the_group_outside() -> None:
    stretched = a_group_among(shift=0.0) * np.linspace(1, 30, 12, dtype=np.float32)
    stretched[:20, 0] += 12  # small against the other columns, large against its own
    white = robustly_whitened(stretched, components=12, trim=0.1)
    scores = quantum_entropy_scores(white)
    assert set(np.argsort(-scores)[:20]) == set(range(20))
    plain = spectral_signature_scores(stretched)
    assert len(set(np.argsort(-plain)[:20]) & set(range(20))) < 5  # unwhitened, it is lost


def test_quantum_entropy_scores_are_the_quadratic_form_of_the_exponential() -> None:
    white = rng(1).normal(size=(60, 4)) * [1, 1, 1, 3]
    covariance = white.T @ white / len(white)
    excess = (covariance - np.eye(4)) / (np.linalg.eigvalsh(covariance)[-1] - 1)
    values, vectors = np.linalg.eigh(excess)
    middle = vectors @ np.diag(np.exp(4 * np.clip(values, -1, 1))) @ vectors.T
    middle /= np.trace(middle)
    assert quantum_entropy_scores(white) == pytest.approx([row @ middle @ row for row in white])


def test_two_groups_find_the_split_and_its_likelihood_ratio() -> None:
    statistic, towards = two_groups(a_group_among(shift=10.0))
    assert set(np.flatnonzero(towards > 0)) == set(range(20))
    rows = a_group_among(shift=10.0).astype(float)
    parts = (rows[:20], rows[20:])
    within = sum(float(((part - part.mean(0)) ** 2).sum()) for part in parts)
    assert statistic == pytest.approx(((rows - rows.mean(0)) ** 2).sum() - within)


def test_the_anomaly_index_counts_deviations_of_the_median() -> None:
    assert anomaly_index(np.array([1.0, 2.0, 3.0, 4.0, 13.0]))[-1] == pytest.approx(10 / 1.4826)


def test_a_label_is_confidently_read_from_the_mean_of_its_own_rows_on() -> None:
    probabilities = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.1, 0.9], [0.4, 0.6]])
    labels = np.array([0, 0, 0, 1, 1])  # thresholds: 0.6 for class 0, 0.75 for class 1
    assert confident_labels(probabilities, labels).tolist() == [0, 0, 1, 1, -1]


def test_a_margin_is_the_own_score_less_the_best_other() -> None:
    table = np.log([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]])
    found, rival = margins(table, np.array([0, 2]))
    assert found == pytest.approx([np.log(3.5), np.log(1 / 7)]) and rival.tolist() == [1, 0]


def test_a_mislabelled_row_is_outvoted() -> None:
    labels = rng(2).integers(0, 3, 300)
    rows = (np.eye(3)[labels] * 3 + rng(3).normal(size=(300, 3)) * 0.1).astype(np.float32)
    wrong = labels.copy()
    wrong[0] = (labels[0] + 1) % 3
    votes = out_of_part_votes(rows, wrong, 3, parts=10, seed=0)
    assert votes.sum(1) == pytest.approx(np.ones(300))
    assert (votes.argmax(1) == labels).all()


def test_no_part_votes_on_its_own_rows() -> None:
    labels = rng(2).integers(0, 2, 300)
    rows = np.eye(3, dtype=np.float32)[labels]
    rows[0], labels[0] = [0, 0, 3], 2  # the only row of its label: only its own part knows it
    votes = out_of_part_votes(rows, labels, 3, parts=10, seed=0)
    assert votes[0, 2] == 0


def test_what_contradicted_images_share_is_found_and_chance_is_not() -> None:
    labels = np.arange(600) % 2
    rows = rng(4).normal(size=(600, 30)).astype(np.float32)
    suspects = np.arange(0, 80, 2)
    trusted = np.setdiff1d(np.arange(600), suspects)
    alone = whiten(rows, labels, labels, trusted)
    rows[suspects[:30], 3] += 6
    planted = whiten(rows, labels, labels, trusted)
    found = [shared_group(white, suspects, 0, "f", starters=20) for white in (planted, alone)]
    assert found[0] is not None and set(found[0].members) == set(suspects[:30])
    assert found[0].strength > 4 and 0.6 < found[0].apartness < 1.6
    assert found[1] is not None and found[1].strength < 1.5


def test_a_member_is_scored_against_the_others_alone() -> None:
    labels = np.zeros(200, np.int64)
    white = whiten(rng(5).normal(size=(200, 8)).astype(np.float32), labels, labels, np.arange(200))
    members = np.setdiff1d(np.arange(200), white.check)[:3]  # the check sets only the scale
    mean = white.rows[members[1:]].mean(0)
    everyone = white.rows @ white.rows[members].mean(0)
    middle = np.median(everyone[white.check])
    deviation = np.quantile(np.abs(everyone[white.check] - middle), 0.6827)
    brute = (float(white.rows[members[0]] @ mean) - middle) / deviation
    assert white.scores(members, 0)[members[0]] == pytest.approx(brute, rel=1e-4)


def test_certain_suspects_come_first_and_each_content_in_turn() -> None:
    suspicion = np.array([9.0, 8.0, 7.0, 6.0, 1.0])
    content = np.array([2, 2, 2, 3, 3])
    found = contents_in_turn(np.arange(5), suspicion, content, certain=5.0)
    assert found.tolist() == [0, 3, 1, 2, 4]


def test_a_tight_group_has_a_wide_gap_and_a_tail_has_none() -> None:
    values = rng(6).normal(size=2000)
    tail, _ = split_along(values)
    planted, towards = split_along(np.concatenate([values, 60 + rng(7).normal(size=40)]))
    assert tail < 3 and planted > 20
    assert (towards > 0.5).sum() == 40


def test_a_compact_group_is_found_in_the_label_that_holds_it() -> None:
    labels = rng(8).integers(0, 3, 1500)
    rows = rng(9).normal(size=(1500, 10)).astype(np.float32)
    planted = np.flatnonzero(labels == 1)[:30]
    rows[planted] += np.linspace(5, 9, 10, dtype=np.float32)
    found = {one.label: one for one in compact_groups(rows, labels, 3)}
    assert set(found[1].members) == set(planted)
    assert found[1].gap > 5 > 3 > max(found[0].gap, found[2].gap)


def test_a_compact_group_is_found_across_what_all_labels_vary_in() -> None:
    labels = rng(8).integers(0, 3, 1500)
    rows = rng(9).normal(size=(1500, 30)).astype(np.float32)
    rows[:, 1:] *= 8  # styles of handwriting, which every label has
    planted = np.flatnonzero(labels == 1)[:30]
    rows[planted, 0] += 12
    found = {one.label: one for one in compact_groups(rows, labels, 3)}
    assert set(found[1].members) == set(planted)
    assert found[1].gap > 5


def test_features_are_seeded_and_know_no_label() -> None:
    images = rng(10).integers(0, 256, (20, 12, 12, 3)).astype(np.uint8)
    found = patch_features(images, filters=8, pools=2, seed=3)
    assert found.shape == (20, 32)
    assert np.array_equal(found, patch_features(images, filters=8, pools=2, seed=3))
    assert pixel_features(images).shape == (20, 12 * 12 * 3)
    large = rng(11).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    assert pixel_features(large).shape[1] <= 1200


def test_penultimate_features_are_what_enters_the_last_layer() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    images = rng(12).integers(0, 256, (5, 2, 2, 1)).astype(np.uint8)
    with torch.no_grad():
        by_hand = net[:3](torch.from_numpy(images).float().permute(0, 3, 1, 2) / 255)
    assert penultimate(net, images) == pytest.approx(by_hand.numpy())


def test_an_image_that_leans_on_the_trigger_loses_its_label_with_it() -> None:
    images = np.zeros((3, 2, 2, 1), np.uint8)
    images[0, 0, 0] = images[2, 0, 0] = 255  # the trigger: the first pixel
    images[1, 1, 1] = 255  # what a true image of the label shows
    mask = np.array([[1, 0], [0, 0]], np.float32)
    trigger = RecoveredTrigger(
        kind="patch", target_label=1, mask=mask, pattern=np.ones((1, 2, 2), np.float32)
    )
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[0.0, 0, 0, 0], [20.0, 0, 0, 20]]))
        net[1].bias.copy_(torch.tensor([0.0, -10]))
    set_of_three = ImageSet(images, np.array([1, 1, 0], np.int64))
    scores = mask_removal_scores(net, set_of_three, trigger, torch.zeros(1, 2, 2))
    assert scores == pytest.approx([1, 0, 0], abs=1e-3)
