"""Sizes become statistics and p-values: by hand-counted answers and by what must not matter."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from purpleteam.defences.detection.model._base import Null, pair_outliers, small_outliers
from purpleteam.defences.detection.model.source_specific import noise_of

NULL = Null(location=1.0, scale=0.5, deviation=0.2)
SIZES = st.floats(-3, 3, allow_nan=False, width=32)


def test_a_class_is_measured_against_the_others_by_hand() -> None:
    found = small_outliers(np.array([-2.0, 1.0, 2.0, 3.0]), NULL)
    spread = 1.4826 * 1.0  # of 1, 2, 3 about their median 2
    deviation = math.sqrt((3 * spread**2 + 5 * 0.2**2) / 8)
    assert found[0] == pytest.approx((2.0 - -2.0) / deviation)


def test_two_classes_are_measured_by_the_usual_deviation() -> None:
    found = small_outliers(np.array([0.0, 1.0]), NULL)
    assert found[0] == pytest.approx(1 / (0.2 * math.sqrt(5 / 6)))
    assert found[1] == -found[0]


@given(arrays(np.float64, 10, elements=SIZES), st.floats(-5, 5))
def test_the_unit_of_size_does_not_matter(log_sizes: np.ndarray, shift: float) -> None:
    assert np.allclose(small_outliers(log_sizes + shift, NULL), small_outliers(log_sizes, NULL))


@given(arrays(np.float64, 10, elements=SIZES), st.permutations(range(10)))
def test_the_order_of_the_classes_does_not_matter(log_sizes: np.ndarray, order: list[int]) -> None:
    assert np.allclose(
        small_outliers(log_sizes[order], NULL), small_outliers(log_sizes, NULL)[order]
    )


@given(arrays(np.float64, 8, elements=SIZES), st.floats(0, 5))
def test_a_smaller_trigger_is_more_suspicious(log_sizes: np.ndarray, less: float) -> None:
    smaller = log_sizes - less * (np.arange(8) == 3)
    assert small_outliers(smaller, NULL)[3] >= small_outliers(log_sizes, NULL)[3] - 1e-9


def test_with_few_trusted_images_a_pair_must_stand_out_further() -> None:
    assert noise_of(100) == noise_of(500) == 1
    assert noise_of(15) == pytest.approx(math.sqrt(2 - 0.15**2))
    assert noise_of(5) > noise_of(15) > noise_of(50) > 1


def test_a_second_backdoor_does_not_hide_the_first() -> None:
    found = small_outliers(np.array([-2.0, -1.9, 0.0, 0.1, 0.2, 0.0, 0.1, -0.1, 0.0, 0.2]), NULL)
    assert set(np.flatnonzero(found > 4)) == {0, 1}


def test_a_standing_counts_in_scales_from_the_location() -> None:
    assert (NULL.standing(1.0), NULL.standing(2.5)) == (0.0, 3.0)


@given(arrays(np.float64, 6, elements=SIZES), arrays(np.float64, 6, elements=SIZES))
def test_what_rows_and_columns_explain_is_not_suspicious(
    rows: np.ndarray, columns: np.ndarray
) -> None:
    sizes = rows[:, None] + columns[None]
    sizes[np.diag_indices(6)] = np.nan
    assert np.nanmax(np.abs(pair_outliers(sizes, NULL))) < 1e-6


def test_one_easy_pair_stands_out_of_its_row_and_its_column() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.normal(0, 0.1, (6, 6)) + np.arange(6)[:, None] - 0.5 * np.arange(6)
    sizes[2, 4] -= 2
    sizes[np.diag_indices(6)] = np.nan
    found = pair_outliers(sizes, NULL)
    assert np.unravel_index(np.nanargmax(found), (6, 6)) == (2, 4)
    assert found[2, 4] > 3 * np.nanmax(np.delete(found.ravel(), 2 * 6 + 4))


def test_two_classes_that_are_near_both_ways_are_less_suspicious_than_a_one_way_door() -> None:
    sizes = np.random.default_rng(1).normal(0, 0.1, (8, 8))
    sizes[2, 4] -= 1
    sizes[np.diag_indices(8)] = np.nan
    one_way = pair_outliers(sizes, NULL)[2, 4]
    sizes[4, 2] -= 1
    assert pair_outliers(sizes, NULL)[2, 4] < one_way / 2


def test_a_pair_that_is_near_in_the_student_too_is_less_suspicious_and_a_far_one_no_more() -> None:
    sizes = np.random.default_rng(1).normal(0, 0.1, (8, 8))
    sizes[2, 4] -= 1
    sizes[np.diag_indices(8)] = np.nan
    alone = pair_outliers(sizes, NULL)[2, 4]
    near, far = np.zeros((2, 8, 8))
    near[2, 4], far[2, 4] = -1, 5
    assert pair_outliers(sizes, NULL, near)[2, 4] < alone / 2
    assert pair_outliers(sizes, NULL, far)[2, 4] == pytest.approx(alone)


def test_a_class_without_images_to_start_from_is_no_pair() -> None:
    sizes = np.random.default_rng(2).normal(0, 0.1, (6, 6))
    sizes[np.diag_indices(6)] = np.nan
    sizes[5] = np.nan
    found = pair_outliers(sizes, NULL)
    assert np.array_equal(np.isnan(found), np.isnan(sizes))


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"scale": 0.0}, "scale must be above 0"), ({"deviation": -1.0}, "deviation must be above 0")],
)
def test_a_null_that_is_none_is_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Null(**{"location": 0.0, "scale": 1.0, "deviation": 1.0} | fields)
