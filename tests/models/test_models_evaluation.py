"""Evaluation against tables counted by hand, scikit-learn and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models_tiny import SHAPE, Says, scores_as_pixels

from purpleteam.core.errors import ModelError
from purpleteam.core.records import Measurement
from purpleteam.core.statistics import Rate
from purpleteam.models import Evaluation, build, evaluate

BY_HAND = scores_as_pixels(
    [[9, 0, 0], [9, 1, 0], [0, 9, 0], [0, 9, 0], [0, 9, 0], [9, 0, 0], [0, 9, 0]],
    [0, 0, 0, 1, 1, 1, 2],
)
"""Three zeros, of which one is read as 1; three ones, of which one is read as 0; a two as 1."""


@pytest.fixture
def found() -> Evaluation:
    return evaluate(Says(), BY_HAND, classes=3)


def test_the_confusion_matrix_has_true_classes_as_rows(found):
    assert found.confusion_matrix.value == ((2, 1, 0), (1, 2, 0), (0, 1, 0))
    assert found.confusion_matrix.n == 7
    assert found.correct.tolist() == [True, True, False, True, True, False, False]
    assert found.clean_accuracy == Rate.of(4, 7)


def test_precision_and_recall_are_rates_of_their_own_cases(found):
    assert [one.precision for one in found.per_class] == [Rate.of(2, 3), Rate.of(2, 4), None]
    assert [one.recall for one in found.per_class] == [Rate.of(2, 3), Rate.of(2, 3), Rate.of(0, 1)]
    assert [one.f1.value for one in found.per_class] == pytest.approx([2 / 3, 4 / 7, 0.0])


def test_a_class_without_a_case_has_no_recall():
    found = evaluate(Says(), scores_as_pixels([[9, 0], [9, 0]], [0, 0]), classes=2)
    assert found.per_class[1].recall is None
    assert found.per_class[1].precision is None
    assert found.per_class[1].f1.value == 0.0


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_scores_per_class_agree_with_scikit_learn(cases):
    metrics = pytest.importorskip("sklearn.metrics")
    true, predicted = zip(*cases, strict=True)
    pixels = [[255 * (label == said) for label in range(4)] for said in predicted]
    found = evaluate(Says(), scores_as_pixels(pixels, list(true)), classes=4)
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        true, predicted, labels=range(4), zero_division=0
    )
    table = metrics.confusion_matrix(true, predicted, labels=range(4))
    assert np.array_equal(found.confusion_matrix.value, table)
    for number, one in enumerate(found.per_class):
        assert (one.precision.value if one.precision else 0) == pytest.approx(precision[number])
        assert (one.recall.value if one.recall else 0) == pytest.approx(recall[number])
        assert one.f1.value == pytest.approx(f1[number])
        assert 0 <= one.f1.low <= one.f1.high <= 1


def test_the_loss_is_the_mean_cross_entropy(images):
    net = build("small_cnn", SHAPE, 3, seed=0).eval()
    found = evaluate(net, images, classes=3)
    x = torch.from_numpy(np.array(images.images)).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        loss = torch.nn.functional.cross_entropy(net(x), torch.from_numpy(np.array(images.labels)))
    assert found.loss.value == pytest.approx(float(loss), rel=1e-5)
    assert found.loss.low < found.loss.value < found.loss.high


def sure_of(confidence: float) -> float:
    """Return the factor by which `Says` is so sure of a pixel of 255 against one of 0."""
    return math.log(confidence / (1 - confidence))


@pytest.mark.parametrize(("confidence", "right"), [(0.8, 5), (0.8, 8), (0.8, 10), (0.95, 3)])
def test_calibration_error_of_one_confidence_is_its_distance_from_the_accuracy(confidence, right):
    cases = scores_as_pixels([[255, 0]] * 10, [0] * right + [1] * (10 - right))
    found = evaluate(Says(sure_of(confidence)), cases, classes=2)
    assert found.calibration_error.value == pytest.approx(abs(confidence - right / 10), abs=1e-6)


def test_calibration_error_weighs_bins_by_their_cases():
    """Six cases at confidence 0.8 with 3 right, four at 0.5 with all right."""
    cases = scores_as_pixels([[255, 0]] * 6 + [[0, 0]] * 4, [0] * 3 + [1] * 3 + [0] * 4)
    found = evaluate(Says(sure_of(0.8)), cases, classes=2)
    assert found.calibration_error.value == pytest.approx(0.6 * 0.3 + 0.4 * 0.5, abs=1e-6)


def test_errors_of_two_bins_do_not_cancel():
    """Too sure in one bin by as much as too shy in the other."""
    cases = scores_as_pixels([[255, 0]] * 4 + [[0, 0]] * 4, [0, 0, 1, 1, 0, 0, 0, 1])
    found = evaluate(Says(sure_of(0.75)), cases, classes=2)
    assert found.calibration_error.value == pytest.approx(0.25, abs=1e-6)


@pytest.mark.parametrize("batch_size", [1, 7, 89, 90, 1000])
def test_verdicts_do_not_hang_on_the_batch_size(images, batch_size):
    net = build("classic_cnn", SHAPE, 3, seed=0)
    found = evaluate(net, images, classes=3, batch_size=batch_size)
    reference = evaluate(net, images, classes=3)
    assert np.array_equal(found.correct, reference.correct)
    assert found.confusion_matrix == reference.confusion_matrix
    assert found.loss.value == pytest.approx(reference.loss.value, rel=1e-5)


def test_an_evaluation_is_a_function_of_model_images_and_seed(images):
    net = build("small_cnn", SHAPE, 3, seed=0)

    def numbers(seed: int) -> list[dict[str, object]]:
        return [
            one.metric() for one in evaluate(net, images, classes=3, seed=seed).measurements({})
        ]

    assert numbers(0) == numbers(0) != numbers(1)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(images, training):
    net = build("residual_cnn", SHAPE, 3, seed=0).train(training)
    net[1].eval()
    first = next(net.parameters()).requires_grad_(False)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    modes = [one.training for one in net.modules()]
    evaluate(net, images, classes=3)
    assert [one.training for one in net.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(one.grad is None for one in net.parameters())
    assert all(one.requires_grad == (one is not first) for one in net.parameters())


@pytest.mark.parametrize("classes", [2, 4])
def test_a_model_of_another_number_of_classes_is_a_clear_error(classes):
    with pytest.raises(ModelError, match=f"scores 3 classes, the images have {classes}"):
        evaluate(Says(), scores_as_pixels([[9, 0, 0]], [0]), classes=classes)


def test_measurements_are_the_same_numbers_about_the_subject(found):
    records = found.measurements({"model": "sha256:m"})
    assert all(isinstance(one, Measurement) for one in records)
    assert all(one.subject == {"model": "sha256:m"} for one in records)
    named = {(one.name, one.how.get("class")): one.value for one in records}
    assert named["clean_accuracy", None] == Rate.of(4, 7)
    assert named["recall", 2] == Rate.of(0, 1)
    assert ("precision", 2) not in named
    assert len(records) == len(named) == 4 + 8


def test_json_has_the_fields_of_the_command(found):
    fields = found.to_json()
    assert set(fields) >= {
        "clean_accuracy",
        "loss",
        "confusion_matrix",
        "per_class",
        "seconds_per_image",
    }
    assert fields["confusion_matrix"] == [[2, 1, 0], [1, 2, 0], [0, 1, 0]]
    assert fields["per_class"][2]["precision"] is None
    assert fields["per_class"][0]["recall"] == Rate.of(2, 3).to_json()
    assert fields["seconds_per_image"] > 0
