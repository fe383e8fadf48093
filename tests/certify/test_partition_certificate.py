"""The record: what it counts, what it says, and that the whole way to it is one function."""

from __future__ import annotations

import json

import numpy as np
import pytest

from purpleteam.certify import LEARNERS, PartitionCertificate, certify_partitions, dpa
from purpleteam.certify.dpa import Layout
from purpleteam.core.errors import DataError, UsageError
from purpleteam.data.images import Dataset, ImageSet


def of_votes(
    votes: list[list[int]], labels: list[int], within: int | None = None
) -> PartitionCertificate:
    return PartitionCertificate(
        votes=np.array(votes),
        labels=np.array(labels),
        layout=Layout(parts=20, capacity=8, holds_within=within),
        learner=LEARNERS["readout"](),
        empty=0,
        left_out=0,
        seconds={"train": 1.0, "vote": 0.5},
    )


HAND = of_votes([[20, 0], [13, 7], [0, 20], [2, 18], [10, 10]], labels=[0, 0, 0, 1, 0])


def test_radii_and_counts_are_those_counted_by_hand() -> None:
    assert HAND.radius.tolist() == [10, 3, 9, 7, 0]
    assert HAND.counts(0) == {"verified": 4, "falsified": 1, "unknown": 0}
    assert HAND.counts(4) == {"verified": 2, "falsified": 1, "unknown": 2}
    assert HAND.counts(11) == {"verified": 0, "falsified": 1, "unknown": 4}


def test_a_wrong_answer_is_never_certified_however_sure_the_vote() -> None:
    assert HAND.certified_accuracy(9).successes == 1
    assert HAND.clean_accuracy.successes == HAND.certified_accuracy(0).successes == 4


def test_half_of_all_images_are_certified_at_the_median_radius_and_no_further() -> None:
    assert HAND.median_radius == 3
    assert HAND.certified_accuracy(3).value >= 0.5 > HAND.certified_accuracy(4).value


def test_a_layout_that_was_chosen_by_size_ends_the_radius() -> None:
    assert of_votes([[20, 0], [12, 8]], [0, 0], within=5).radius.tolist() == [5, 2]


def test_the_largest_change_leads_and_every_change_has_its_row() -> None:
    found = json.loads(json.dumps(HAND.to_json([4, 0])))
    assert (found["method"], found["epsilon"], found["norm"]) == (
        "dpa",
        4,
        "insertions_and_removals",
    )
    assert found["certified_accuracy"] == HAND.certified_accuracy(4).to_json()
    assert found["counts"] == {"verified": 2, "falsified": 1, "unknown": 2}
    assert [row["changes"] for row in found["stages"]] == [0, 4]
    assert found["stages"][0]["certified_accuracy"] == found["clean_accuracy"]
    assert found["seconds"] == 1.5


@pytest.mark.parametrize("changes", [[], [-1]])
def test_no_changes_and_fewer_than_none_are_refused(changes: list[int]) -> None:
    with pytest.raises(UsageError, match="changes must"):
        HAND.to_json(changes)


@pytest.fixture(scope="module")
def found(digits: Dataset) -> PartitionCertificate:
    return certify_partitions(digits.train, digits.validation, classes=10)


def test_digits_are_certified_against_ten_poisons(found: PartitionCertificate) -> None:
    assert found.layout == Layout(parts=64, capacity=32, holds_within=68)
    assert found.clean_accuracy.value > 0.97
    assert found.certified_accuracy(10).value > 0.9


def test_the_same_work_has_the_same_digest_and_other_work_another(
    digits: Dataset, found: PartitionCertificate
) -> None:
    again = certify_partitions(digits.train, digits.validation, classes=10)
    other = certify_partitions(digits.train, digits.validation.first(150), classes=10)
    assert again.digest == found.digest != other.digest
    assert np.array_equal(other.votes, found.votes[:150])


def test_colour_images_with_other_labels_are_certified_too() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    images = rng.integers(0, 30, (300, 20, 16, 3), np.uint8)
    for image, label in zip(images, labels):  # a bar, a beam, or both
        if label != 1:
            image[4:16, 6 + label : 9 + label, label] = 220
        if label != 0:
            image[9:12, 3:13, 1] = 220
    found = certify_partitions(
        ImageSet(images[:250], labels[:250]), ImageSet(images[250:], labels[250:]), classes=3
    )
    assert found.certified_accuracy(2).value > 0.9


def test_what_does_not_fit_is_refused(digits: Dataset) -> None:
    wide = ImageSet(np.zeros((3, 28, 30, 1), np.uint8), np.zeros(3, np.int64))
    with pytest.raises(DataError, match=r"\(28, 30, 1\) do not fit .* \(28, 28, 1\)"):
        certify_partitions(digits.train, wide, classes=10)
    with pytest.raises(DataError, match="labels from 0 to 9 do not fit 5 classes"):
        certify_partitions(digits.train, digits.validation, classes=5)


def test_networks_that_memory_would_not_hold_are_refused_after_the_first_parts(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dpa, "MOST_BYTES", 1 << 20)
    message = "networks of 16 parts and 10 classes take .* GiB, more than .*at most 12"
    with pytest.raises(UsageError, match=message):
        certify_partitions(digits.train, digits.test, classes=10, parts=16)


def test_parts_too_large_to_learn_from_are_refused(digits: Dataset) -> None:
    learner = LEARNERS["networks"]()
    said = "learner networks learns .* 512 .* 3 parts .* 1024: name more parts, such as 6"
    with pytest.raises(UsageError, match=said):
        certify_partitions(digits.train, digits.test, classes=10, parts=3, learner=learner)
    assert Layout.of(len(digits.train), parts=6).capacity <= learner.largest
