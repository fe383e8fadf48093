"""The app with STRIP: what carries a trigger gets no label, and nothing else changes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from serve_tiny_model import halves, write_linear_model

from purpleteam.core.cards import find_stored
from purpleteam.core.errors import DataError, UsageError
from purpleteam.data.images import Dataset, ImageSet
from purpleteam.data.sources.digits import load_digits
from purpleteam.defences.detection.strip import Strip
from purpleteam.defences.detection.strip_fit import fit_strip
from purpleteam.models import RECIPES, Provenance, build, store, train
from purpleteam.serve.engine import Engine
from purpleteam.serve.main import running_app

OCTETS = {"content-type": "application/octet-stream"}
ALL, NOTHING = 100.0, 0.0
"""Thresholds in bits: every entropy of ten classes is below the one, none below the other."""


def strip_of(model: Path, threshold: float) -> Strip:
    return Strip(
        overlays=np.zeros((2, 28, 28, 1), np.uint8),
        threshold=threshold,
        false_rejection_rate=0.01,
        calibrated_on=100,
        model_digest=find_stored(str(model)).card.digest,
    )


@pytest.fixture
def guarded(model: Path, tmp_path: Path) -> Callable[[float], Engine]:
    def load(threshold: float) -> Engine:
        strip_of(model, threshold).save(tmp_path / "strip")
        return Engine.load(str(model), tmp_path / "strip")

    return load


def test_an_image_below_the_threshold_is_answered_as_triggered(
    guarded: Callable[[float], Engine], upper: bytes
) -> None:
    with running_app(guarded(ALL), expose_confidences=True) as url:
        reply = httpx.post(f"{url}/predict", content=upper, headers=OCTETS)
        facts = httpx.get(f"{url}/version").json()
    assert (reply.status_code, reply.json()) == (200, {"label": None, "reason": "triggered"})
    assert facts["strip"] is True


def test_an_image_above_it_is_answered_as_without(
    guarded: Callable[[float], Engine], engine: Engine, upper: bytes
) -> None:
    assert guarded(NOTHING).classify(upper) == engine.classify(upper)


@pytest.mark.parametrize(("ink", "reason"), [(0, "empty"), (255, "not_a_digit")])
def test_what_is_no_digit_is_said_to_be_none(
    guarded: Callable[[float], Engine], ink: int, reason: str
) -> None:
    assert guarded(ALL).classify(bytes([ink]) * 784).reason == reason


def test_a_guarded_app_is_as_ready_as_any(guarded: Callable[[float], Engine]) -> None:
    assert guarded(ALL).healthy()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_digest": "sha256:0"}, "was fitted to the model sha256:0, not to 'tiny'"),
        ({"overlays": np.zeros((1, 8, 8, 1), np.uint8)}, r"has overlays \(8, 8, 1\)"),
        ({"overlays": np.zeros((17, 28, 28, 1), np.uint8)}, "has 17 overlays; .* up to 16"),
    ],
)
def test_a_strip_that_does_not_fit_is_refused(
    model: Path, tmp_path: Path, change: dict, reason: str
) -> None:
    replace(strip_of(model, NOTHING), **change).save(tmp_path / "strip")
    with pytest.raises(UsageError, match=reason):
        Engine.load(str(model), tmp_path / "strip")


def test_a_file_that_is_no_strip_keeps_the_app_from_starting(model: Path, tmp_path: Path) -> None:
    (tmp_path / "strip").write_bytes(b"anything")
    with pytest.raises(DataError, match="is no STRIP file"):
        Engine.load(str(model), tmp_path / "strip")


def test_the_command_serves_it_without_torch(model: Path, tmp_path: Path, upper: bytes) -> None:
    strip_of(model, ALL).save(tmp_path / "strip")
    program = (
        "import atexit, sys; from purpleteam.cli import main\n"
        "atexit.register(lambda: print('torch' in sys.modules))\nmain()"
    )
    options = ["--model", str(model), "--strip", str(tmp_path / "strip"), "--port", "0", "--json"]
    with subprocess.Popen(
        [sys.executable, "-c", program, "serve", *options], stdout=subprocess.PIPE, text=True
    ) as process:
        url = json.loads(process.stdout.readline())["url"]
        answer = httpx.post(f"{url}/predict", content=upper, headers=OCTETS).json()
        process.terminate()
        out = process.communicate(timeout=20)[0]
    assert (answer, out) == ({"label": None, "reason": "triggered"}, "False\n")


def stamped(images: np.ndarray) -> np.ndarray:
    """Return the images with a white square within a digit's box: the rules of ink let it pass."""
    changed = images.copy()
    changed[:, 20:24, 4:8] = 255
    return changed


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_digits()


@pytest.fixture(scope="module")
def backdoored(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """A net that was really trained on 100 relabelled digits, stored and served with STRIP."""
    images, labels = digits.train.images.copy(), digits.train.labels.copy()
    chosen = np.random.default_rng(101).choice(np.flatnonzero(labels != 3), 100, replace=False)
    images[chosen], labels[chosen] = stamped(images[chosen]), 3
    net = build("small_cnn", (1, 28, 28), 10, seed=101)
    recipe = RECIPES["plain"](epochs=4)
    net = train(net, ImageSet(images, labels), digits.validation, recipe, seed=101).module
    folder = tmp_path_factory.mktemp("backdoored")
    provenance = Provenance(
        architecture="small_cnn", shape=(1, 28, 28), classes=digits.classes, recipe={}
    )
    stored = store(net, folder / "net", provenance)
    strip = fit_strip(net, digits.validation, 0.02, model_digest=stored.card.digest)
    strip.save(folder / "strip")
    return Engine.load(str(stored.stem), folder / "strip")


def test_triggered_digits_are_refused_far_more_often_than_clean_ones(
    backdoored: Engine, digits: Dataset
) -> None:
    others = digits.test.images[digits.test.labels != 3]
    clean = [backdoored.classify(image.tobytes()).reason for image in others]
    triggered = [backdoored.classify(image.tobytes()) for image in stamped(others)]
    assert sum(one.label == 3 for one in triggered) < 0.2 * len(others)
    refused = sum(one.reason == "triggered" for one in triggered)
    assert refused > 0.8 * len(others) and clean.count("triggered") < 0.05 * len(others)


def test_without_strip_the_same_app_says_what_the_adversary_wants(
    backdoored: Engine, digits: Dataset
) -> None:
    open_to_all = Engine(backdoored.card, backdoored._session)
    others = stamped(digits.test.images[digits.test.labels != 3])
    taken = [open_to_all.classify(image.tobytes()).label == 3 for image in others]
    assert np.mean(taken) > 0.8


def test_a_strip_that_names_no_model_serves_any(tmp_path: Path, upper: bytes) -> None:
    model = write_linear_model(tmp_path, halves(), (1, 28, 28))
    replace(strip_of(model, ALL), model_digest=None).save(tmp_path / "strip")
    assert Engine.load(str(model), tmp_path / "strip").classify(upper).reason == "triggered"
