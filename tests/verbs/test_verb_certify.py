"""certify by smoothing and by the Lipschitz bound: what is told, kept and refused."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from purpleteam import verbs
from purpleteam.core.errors import ConfigError, Refused, UsageError
from purpleteam.core.records import Measurement
from purpleteam.core.schema import misfits
from purpleteam.data.images import ImageSet

Classifier = Callable[[Tensor], Tensor]


def halves() -> ImageSet:
    """Return 12 images (4, 4, 1), brighter on the left or on the right."""
    pixels = np.random.default_rng(0).integers(0, 100, (12, 4, 4, 1)).astype(np.uint8)
    labels = np.arange(12) % 2
    pixels[labels == 0, :, :2] += 60
    pixels[labels == 1, :, 2:] += 60
    return ImageSet(pixels, labels)


def net() -> nn.Module:
    found = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    weight = torch.tensor([1.0, 1.0, -1.0, -1.0]).repeat(4)
    with torch.no_grad():
        found[1].weight.copy_(torch.stack([weight, -weight]))
        found[1].bias.zero_()
    return found


@pytest.mark.parametrize("method", ["smoothing", "lipschitz"])
def test_each_epsilon_has_a_record_that_fits_the_schema(method: str) -> None:
    found = verbs.certify(halves(), model=net(), method=method, epsilon=[0.4, 0.1])
    values = json.loads(json.dumps(found.to_json()))
    assert (values["method"], values["norm"], values["epsilon"]) == (method, "l2", 0.4)
    assert {stage["epsilon"] for stage in values["stages"]} >= {0.1, 0.4, 0.0, 1.0}
    measured = [one for one in found.records if isinstance(one, Measurement)]
    assert [(one.name, one.how.get("epsilon")) for one in measured] == [
        ("clean_accuracy", None),
        ("certified_accuracy", 0.1),
        ("certified_accuracy", 0.4),
    ]
    assert [wrong for one in found.records for wrong in misfits(one)] == []
    assert measured[1].value.value >= measured[2].value.value > 0
    assert values["attacked"] > 0 and found.exit_code == 0


def test_the_smoothed_classifier_is_not_the_model() -> None:
    found = [
        verbs.certify(halves(), model=net(), method="smoothing", sigma=sigma, estimation_samples=60)
        for sigma in (0.1, 0.2)
    ]
    assert len({one.values["subject"]["model"] for one in found}) == 2
    assert [one.values["sigma"] for one in found] == [0.1, 0.2]
    assert "smoothed by 0.1" in found[0].values["subject"]["model_name"]


def test_a_bound_that_is_not_sound_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("purpleteam.certify.lipschitz.ROUNDING", -0.9)
    with pytest.raises(Refused, match=r"certificates of lipschitz do not hold: within 1 in l2"):
        verbs.certify(halves(), model=net(), method="lipschitz", epsilon=1.0)


def test_a_model_that_only_answers_is_smoothed_and_not_attacked() -> None:
    module = net()

    def answers(x: Tensor) -> Tensor:
        with torch.no_grad():
            return module(x)

    found = verbs.certify(halves(), model=answers, method="smoothing", epsilon=0.1)
    assert found.values["certified_accuracy"]["value"] > 0 and found.values["attacked"] == 0
    assert any("no attack was made" in note for note in found.notes)


def test_an_option_of_another_method_or_out_of_range_is_named() -> None:
    for asked, said in (
        ({"method": "lipschitz", "sigma": 0.1}, "--sigma is no option of method 'lipschitz'"),
        ({"method": "dpa", "epsilon": 0.1}, "--epsilon is no option of method 'dpa'"),
        ({"method": "smoothing", "norm": "linf"}, "--norm is no option of method 'smoothing'"),
        ({"method": "lipschitz", "epsilon": -1.0}, "at least 0, not -1"),
    ):
        with pytest.raises(UsageError, match=said):
            verbs.certify(
                halves(), **({} if asked["method"] == "dpa" else {"model": net()}), **asked
            )
    with pytest.raises(ConfigError, match="sigma must be above 0"):
        verbs.certify(halves(), model=net(), method="smoothing", sigma=0.0)
