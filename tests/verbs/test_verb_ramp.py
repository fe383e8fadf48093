"""Of a model behind an input ramp, the same weights without it are always told beside it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from torch import nn

import purpleteam as pt
from purpleteam.data.images import Dataset, ImageSet
from purpleteam.models.adapters import Normalisation
from purpleteam.models.guard import Guarded, Order
from purpleteam.models.inference import correct
from purpleteam.models.loading import load
from purpleteam.verbs.result import Result

VERBS: dict[str, Callable[..., Result]] = {
    "evaluate": pt.evaluate,
    "attack": partial(pt.attack, attack="fgsm", epsilon=0.1),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_ramped_model_is_measured_without_its_ramp_too(
    here: object, net: nn.Module, few: Dataset, images: ImageSet, verb: str
) -> None:
    found = VERBS[verb](net, few, normalise="ramp=0.1")
    told = found.values["without_ramp"]["clean_accuracy"]
    assert told["value"] == correct(net, images).mean() and "without the ramp" in str(found)
    about = {record.name: record.subject for record in found.records if hasattr(record, "subject")}
    (bare,) = (name for name in about if name.endswith("_without_ramp"))
    behind, alone = about[bare.removesuffix("_without_ramp")], about[bare]
    assert behind == {**alone, "normalisation": {"mean": [0.1], "std": [0.8], "clip": True}}


@pytest.mark.parametrize("verb", VERBS)
def test_of_another_model_there_is_nothing_beside(
    here: object, net: nn.Module, few: Dataset, verb: str
) -> None:
    assert "without_ramp" not in VERBS[verb](net, few, normalise="mean=0,std=1").values


def test_without_its_ramp_a_model_keeps_its_order_of_classes(net: nn.Module) -> None:
    loaded = load(net, normalisation=Normalisation.ramp(0.1))
    names = tuple("abcdefghij")
    bare = loaded.in_order_of(names[::-1], "data", names).without_ramp()
    assert bare is not None and isinstance(bare.module, Guarded)
    assert isinstance(bare.module.order, Order) and bare.module.order.places[0] == 9
    assert bare.normalisation is None and bare.digest == loaded.digest
    assert bare.without_ramp() is None
