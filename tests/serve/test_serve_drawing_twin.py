"""drawing.js and data/drawing.py make the same 784 bytes of the same drawing."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from purpleteam.data.drawing import EmptyDrawing, place, strokes

pytestmark = pytest.mark.browser

PLACE = """async (drawings) => {
  const { place } = await import("/static/drawing.js");
  return drawings.map(([coded, width, height]) => {
    const levels = Uint8Array.from(atob(coded), (letter) => letter.charCodeAt(0));
    const placed = place(levels, width, height);
    return placed === null ? null : Array.from(placed);
  });
}"""
PAINT = """async (lines) => {
  const { strokes } = await import("/static/drawing.js");
  return Array.from(strokes(lines.map(([width, points]) => ({ width, points }))));
}"""


@pytest.fixture(scope="module")
def page(chromium: Any, url: str) -> Iterator[Any]:
    context = chromium.new_context()
    opened = context.new_page()
    opened.goto(url)
    yield opened
    context.close()


def in_python(drawing: np.ndarray) -> list[int] | None:
    try:
        return place(drawing).reshape(-1).tolist()
    except EmptyDrawing:
        return None


def in_browser(page: Any, drawings: list[np.ndarray]) -> list[list[int] | None]:
    coded = [base64.b64encode(one.tobytes()).decode() for one in drawings]
    sizes = [(one.shape[1], one.shape[0]) for one in drawings]
    return page.evaluate(PLACE, [[text, *size] for text, size in zip(coded, sizes)])


def assert_twins(page: Any, drawings: list[np.ndarray]) -> None:
    for drawing, theirs in zip(drawings, in_browser(page, drawings)):
        assert in_python(drawing) == theirs, f"a drawing of {drawing.shape} differs"


def some_strokes(seed: int, size: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    lines = [
        [(float(x), float(y)) for x, y in rng.uniform(0, size, (rng.integers(1, 7), 2))]
        for _ in range(rng.integers(1, 4))
    ]
    return strokes(lines, width=float(rng.uniform(0.02, 0.13) * size), size=size)


def test_two_hundred_drawings_are_placed_alike(page: Any) -> None:
    assert_twins(page, [some_strokes(seed, 280 if seed < 20 else 90) for seed in range(200)])


def test_noise_of_any_size_is_placed_alike(page: Any) -> None:
    rng = np.random.default_rng(0)
    sizes = [(int(a), int(b)) for a, b in rng.integers(1, 90, (150, 2))]
    sizes += [(1, 1), (1, 400), (400, 1), (28, 28), (20, 20), (4096, 3), (3, 4096)]
    assert_twins(page, [rng.integers(0, 256, size, dtype=np.uint8) for size in sizes])


def test_images_like_mnist_are_placed_alike(page: Any) -> None:
    drawn = [place(some_strokes(seed, 56)) for seed in range(300, 400)]
    shifted = [np.roll(one, (2, -3), (0, 1)) for one in drawn]
    faint = [(one // 3).astype(np.uint8) for one in drawn]
    assert_twins(page, drawn + shifted + faint)


def test_the_edge_of_ink_is_the_same(page: Any) -> None:
    drawings = [np.full((9, 7), level, np.uint8) for level in (0, 63, 64, 65, 255)]
    assert_twins(page, drawings)


def test_strokes_are_painted_alike_to_one_grey_level(page: Any) -> None:
    line = [(30.0, 40.5), (200.25, 90.0), (120.0, 250.0), (120.0, 250.0)]
    dab = [(270.0, 5.0)]
    theirs = page.evaluate(PAINT, [[20, line], [20, dab]])
    ours = strokes([line, dab], width=20).reshape(-1)
    assert np.abs(np.array(theirs) - ours.astype(int)).max() <= 1
