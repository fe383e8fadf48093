"""How many digits are read right, of any size, at any place, by any pen, by another hand.

    python benchmarks/drawn_digits.py      writes results/drawn_digits.json

MNIST's test images become paths of a pen (`pen_paths`), whose points are rounded to whole pixels,
as a mouse has them. They are drawn on the page's canvas: the ink's longest side is 60 to 260
pixels, the pen 6 to 40 wide. `as painted` is the drawing itself; `fitted` is what the page sends.
`the image itself` is enlarged, and turned, slanted, stretched and bent, without paths. What the
engine refuses counts as not read. The same images untouched show what was lost on the way.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray
from pen_paths import Points, another_hand, by_hand, laid_out, paths

from purpleteam.core.cards import find_stored, zoo_names
from purpleteam.core.machine import machine, versions
from purpleteam.core.statistics import fraction_interval
from purpleteam.data.drawing import fitted, place, redraw, strokes
from purpleteam.data.sources.mnist import find_mnist, load_mnist
from purpleteam.serve.engine import Engine

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "drawn_digits.json"
SIZES, PENS = (60, 140, 260), (6, 20, 40)
EACH = 1_000  # digits of each size and pen
SEED = 4
CACHE = ROOT / ".cache" / "drawn_digits.npz"
Pixels = NDArray[np.uint8]
Drawn = tuple[NDArray[np.int64], Pixels]


def main() -> None:
    """Draw, ask, write."""
    test = load_mnist(find_mnist()).test
    engines = {name: Engine.load(name) for name in zoo_names()}
    everything = np.arange(len(test)), test.images[..., 0]
    cases = {
        "images of MNIST, untouched": everything,
        "the image itself, any size, any place": _enlarged(test.images[..., 0]),
        **drawings(test.images[..., 0]),
    }
    found = {
        "what": "digits read right by the app's engine",
        "rows": [_row(case, *one, test.labels, engines) for case, one in cases.items()],
        "models": {name: find_stored(name).card.digest for name in engines},
        "data": test.digest,
        "seed": SEED,
        "machine": machine(),
        "versions": versions(),
        "command": "python benchmarks/drawn_digits.py",
    }
    RESULTS.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _enlarged(images: Pixels) -> Drawn:
    rng = np.random.default_rng(SEED)
    drawn = []
    for image in images:
        size = int(rng.integers(60, 261))
        x, y = rng.integers(-(280 - size) // 2, (280 - size) // 2 + 1, 2).tolist()
        drawn.append(place(redraw(image, size=size, offset_x=x, offset_y=y)))
    return np.arange(len(images)), np.stack(drawn)


def _distorted(images: Pixels) -> Drawn:
    """Return images as another hand would have drawn them, small enough to stay on the canvas."""
    rng = np.random.default_rng(SEED)
    grid = np.stack(np.meshgrid(np.arange(280.0), np.arange(280.0)), -1).reshape(-1, 2) - 139.5
    drawn = []
    for image in images:
        size = int(rng.integers(60, 201))
        x, y = (another_hand(size, rng)(grid) + 139.5).reshape(280, 280, 2).transpose(2, 0, 1)
        drawn.append(place(_at(redraw(image, size=size), x, y)))
    return np.arange(len(images)), np.stack(drawn)


def _at(canvas: Pixels, x: NDArray[np.float64], y: NDArray[np.float64]) -> Pixels:
    """Return the canvas at other places, between its pixels bilinear; beside it nothing."""
    padded = np.pad(canvas, 1).astype(np.float64)
    left, top = (np.clip(at + 1, 0, len(padded) - 1.001) for at in (x, y))
    column, row = left.astype(int), top.astype(int)
    across, down = left - column, top - row
    upper = padded[row, column] * (1 - across) + padded[row, column + 1] * across
    lower = padded[row + 1, column] * (1 - across) + padded[row + 1, column + 1] * across
    return np.floor(upper * (1 - down) + lower * down + 0.5).astype(np.uint8)


def drawings(images: Pixels) -> dict[str, Drawn]:
    """Return the numbers and the drawings of each case; made once, then read from the cache."""
    if not CACHE.exists():
        made = _drawn(images)
        flat = {f"{case}/{n}": part for case, pair in made.items() for n, part in enumerate(pair)}
        CACHE.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(CACHE, **flat)
    with np.load(CACHE) as stored:
        names = dict.fromkeys(key.rpartition("/")[0] for key in stored.files)
        return {name: (stored[f"{name}/0"], stored[f"{name}/1"]) for name in names}


def _drawn(images: Pixels) -> dict[str, Drawn]:
    lines = paths(images)
    rng = np.random.default_rng(SEED)
    found = {
        "the image itself, any size, another hand": _distorted(images),
        "any size, any place, any pen": _fitted(lines, rng, 0.0),
        "any size, any place, any pen, another hand": _fitted(lines, rng, 1.0),
    }
    for size in SIZES:
        for pen in PENS:
            chosen = [n for n in rng.permutation(len(lines))[:EACH].tolist() if lines[n]]
            there = [_there(lines[n], size, pen, rng) for n in chosen]
            for how, way in (("as painted", _painted), ("fitted", _shown)):
                drawn = np.stack([way(one, pen) for one in there])
                found[f"{size} pixels, pen {pen}, {how}"] = np.array(chosen), drawn
    return found


def _fitted(lines: list[list[Points]], rng: np.random.Generator, strength: float) -> Drawn:
    chosen = [number for number, one in enumerate(lines) if one]
    drawn = []
    for number in chosen:
        size, pen = rng.uniform(60, 260), rng.uniform(6, 40)
        hand = by_hand(lines[number], rng, strength) if strength else lines[number]
        drawn.append(_shown(_there(hand, size, pen, rng), pen))
    return np.array(chosen), np.stack(drawn)


def _there(lines: list[Points], size: float, pen: float, rng: np.random.Generator) -> list[Points]:
    there = laid_out(lines, size=size, width=pen, rng=rng)
    return [[(float(round(x)), float(round(y))) for x, y in line] for line in there]


def _painted(lines: list[Points], pen: float) -> Pixels:
    return place(strokes(lines, width=pen))


def _shown(lines: list[Points], pen: float) -> Pixels:
    moved, widths = fitted(lines, width=pen)
    return place(strokes(moved, width=widths))


def _row(
    case: str,
    numbers: NDArray[np.int64],
    drawn: Pixels,
    labels: NDArray[np.int64],
    engines: dict[str, Engine],
) -> dict[str, Any]:
    """Return what each model reads of the drawings of these digits."""
    read: dict[str, Any] = {}
    for name, engine in engines.items():
        answers = [engine.classify(image.tobytes()).label for image in drawn]
        right = sum(a == b for a, b in zip(answers, labels[numbers].tolist(), strict=True))
        read[name] = {
            "right": right,
            "refused": answers.count(None),
            "interval": [round(end, 5) for end in fraction_interval(right, len(drawn))],
        }
    print(case, len(drawn), read, flush=True)
    return {"case": case, "n": len(drawn), "read": read}


if __name__ == "__main__":
    main()
