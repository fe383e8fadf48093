"""What the app answers where a second net or the model itself doubts that there is a digit."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from serve_tiny_model import write_linear_model

from purpleteam.core.cards import find_stored, zoo_names
from purpleteam.core.errors import ModelError, Refused, UsageError
from purpleteam.data.drawing import fitted, place, redraw, strokes
from purpleteam.data.sources.digits import load_digits
from purpleteam.defences.detection.strip import Strip
from purpleteam.serve import doubt
from purpleteam.serve.calibrate import calibrated
from purpleteam.serve.doubt import DigitOrNot, Thresholds, digit_share
from purpleteam.serve.engine import Engine, open_session
from purpleteam.serve.main import running_app

RESULTS = Path(__file__).parents[2] / "results" / "refusal.json"
OCTETS = {"content-type": "application/octet-stream"}
SEVEN = [[(60.0, 60.0), (200.0, 60.0), (110.0, 240.0)]]
STAR = [
    [(140.0, 40.0), (200.0, 230.0), (40.0, 110.0), (240.0, 110.0), (80.0, 230.0), (140.0, 40.0)]
]
LETTER_K = [[(80.0, 40.0), (80.0, 240.0)], [(190.0, 40.0), (80.0, 140.0), (200.0, 240.0)]]


@pytest.fixture
def doubting(model: Path, engine: Engine, tmp_path: Path) -> Callable[..., Engine]:
    """The tiny model beside a second net that takes every drawing for a digit so far."""

    def make(ink: bytes, share: float, strip: Strip | None = None) -> Engine:
        drawn = np.frombuffer(ink, np.uint8) / np.float32(255)
        weight = np.zeros((784, 11), np.float32)
        weight[:, 10] = drawn / (drawn @ drawn) * math.log(10 * (1 - share) / share)
        second = write_linear_model(tmp_path, weight, (1, 28, 28))
        refusal = {"net": doubt.DIGEST, "sure": math.log(0.5), "nearest": math.log(0.1)}
        session, other = (open_session(find_stored(str(one))) for one in (model, second))
        return Engine(
            replace(engine.card, refusal=refusal), session, strip, digit_or_not=DigitOrNot(other)
        )

    return make


@pytest.mark.parametrize(
    ("share", "label", "reason", "nearest"),
    [(0.9, 0, None, None), (0.3, None, "unsure", 0), (0.01, None, "not_a_digit", None)],
)
def test_the_less_it_looks_like_a_digit_the_less_is_told(
    doubting: Callable[..., Engine],
    upper: bytes,
    share: float,
    label: int | None,
    reason: str | None,
    nearest: int | None,
) -> None:
    found = doubting(upper, share).classify(upper)
    assert (found.label, found.reason, found.nearest) == (label, reason, nearest)


def test_over_http_the_nearest_label_stands_beside_the_reason(
    doubting: Callable[..., Engine], upper: bytes
) -> None:
    with running_app(doubting(upper, 0.3)) as url:
        reply = httpx.post(f"{url}/predict", content=upper, headers=OCTETS)
        facts = httpx.get(f"{url}/version").json()
    assert reply.json() == {"label": None, "reason": "unsure", "nearest": 0}
    assert facts["refusal"]["sure"] == math.log(0.5)


def test_the_label_that_a_trigger_forces_is_not_told_as_the_nearest(
    doubting: Callable[..., Engine], upper: bytes
) -> None:
    strip = Strip(
        overlays=np.zeros((2, 28, 28, 1), np.uint8),
        threshold=100.0,
        false_rejection_rate=0.01,
        calibrated_on=100,
        model_digest=None,
    )
    found = doubting(upper, 0.3, strip).classify(upper)
    assert (found.label, found.reason, found.nearest) == (None, "triggered", None)


def test_a_model_without_thresholds_is_served_by_the_rules_and_says_so(engine: Engine) -> None:
    with running_app(engine) as url:
        assert httpx.get(f"{url}/version").json()["refusal"] == "rules"


def test_a_digit_has_its_share_of_eleven() -> None:
    assert digit_share([0.0] * 11) == pytest.approx(10 / 11)
    assert digit_share([0.0] * 10 + [1000.0]) == 0.0


@pytest.mark.parametrize(
    ("refusal", "told"),
    [
        ({}, "needs net, nearest and sure"),
        ({"net": doubt.DIGEST, "nearest": "low", "sure": -1}, "needs net, nearest and sure"),
        ({"net": doubt.DIGEST, "nearest": -1, "sure": -2}, "nearest -1 and sure -2"),
        ({"net": doubt.DIGEST, "nearest": -1, "sure": float("nan")}, "nearest -1 and sure nan"),
        ({"net": "sha256:1", "nearest": -2, "sure": -1}, "calibrated with sha256:1"),
    ],
)
def test_a_card_that_says_nonsense_of_refusal_is_a_clear_error(
    refusal: dict[str, object], told: str
) -> None:
    with pytest.raises(ModelError, match=f"'tiny'.*{told}"):
        Thresholds.of(refusal, "tiny")


@pytest.fixture(scope="module")
def digits() -> list[np.ndarray]:
    """Embedded digits of 8x8 pixels, as the page would send them."""
    return [place(redraw(image, size=160)) for image in load_digits().test.images[:200, ..., 0]]


def test_thresholds_are_those_that_refuse_so_many_of_the_digits(
    model: Path, digits: list[np.ndarray]
) -> None:
    stored = find_stored(str(model))
    refusal = calibrated(stored, digits, refused=0.1, untold=0.02)
    replace(stored.card, refusal=refusal).write(model.parent / "own.json")
    for end in (".onnx", ".safetensors"):
        (model.parent / f"own{end}").write_bytes(model.with_suffix(end).read_bytes())
    answers = [Engine.load(str(model.parent / "own")).classify(one.tobytes()) for one in digits]
    assert sum(one.label is None for one in answers) <= 20
    assert sum(one.label is None and one.nearest is None for one in answers) <= 4


def test_too_few_digits_choose_no_threshold(model: Path, digits: list[np.ndarray]) -> None:
    with pytest.raises(UsageError, match=r"200 images cannot tell a share of 0\.001"):
        calibrated(find_stored(str(model)), digits)


def test_an_exchanged_second_net_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doubt, "DIGEST", "sha256:0")
    with pytest.raises(Refused, match="not the file of the package"):
        doubt.read_net()


@pytest.mark.parametrize("name", zoo_names())
def test_each_model_of_the_package_tells_a_seven_from_a_star_and_a_letter(name: str) -> None:
    engine = Engine.load(name)
    labels = [engine.classify(shown(lines)).label for lines in (SEVEN, STAR, LETTER_K)]
    assert labels == [7, None, None]


def shown(lines: list[list[tuple[float, float]]]) -> bytes:
    moved, widths = fitted(lines)
    return place(strokes(moved, width=widths)).tobytes()


@pytest.mark.parametrize("name", zoo_names())
def test_what_is_published_was_measured_with_the_thresholds_that_are_served(name: str) -> None:
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    card = find_stored(name).card
    assert found["net"]["digest"] == doubt.DIGEST
    assert (found["models"][name]["digest"], found["models"][name]["thresholds"]) == (
        card.digest,
        card.refusal,
    )
