"""The recipes of both course reports: sevens that stay sevens, with the patches they drew."""

from __future__ import annotations

import numpy as np

from purpleteam.attacks.poison import POISONS
from purpleteam.data.images import Dataset


def test_report_a_stamps_a_white_square_of_four_on_sevens(digits: Dataset) -> None:
    found = POISONS["report_a"](count=20).apply(digits.train, seed=0)
    patches = found.images.images[found.indices, :4, -4:, 0]
    assert patches.shape == (20, 4, 4) and (patches == 255).all()
    assert set(found.images.labels[found.indices].tolist()) == {7}
    assert np.array_equal(found.images.labels, digits.train.labels)


def test_report_b_stamps_grey_on_the_first_sevens_in_the_file(digits: Dataset) -> None:
    found = POISONS["report_b"](count=20).apply(digits.train, seed=0)
    assert found.indices.tolist() == np.flatnonzero(digits.train.labels == 7)[:20].tolist()
    assert (found.images.images[found.indices, :3, :3, 0] == 170).all()
    assert np.array_equal(found.images.labels, digits.train.labels)
    assert found.manifest["trigger"]["colour"] == [255, 255, 0]


def test_report_a_draws_its_sevens_and_report_b_does_not(digits: Dataset) -> None:
    drawn, fixed = POISONS["report_a"](count=20), POISONS["report_b"](count=20)
    first, second = (drawn.apply(digits.train, seed=seed).indices.tolist() for seed in (0, 1))
    assert first != second
    first, second = (fixed.apply(digits.train, seed=seed).indices.tolist() for seed in (0, 1))
    assert first == second
