"""The engine: verified bytes in, a label or a reason out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays
from serve_tiny_model import halves, write_linear_model

from purpleteam.core.cards import find_stored
from purpleteam.core.errors import ModelError, Refused
from purpleteam.serve.engine import Engine, open_session


def test_it_reads_the_label_off_the_pixels(engine: Engine, upper: bytes) -> None:
    lower = np.frombuffer(upper, np.uint8).reshape(28, 28)[::-1].tobytes()
    assert (engine.classify(upper).label, engine.classify(lower).label) == (0, 1)


def test_pixels_reach_the_net_between_0_and_1(engine: Engine) -> None:
    image = np.zeros((28, 28), np.uint8)
    image[3, 4] = 51
    assert engine.logits(image)[:3] == pytest.approx([0.2, -0.2, -0.2])


def test_a_file_that_is_not_the_cards_is_refused(tmp_path: Path) -> None:
    model = write_linear_model(tmp_path, halves(), (1, 28, 28))
    model.write_bytes(model.read_bytes() + b"\0")
    with pytest.raises(Refused, match=r"tiny\.onnx' is not the file of its card"):
        Engine.load(str(model))


def test_changed_weights_are_refused_although_the_net_is_whole(tmp_path: Path) -> None:
    model = write_linear_model(tmp_path, halves(), (1, 28, 28))
    (tmp_path / "tiny.safetensors").write_bytes(b"other")
    with pytest.raises(Refused, match=r"tiny\.safetensors"):
        Engine.load(str(model))


def test_a_net_swapped_after_it_was_verified_is_refused(tmp_path: Path) -> None:
    model = write_linear_model(tmp_path, halves(), (1, 28, 28))
    stored = find_stored(str(model))
    stored.verify()
    model.write_bytes(model.read_bytes() + b"\0")
    with pytest.raises(Refused, match="not the file of its card"):
        open_session(stored)


def test_a_model_for_other_images_is_a_clear_error(tmp_path: Path) -> None:
    model = write_linear_model(tmp_path, np.ones((64, 10), np.float32), (1, 8, 8))
    with pytest.raises(ModelError, match=r"takes \[\['batch', 1, 8, 8\]\], and the app serves"):
        Engine.load(str(model))


def test_a_file_that_is_no_onnx_is_a_clear_error(tmp_path: Path) -> None:
    model = write_linear_model(tmp_path, halves(), (1, 28, 28), content=b"no net at all")
    with pytest.raises(ModelError, match="cannot be run by ONNX Runtime"):
        Engine.load(str(model))


def test_confidences_are_a_distribution(engine: Engine, upper: bytes) -> None:
    found = engine.classify(upper)
    assert sum(found.confidences) == pytest.approx(1) and max(found.confidences) > 0.99


def test_an_unsure_net_gives_no_label(tmp_path: Path, upper: bytes) -> None:
    model = write_linear_model(tmp_path, np.zeros((784, 10), np.float32), (1, 28, 28))
    found = Engine.load(str(model)).classify(upper)
    assert (found.label, found.reason) == (None, "not_a_digit")
    assert found.confidences == pytest.approx([0.1] * 10)


@given(arrays(np.uint8, (28, 28)))
def test_any_784_bytes_get_a_label_or_a_reason(engine: Engine, image: np.ndarray) -> None:
    found = engine.classify(image.tobytes())
    assert (found.label is None) != (found.reason is None)


@pytest.mark.parametrize("batch", ["batch", 1])
def test_images_together_are_answered_as_each_alone(
    tmp_path: Path, upper: bytes, batch: str | int
) -> None:
    engine = Engine.load(str(write_linear_model(tmp_path, halves(), (1, 28, 28), batch=batch)))
    lower = np.frombuffer(upper, np.uint8).reshape(28, 28)[::-1].tobytes()
    images = [upper, bytes(784), lower, b"\xff" * 784, upper] * 3
    together, alone = engine.classify_all(images), [engine.classify(image) for image in images]
    for found, wanted in zip(together, alone, strict=True):
        assert found[:3] == wanted[:3]
        assert found.confidences == pytest.approx(wanted.confidences, abs=1e-5)


def test_the_golden_image_keeps_its_logits(engine: Engine) -> None:
    assert engine.healthy()


def test_serving_loads_no_torch(model: Path) -> None:
    program = (
        "import sys; from purpleteam.serve.main import running_app\n"
        f"with running_app({str(model)!r}): sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
