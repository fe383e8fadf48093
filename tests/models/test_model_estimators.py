"""Classifiers with scikit-learn's methods: what is asked of them, and whose word counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from models_tiny import bars

from purpleteam.core.errors import ModelError, UsageError
from purpleteam.models import load
from purpleteam.models.estimators import ask_estimator
from purpleteam.models.inference import correct

X = torch.rand(6, 1, 2, 2, generator=torch.Generator().manual_seed(0))


class Votes:
    """Its label is not that of its greatest score."""

    classes_ = np.array(["no", "yes", "perhaps"])
    shares: Any = (0.5, 0.2, 0.3)

    def predict(self, rows: Any) -> Any:
        return np.array(["perhaps"] * len(rows))

    def predict_proba(self, rows: Any) -> Any:
        assert rows.shape[1:] == (4,) and rows.dtype == np.float32
        return np.tile(self.shares, (len(rows), 1))


@pytest.mark.parametrize("shares", [(0.5, 0.2, 0.3), (1.0, 0.0, 0.0), (1 / 3, 1 / 3, 1 / 3)])
def test_predict_has_the_last_word_on_the_label(shares: Any) -> None:
    votes = Votes()
    votes.shares = shares
    loaded = load(votes, shape=(1, 2, 2))
    scores = loaded.module(X)
    assert scores.argmax(1).tolist() == [2] * 6 and loaded.names == ("no", "yes", "perhaps")
    torch.testing.assert_close(scores[:, 0].exp(), torch.full((6,), shares[0]))


def test_a_rows_order_is_channels_rows_columns() -> None:
    class First(Votes):
        def predict_proba(self, rows: Any) -> Any:
            seen.append(rows)
            return super().predict_proba(rows[:, :4])

    seen: list[Any] = []
    x = torch.linspace(0, 1, 24).reshape(2, 3, 2, 2)
    ask_estimator(First(), x)
    assert np.array_equal(seen[0], x.flatten(1).numpy())


def test_of_two_classes_one_column_is_both_and_votes_of_pairs_are_labels() -> None:
    class Margin:
        classes_ = np.array([0, 1])

        def decision_function(self, rows: Any) -> Any:
            return rows.sum(1) - 2

        def predict(self, rows: Any) -> Any:
            return (rows.sum(1) > 2).astype(int)

    class Pairs(Margin):
        classes_ = np.array([0, 1, 2, 3])

        def decision_function(self, rows: Any) -> Any:
            return np.zeros((len(rows), 6))

    total = X.flatten(1).sum(1)
    torch.testing.assert_close(ask_estimator(Margin(), X)[:, 1], total - 2)
    assert ask_estimator(Pairs(), X).argmax(1).tolist() == (total > 2).long().tolist()


def test_what_is_not_fitted_or_no_classifier_is_told_in_a_line() -> None:
    class Regressor:
        def predict(self, rows: Any) -> Any:
            return rows.sum(1)

    class Many(Votes):
        def predict(self, rows: Any) -> Any:
            return np.zeros((len(rows), 2))

    with pytest.raises(ModelError, match="no `classes_` says of which: fit it first"):
        load(Regressor(), shape=(1, 2, 2))
    with pytest.raises(ModelError, match=r"predict returned \(4, 2\), not one class"):
        load(Many(), shape=(1, 2, 2))
    with pytest.raises(UsageError, match="not a classifier that is called with images"):
        load(object())


@pytest.mark.parametrize("kind", ["forest", "logistic", "vectors", "calibrated", "nearest"])
def test_scikit_learns_own_say_what_they_predict(kind: str) -> None:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    made = {
        "forest": RandomForestClassifier(5, random_state=0),
        "logistic": LogisticRegression(),
        "vectors": make_pipeline(StandardScaler(), SVC(decision_function_shape="ovo")),
        "calibrated": CalibratedClassifierCV(LogisticRegression(), cv=2),
        "nearest": KNeighborsClassifier(3),
    }[kind]
    images = bars(60)
    rows = images.images.reshape(60, -1) / 255
    model = made.fit(rows[:40], images.labels[:40])
    found = correct(load(model, shape=(1, 12, 12)).module, images)
    assert found.tolist() == (model.predict(rows) == images.labels).tolist()
