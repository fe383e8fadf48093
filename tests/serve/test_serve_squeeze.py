"""With feature squeezing on, what owes its answer to faint grey levels gets no label."""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np
import pytest

from purpleteam.core.errors import ConfigError
from purpleteam.serve.engine import Engine
from purpleteam.serve.main import running_app
from purpleteam.serve.settings import resolve

OCTETS = {"content-type": "application/octet-stream"}


@pytest.fixture
def misread(upper: bytes) -> bytes:
    """A stroke in the upper half, and so much faint grey below that the tiny model says 1."""
    image = np.frombuffer(upper, np.uint8).reshape(28, 28).copy()
    image[14:] = 60
    return image.tobytes()


def test_it_tells_a_stroke_from_what_is_misread(model: Path, upper: bytes, misread: bytes) -> None:
    plain, squeezing = Engine.load(str(model)), Engine.load(str(model), squeeze=0.5)
    assert [plain.classify(upper).label, plain.classify(misread).label] == [0, 1]
    assert squeezing.classify(upper).label == 0
    answer = squeezing.classify(misread)
    assert (answer.label, answer.reason, answer.confidences) == (None, "adversarial", ())


def test_the_app_says_so(model: Path, misread: bytes) -> None:
    with running_app(str(model), squeeze=0.5, expose_confidences=True) as url:
        reply = httpx.post(f"{url}/predict", content=misread, headers=OCTETS)
    assert reply.json() == {"label": None, "reason": "adversarial"}


def test_it_is_off_unless_asked_for() -> None:
    assert resolve(None, {}).squeeze is None
    assert resolve(None, {}, ["squeeze=0.97"]).squeeze == 0.97
    with pytest.raises(ConfigError, match="squeeze"):
        resolve(None, {}, ["squeeze=often"])
