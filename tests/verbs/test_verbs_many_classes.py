"""What verbs print of many classes is bounded, and calls them by their names."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from purpleteam.core.statistics import Rate
from purpleteam.data.images import Dataset, ImageSet
from purpleteam.verbs import evaluate
from purpleteam.verbs.poison import Poisoned

COUNT = 300


def many() -> Dataset:
    labels = np.arange(3 * COUNT) % COUNT
    images = np.random.default_rng(0).integers(0, 256, (3 * COUNT, 4, 4, 3)).astype(np.uint8)
    whole = ImageSet(images, labels)
    parts = [whole.part(n * COUNT, (n + 1) * COUNT) for n in range(3)]
    return Dataset("many", *parts, tuple(f"kind {number}" for number in range(COUNT)))


def test_an_evaluation_of_many_classes_prints_the_worst_and_records_no_row_for_each() -> None:
    torch.manual_seed(0)
    found = evaluate(nn.Sequential(nn.Flatten(), nn.Linear(48, COUNT)), many())
    printed = "\n".join(found.lines())
    assert "the 20 classes of least recall, of 300:" in printed and "kind " in printed
    assert len(printed.splitlines()) < 40 and len(found.records) < 10
    assert len(found.values["per_class"]) == COUNT
    (matrix,) = (one for one in found.records if getattr(one, "name", "") == "confusion_matrix")
    assert matrix.detail["classes"][7] == "kind 7"  # type: ignore[attr-defined]


def test_a_backdoor_is_told_by_the_names_of_its_true_classes() -> None:
    rate = Rate.of(1, 2).to_json()
    names = ("dataset", "poison", "poisoned", "cover", "target_label")
    values = dict.fromkeys(names, 1) | {"shows": "trigger", "classes": list(many().classes)}
    rates = ("clean_accuracy", "attack_success_rate", "base_rate", "triggered_accuracy")
    values |= dict.fromkeys(rates, rate) | {"per_source": dict.fromkeys(range(COUNT), rate)}
    lines = Poisoned(values=values, records=(), notes=()).lines()
    assert any("kind 0" in line for line in lines)
    assert lines[-1].strip() == "and 280 more: in --json" and len(lines) < 40
