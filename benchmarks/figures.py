"""Lines of the pen of drawings that are no digits: shapes with a name, and figures at random.

A named shape is in one split alone, and stands for its kind. A figure at random is for `train`: it
is made of polygons, closed curves and parts that touch, or of digits turned, mirrored, doubled or
struck out. No way to make figures aims at a shape of another split (no five corners, for one), but
chance may come near one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from pen_paths import Points

Random = np.random.Generator
Wave = NDArray[np.float64]
TAU = 2 * math.pi


def _regular(corners: int, *, turn: float = 0.0, step: int = 1) -> Points:
    angles = [turn + 2 * math.pi * step * n / corners for n in range(corners + 1)]
    return [(math.sin(angle), -math.cos(angle)) for angle in angles]


def points_of(x: Wave, y: Wave) -> Points:
    """Return the points of a line, given their x and their y."""
    return [(float(a), float(b)) for a, b in zip(x, y, strict=True)]


def _curve(at: Callable[[Wave], tuple[Wave, Wave]], n: int = 60) -> Points:
    x, y = at(np.linspace(0, 1, n))
    return points_of(x, y)


def _turns(count: float) -> Points:
    tau = 2 * math.pi * count
    return _curve(lambda t: (t * np.cos(tau * t), t * np.sin(tau * t)), 80)


SHAPES: dict[str, dict[str, list[Points]]] = {
    "train": {
        "triangle": [_regular(3)],
        "square": [_regular(4, turn=math.pi / 4)],
        "diamond": [[(0, -1), (0.7, 0), (0, 1), (-0.7, 0), (0, -1)]],
        "star": [_regular(5, step=2)],
        "plus": [[(0, -1), (0, 1)], [(-1, 0), (1, 0)]],
        "arrow": [[(-1, 0), (1, 0)], [(0.4, -0.5), (1, 0), (0.4, 0.5)]],
        "up arrow": [[(0, 1), (0, -1)], [(-0.5, -0.4), (0, -1), (0.5, -0.4)]],
        "spiral": [_turns(2.5)],
        "coil": [_turns(3.5)],
        "wave": [_curve(lambda t: (4 * t, np.sin(2 * TAU * t)))],
        "teeth": [[(n, n % 2 * 2.0) for n in range(7)]],
        "grid": [[(n, 0), (n, 3)] for n in range(4)] + [[(0, n), (3, n)] for n in range(4)],
        "stairs": [[(0, 3), (0, 2), (1, 2), (1, 1), (2, 1), (2, 0), (3, 0)]],
        "two lines": [[(0, 0), (0, 3)], [(1.5, 0), (1.5, 3)]],
        "three bars": [[(0, n), (3, n)] for n in range(3)],
        "face": [_regular(24), [(-0.3, -0.3), (-0.3, -0.2)], [(0.3, -0.3), (0.3, -0.2)],
                 [(-0.4, 0.3), (0, 0.5), (0.4, 0.3)]],
        "cup": [[(-1, -1), (-0.8, 1), (0.8, 1), (1, -1)], [(0.9, -0.6), (1.5, -0.3), (0.9, 0.3)]],
        "box with cross": [_regular(4, turn=math.pi / 4), [(-0.7, -0.7), (0.7, 0.7)],
                           [(-0.7, 0.7), (0.7, -0.7)]],
        "cloud": [_curve(lambda t: (1.6 * np.cos(TAU * t) * (1 + 0.2 * np.cos(7 * TAU * t)),
                                    np.sin(TAU * t) * (1 + 0.2 * np.cos(7 * TAU * t))))],
        "bracket": [[(1, -1), (0, -1), (0, 1), (1, 1)]],
        "corner": [[(0, -1), (0, 1), (1.5, 1)]],
        "tick": [[(0, 0.4), (0.5, 1), (1.8, -1)]],
        "roof": [[(-1, 1), (0, -0.5), (1, 1)]],
        "sun": [_regular(20), *([(1.4 * math.sin(a), 1.4 * math.cos(a)),
                                 (2 * math.sin(a), 2 * math.cos(a))]
                                for a in (n * TAU / 8 for n in range(8)))],
        "ladder": [[(0, 0), (0, 4)], [(1.2, 0), (1.2, 4)],
                   *([(0, n), (1.2, n)] for n in (0.6, 1.6, 2.6, 3.4))],
        "table": [[(-1.3, -0.6), (1.3, -0.6)], [(-1, -0.6), (-1, 0.8)], [(1, -0.6), (1, 0.8)]],
        "chair": [[(0, -1.4), (0, 1), (0, 0), (1, 0), (1, 1)]],
        "cat": [_regular(24), [(-0.9, -0.5), (-0.8, -1.4), (-0.3, -0.95)],
                [(0.9, -0.5), (0.8, -1.4), (0.3, -0.95)]],
        "cube": [[(0, 0), (1.4, 0), (1.4, 1.4), (0, 1.4), (0, 0), (0.6, -0.6), (2, -0.6), (2, 0.8),
                  (1.4, 1.4)], [(1.4, 0), (2, -0.6)]],
        "ring in ring": [_regular(24), [(0.5 * x, 0.5 * y) for x, y in _regular(24)]],
        "bell": [_curve(lambda t: (2 * t - 1, -np.cos(math.pi * (t - 0.5)) * 1.3)),
                 [(-1.3, 0.1), (1.3, 0.1)], [(-0.2, 0.1), (0, 0.4), (0.2, 0.1)]],
        "mill": [[(math.sin(a), math.cos(a)), (0, 0),
                  (0.8 * math.sin(a + 0.5), 0.8 * math.cos(a + 0.5)), (math.sin(a), math.cos(a))]
                 for a in (n * TAU / 4 for n in range(4))],
        "trident": [[(-0.8, -1), (-0.8, -0.1), (0.8, -0.1), (0.8, -1)], [(0, -1), (0, 1.4)]],
        "snail": [_turns(2), [(0, 1), (-1.6, 1), (-1.9, 0.4)]],
        "car": [[(-1.6, 0.5), (-1.6, 0), (-0.9, 0), (-0.5, -0.6), (0.6, -0.6), (1, 0), (1.6, 0),
                 (1.6, 0.5), (-1.6, 0.5)],
                [(0.3 * x - 0.9, 0.3 * y + 0.7) for x, y in _regular(16)],
                [(0.3 * x + 0.9, 0.3 * y + 0.7) for x, y in _regular(16)]],
        "cherries": [[(0.5 * x - 0.7, 0.5 * y + 0.8) for x, y in _regular(20)],
                     [(0.5 * x + 0.7, 0.5 * y + 0.8) for x, y in _regular(20)],
                     [(-0.6, 0.3), (0.2, -1), (0.7, 0.3)]],
        "brace": [[(0.4, -1.2), (0.1, -1), (0.1, -0.2), (-0.2, 0), (0.1, 0.2), (0.1, 1),
                   (0.4, 1.2)]],
        "hash": [[(0.5, 0), (0.5, 2)], [(1.5, 0), (1.5, 2)], [(0, 0.5), (2, 0.5)],
                 [(0, 1.5), (2, 1.5)]],
    },
    "validation": {
        "hexagon": [_regular(6)],
        "moon": [_curve(lambda t: (np.cos(5 * t - 2.5), np.sin(5 * t - 2.5)))
                 + _curve(lambda t: (0.6 * np.cos(2.5 - 5 * t) - 0.3, 0.8 * np.sin(2.5 - 5 * t)))],
        "kite": [[(0, -1), (0.6, -0.3), (0, 1), (-0.6, -0.3), (0, -1)], [(0, -1), (0, 1)],
                 [(-0.6, -0.3), (0.6, -0.3)]],
        "rake": [[(0, 0), (0, 1), (2, 1), (2, 0)], [(1, 0), (1, 3)]],
        "double arrow": [[(-1, 0), (1, 0)], [(0.6, -0.4), (1, 0), (0.6, 0.4)],
                         [(-0.6, -0.4), (-1, 0), (-0.6, 0.4)]],
        "crown": [[(-1, 0.7), (-1.2, -0.7), (-0.5, 0), (0, -1), (0.5, 0), (1.2, -0.7), (1, 0.7),
                   (-1, 0.7)]],
        "glasses": [[(0.6 * x - 0.9, 0.6 * y) for x, y in _regular(20)],
                    [(0.6 * x + 0.9, 0.6 * y) for x, y in _regular(20)], [(-0.3, 0), (0.3, 0)]],
        "drop": [_curve(lambda t: (0.8 * np.sin(TAU * t) * np.sin(math.pi * t),
                                   -np.cos(TAU * t)))],
        "flower": [_curve(lambda t: ((0.7 + 0.4 * np.cos(5 * TAU * t)) * np.sin(TAU * t),
                                     (0.7 + 0.4 * np.cos(5 * TAU * t)) * np.cos(TAU * t))),
                   [(0.2 * x, 0.2 * y) for x, y in _regular(12)], [(0, 1), (0, 2)]],
        "key": [[(0.5 * x - 1, 0.5 * y) for x, y in _regular(20)],
                [(-0.5, 0), (1.4, 0), (1.4, 0.5)], [(1, 0), (1, 0.4)]],
        "leaf": [_curve(lambda t: (np.sin(math.pi * t) * 0.6, 2 * t - 1), 20)
                 + _curve(lambda t: (-np.sin(math.pi * t) * 0.6, 1 - 2 * t), 20),
                 [(0, -0.5), (0, 1.6)]],
        "bottle": [[(-0.2, -1.4), (-0.2, -0.7), (-0.6, -0.2), (-0.6, 1.2), (0.6, 1.2), (0.6, -0.2),
                    (0.2, -0.7), (0.2, -1.4), (-0.2, -1.4)]],
        "peaks": [[(-1.6, 0.8), (-0.7, -0.6), (-0.1, 0.3), (0.6, -1), (1.6, 0.8)]],
        "anchor": [[(0, -0.8), (0, 1.1)], [(-0.6, -0.4), (0.6, -0.4)],
                   _curve(lambda t: (-np.cos(math.pi * t), 0.3 + 0.8 * np.sin(math.pi * t)), 20),
                   [(0.22 * x, 0.22 * y - 1) for x, y in _regular(14)]],
        "cone": [_curve(lambda t: (-0.8 * np.cos(math.pi * t), -0.8 * np.sin(math.pi * t)), 20),
                 [(-0.8, 0), (0, 1.8), (0.8, 0), (-0.8, 0)]],
        "eye": [_curve(lambda t: (2 * t - 1, -0.5 * np.sin(math.pi * t)), 20)
                + _curve(lambda t: (1 - 2 * t, 0.5 * np.sin(math.pi * t)), 20),
                [(0.3 * x, 0.3 * y) for x, y in _regular(14)]],
        "hooks": [[(-1, -1), (0.6, -1), (0.6, 0), (-0.3, 0)], [(1, 1.2), (-0.6, 1.2), (-0.6, 0.4)]],
        "boxes": [_regular(4, turn=math.pi / 4),
                  [(0.5 * x, 0.5 * y) for x, y in _regular(4, turn=math.pi / 4)]],
        "gate": [[(-1, 1), *_curve(lambda t: (-np.cos(math.pi * t),
                                              -0.4 - 0.8 * np.sin(math.pi * t)), 20), (1, 1)],
                 [(-1, 0.2), (1, 0.2)]],
        "ship": [[(-1.4, 0), (-0.9, 0.8), (0.9, 0.8), (1.4, 0), (-1.4, 0)], [(0, 0), (0, -1.2)]],
        "divided": [[(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)], [(-1, 0), (1, 0)],
                    [(0, -1), (0, 1)]],
    },
    "test": {
        "heart": [_curve(lambda t: (16 * np.sin(TAU * t) ** 3,
                                    -13 * np.cos(TAU * t) + 5 * np.cos(2 * TAU * t)
                                    + 2 * np.cos(3 * TAU * t) + np.cos(4 * TAU * t)))],
        "house": [[(-1, 1), (-1, -0.2), (0, -1), (1, -0.2), (1, 1), (-1, 1)]],
        "pentagon": [_regular(5)],
        "lightning": [[(0.4, -1), (-0.4, 0.1), (0.3, 0), (-0.4, 1)]],
        "tree": [[(0, 1.4), (0, 0.6)], [(-0.8, 0.6), (0, -1), (0.8, 0.6), (-0.8, 0.6)]],
        "envelope": [[(-1.3, -0.8), (1.3, -0.8), (1.3, 0.8), (-1.3, 0.8), (-1.3, -0.8), (0, 0.2),
                      (1.3, -0.8)]],
        "asterisk": [[(math.sin(a), math.cos(a)), (-math.sin(a), -math.cos(a))]
                     for a in (0, TAU / 6, TAU / 3)],
        "man": [_curve(lambda t: (0.3 * np.sin(TAU * t), 0.3 * np.cos(TAU * t) - 1), 20),
                [(0, -0.7), (0, 0.4), (-0.5, 1.2)], [(0, 0.4), (0.5, 1.2)],
                [(-0.6, -0.3), (0.6, -0.3)]],
        "flag": [[(0, 1.5), (0, -1), (1.4, -0.6), (0, -0.1)]],
        "fish": [_curve(lambda t: (np.cos(TAU * t), 0.5 * np.sin(TAU * t))),
                 [(-0.9, 0.1), (-1.6, 0.6), (-1.6, -0.6), (-0.9, -0.1)]],
        "umbrella": [[*_curve(lambda t: (-np.cos(math.pi * t), -np.sin(math.pi * t)), 20), (-1, 0)],
                     [(0, 0), (0, 1), (0.2, 1.2), (0.4, 1)]],
        "lying eight": [_curve(lambda t: (1.5 * np.sin(TAU * t), np.sin(2 * TAU * t) * 0.7))],
    },
    "alike": {  # to 0, 1, 1, 5, 2, 8
        "circle": [_regular(24)],
        "upright line": [[(0, -1), (0, 1)]],
        "slanting line": [[(0.5, -1), (-0.5, 1)]],
        "S curve": [_curve(lambda t: (np.sin(TAU * t), 2.6 * t), 30)],
        "zigzag of three": [[(-0.6, -1), (0.6, -1), (-0.6, 1), (0.6, 1)]],
        "hourglass": [[(-0.6, -1), (0.6, -1), (-0.6, 1), (0.6, 1), (-0.6, -1)]],
    },
}  # fmt: skip


def _polygon(rng: Random) -> list[Points]:
    """A closed line with corners at random, as a star where the reach changes a lot."""
    corners = int(rng.choice([3, 4, 6, 7, 8, 9, 10]))
    angles = rng.uniform(0, TAU) + np.linspace(0, TAU, corners, endpoint=False)
    angles += rng.normal(0, 0.5 / corners, corners)
    reach = rng.uniform(rng.uniform(0.2, 0.9 if corners < 8 else 0.5), 1, corners)
    if corners % 2 == 0 and rng.random() < 0.4:
        reach = np.where(np.arange(corners) % 2, reach * rng.uniform(0.3, 0.7), reach)
    ring = points_of(reach * np.sin(angles), reach * np.cos(angles) * rng.uniform(0.6, 1.6))
    return [[*ring, ring[0]]]


def _closed(rng: Random) -> list[Points]:
    """A closed curve with two to six bays."""
    angles = np.linspace(0, TAU, 60)
    reach = np.ones(60)
    for bays in (int(rng.integers(3, 7)), *rng.permutation([2, 3, 4])[: rng.integers(0, 3)]):
        reach += rng.uniform(0.2, 0.45) * np.cos(bays * angles + rng.uniform(0, TAU))
    return [points_of(reach * np.sin(angles), reach * np.cos(angles) * rng.uniform(0.6, 1.5))]


def _steps(rng: Random) -> list[Points]:
    """One bent line whose pieces go along the axes or halfway between them."""
    at, line = np.zeros(2), [(0.0, 0.0)]
    heading = int(rng.integers(8))
    for _ in range(rng.integers(4, 9)):
        heading += int(rng.choice([-3, -2, -2, -1, 1, 2, 2, 3]))
        far = rng.uniform(0.5, 1.5)
        at = at + far * np.array([math.cos(heading * TAU / 8), math.sin(heading * TAU / 8)])
        line.append((float(at[0]), float(at[1])))
    return [line]


def _part(rng: Random) -> Points:
    """A line, a bent line, an arc, a ring or a closed polygon."""
    kind = rng.integers(6)
    if kind < 2:
        return points_of(*rng.uniform(-1, 1, (2, 2 + int(rng.integers(0, 2)) * int(kind))))
    if kind == 2:
        (line,) = _polygon(rng)
        far, shift = rng.uniform(0.3, 0.9), rng.uniform(-0.7, 0.7, 2)
        return [(x * far + float(shift[0]), y * far + float(shift[1])) for x, y in line]
    far = TAU if kind == 3 else rng.uniform(1.5, 5)
    angles = rng.uniform(0, TAU) + np.linspace(0, far, 24)
    (x, y), (across, down) = rng.uniform(-0.7, 0.7, 2), rng.uniform(0.2, 0.9, 2)
    return points_of(x + across * np.sin(angles), y + down * np.cos(angles))


def _touching(rng: Random) -> list[Points]:
    """Three to five parts, most of them begun on an earlier one."""
    lines = [_part(rng)]
    for _ in range(rng.integers(2, 5)):
        line, before = _part(rng), lines[rng.integers(len(lines))]
        if rng.random() < 0.8:
            (x, y), (to_x, to_y) = line[0], before[rng.integers(len(before))]
            line = [(a + to_x - x, b + to_y - y) for a, b in line]
        lines.append(line)
    return lines


def _mirrored(rng: Random) -> list[Points]:
    """Parts and their mirror images, some with a line or a ring in the middle."""
    lines, parts = [], int(rng.integers(1, 3))
    for _ in range(parts):
        line = _part(rng)
        across = rng.random() < 0.75  # else upside down
        lines += [line, [(-x, y) if across else (x, -y) for x, y in line]]
    if parts == 1 or rng.random() < 0.4:
        low, high = (float(one) for one in np.sort(rng.uniform(-1.5, 1.5, 2)))
        lines.append([(0.0, low), (0.0, high)] if rng.random() < 0.6 else _ring(rng))
    return lines


def _ring(rng: Random) -> Points:
    across, down = rng.uniform(0.2, 1, 2)
    return [(float(x * across), float(y * down)) for x, y in _regular(24)]


def _framed(rng: Random) -> list[Points]:
    """One or two parts within a ring or a polygon, or across it."""
    frame = _ring(rng) if rng.random() < 0.5 else _polygon(rng)[0]
    within = rng.uniform(0.3, 1.4)
    parts = [_part(rng) for _ in range(rng.integers(1, 4))]
    if max(map(len, parts)) < 3:
        parts.append(_ring(rng))  # a ring that is struck through may be a zero
    return [frame, *([(x * within, y * within) for x, y in one] for one in parts)]


FIGURES = (_polygon, _closed, _steps, _touching, _touching, _mirrored, _mirrored, _framed)


def figure(rng: Random) -> list[Points]:
    """Return the lines of a figure at random."""
    return FIGURES[rng.integers(len(FIGURES))](rng)


def _unit(lines: Sequence[Points]) -> list[Points]:
    """Return lines with their middle in (0, 0) and a longest side of 2."""
    every = np.concatenate([np.array(line) for line in lines])
    low, high = every.min(axis=0), every.max(axis=0)
    scale = 2 / max(float((high - low).max()), 1e-6)
    (x, y) = ((low + high) / 2).tolist()
    return [[((a - x) * scale, (b - y) * scale) for a, b in line] for line in lines]


def spoiled(
    lines: Sequence[Points], digit: int, other: Sequence[Points], rng: Random
) -> list[Points]:
    """Return what is no digit any more: a digit mirrored, turned, struck out, or with another."""
    own, second = _unit(lines), _unit(other)
    way = int(rng.integers(5))
    if way == 0 and digit not in (0, 1, 8):
        return [[(-x, y) for x, y in line] for line in own]
    if way == 1 and digit not in (0, 8):
        side = 1 if rng.random() < 0.5 else -1
        return [[(-side * y, side * x) for x, y in line] for line in own]
    if way == 2:  # side by side
        far = rng.uniform(1.2, 2)
        return [*own, *([(x + far, y) for x, y in line] for line in second)]
    if way == 3:  # in a frame; a ring around a one may be a zero that is struck through
        frame = _ring(rng) if digit != 1 and rng.random() < 0.5 else _polygon(rng)[0]
        return [*own, [(1.8 * x, 1.8 * y) for x, y in frame]]
    strikes = [points_of(*rng.uniform(-1.3, 1.3, (2, 2))) for _ in range(2)]
    return [*own, *(strikes if rng.random() < 0.6 else second)]
