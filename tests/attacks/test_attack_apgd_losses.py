"""What the attacks climb: each loss beside its definition, written out for one image."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from purpleteam.attacks.driver import cross_entropy, dlr, margin, targeted_dlr, targeted_margin

FINITE = st.floats(-50, 50, width=32)
LOGITS = arrays("float32", (5,), elements=FINITE)
LABEL = st.integers(0, 4)


def one(loss: object, logits: Tensor, *labels: int) -> float:
    return float(loss(logits.unsqueeze(0), *(torch.tensor([label]) for label in labels)))  # type: ignore[operator]


@settings(max_examples=50)
@given(LOGITS, LABEL)
def test_the_margin_is_positive_exactly_where_the_model_errs(row: object, y: int) -> None:
    logits = torch.as_tensor(row)
    others = [float(value) for label, value in enumerate(logits) if label != y]
    assert one(margin, logits, y) == pytest.approx(max(others) - float(logits[y]))


@settings(max_examples=50)
@given(LOGITS, LABEL, LABEL)
def test_the_ratios_are_margins_over_gaps_between_sorted_logits(
    row: object, y: int, target: int
) -> None:
    logits = torch.as_tensor(row)
    first, _, third, fourth, _ = logits.sort(descending=True).values.double().tolist()
    if first - third > 1e-3:
        assert one(dlr, logits, y) == pytest.approx(
            one(margin, logits, y) / (first - third), rel=1e-4, abs=1e-6
        )
        assert one(targeted_dlr, logits, y, target) == pytest.approx(
            one(targeted_margin, logits, y, target) / (first - (third + fourth) / 2),
            rel=1e-4,
            abs=1e-6,
        )


@settings(max_examples=50)
@given(LABEL, st.floats(0.5, 1000), st.floats(-100, 100))
def test_a_ratio_does_not_care_how_confident_the_net_is(y: int, scale: float, shift: float) -> None:
    logits, target = torch.tensor([3.0, -1.0, 0.5, 2.0, 0.0]), (y + 1) % 5
    for loss, labels in ((dlr, (y,)), (targeted_dlr, (y, target))):
        plain = one(loss, logits.double(), *labels)
        assert one(loss, scale * logits.double() + shift, *labels) == pytest.approx(plain)


def test_dlr_is_the_published_number_on_an_image_that_is_right() -> None:
    assert one(dlr, torch.tensor([4.0, 1.0, 0.0, 3.0]), 0) == pytest.approx(-(4 - 3) / (4 - 1))
    assert one(targeted_dlr, torch.tensor([4.0, 1.0, 0.0, 3.0]), 0, 2) == pytest.approx(-4 / 3.5)


def test_every_loss_takes_images_on_their_own() -> None:
    rng = torch.Generator().manual_seed(0)
    logits, y = torch.randn(6, 5, generator=rng), torch.arange(6) % 5
    for loss, extra in ((cross_entropy, ()), (margin, ()), (dlr, ()), (targeted_dlr, (y.flip(0),))):
        whole = loss(logits, y, *extra)
        parts = [
            loss(logits[i : i + 1], y[i : i + 1], *(e[i : i + 1] for e in extra)) for i in range(6)
        ]
        assert whole.shape == (6,) and torch.allclose(whole, torch.cat(parts))


def test_equal_logits_give_a_finite_loss_and_slope() -> None:
    logits, y = torch.zeros(1, 4, requires_grad=True), torch.tensor([0])
    for value in (dlr(logits, y), targeted_dlr(logits, y, y + 1)):
        assert value.item() == 0
        assert torch.isfinite(torch.autograd.grad(value.sum(), logits)[0]).all()
