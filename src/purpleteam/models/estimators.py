"""Classifiers with scikit-learn's methods: `predict_proba`, `decision_function` or `predict`.

They get each image as a row of C * H * W numbers in [0, 1], channels first. Scores are what the
first of these gives that there is, of probabilities their logarithms; `predict` has the last word
on the label, as some decide by votes or by a threshold. Nothing is unpickled: the user's factory
makes or loads what is asked.
"""

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from purpleteam.core.errors import ModelError
from purpleteam.models.guard import scores_in

SCORES = ("predict_proba", "decision_function")
LEAD = 1e-5  # by which the label's score is raised above the greatest, of that where it is above 1


def is_estimator(made: object) -> bool:
    """Say whether an object is asked by scikit-learn's methods, and not called."""
    asked = any(callable(getattr(made, name, None)) for name in (*SCORES, "predict"))
    return asked and not callable(made)


def gives_of(model: object) -> Literal["labels", "scores"]:
    """Return what it tells of an image."""
    return "scores" if any(hasattr(model, name) for name in SCORES) else "labels"


def ask_estimator(model: Any, x: Tensor) -> Tensor:
    """Return the scores (N, classes) of images (N, C, H, W); of labels alone they are one-hot."""
    rows = x.detach().cpu().flatten(1).numpy().copy()
    known, hits, scores = getattr(model, "classes_", None), None, None
    if known is not None and hasattr(model, "predict"):
        labels = np.asarray(model.predict(rows))
        if labels.shape != (len(x),) or np.ndim(known) != 1:
            raise ModelError(f"predict returned {labels.shape}, not one class for each image")
        hits = torch.from_numpy(labels[:, None] == np.asarray(known))
        scores = hits.float()
    if name := next((name for name in SCORES if hasattr(model, name)), None):
        given = torch.from_numpy(np.array(getattr(model, name)(rows), np.float32))
        given = torch.stack([-given, given], 1) if given.ndim == 1 else given  # of two classes
        if hits is None or given.shape == hits.shape:  # else it compares classes in pairs
            scores = scores_in(given, len(x))[0]
            if name == SCORES[0]:
                scores = scores.clamp_min(torch.finfo(scores.dtype).tiny).log()
    if scores is None:
        raise ModelError("predict gives labels, and no `classes_` says of which: fit it first")
    if hits is not None:
        most = scores.amax(1)
        other = scores.argmax(1) != hits.int().argmax(1)
        above = most + LEAD * most.abs().clamp_min(1)
        scores = torch.where(hits & other[:, None], above[:, None], scores)
    return scores.to(x.device)
