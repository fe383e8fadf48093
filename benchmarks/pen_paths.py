"""The path of the pen in a small image of a character, and the same path drawn by another hand.

An image is enlarged, thinned to lines of one pixel (Zhang and Suen 1984), and the lines are
followed from end to end: lines of (x, y) points, as the page's drawing area has them.
`by_hand` turns, slants, stretches and bends them, smoothly, as another hand would.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Points = list[tuple[float, float]]
Hand = Callable[[NDArray[np.float64]], NDArray[np.float64]]
ENLARGED = 3  # times, before thinning: a pixel of the thinned image is a third of one of MNIST's
SPUR = 1.0  # shortest branch that is kept, in pixels of the image: shorter ones are the pen's width
BATCH = 200  # images that are thinned at once
_AROUND = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))


def paths(images: NDArray[np.uint8], *, ink: int = 190) -> list[list[Points]]:
    """Return the lines of each image (N, height, width); none for an image without ink."""
    parts = (images[at : at + BATCH] for at in range(0, len(images), BATCH))
    return [_lines(one) for part in parts for one in thinned(enlarged(part) >= ink)]


def enlarged(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return images (N, height, width), `ENLARGED` times as large, between the pixels bilinear."""
    grown = images.astype(np.float32)
    for axis in (1, 2):
        side = grown.shape[axis]
        at = np.clip((np.arange(side * ENLARGED) + 0.5) / ENLARGED - 0.5, 0, side - 1)
        low = np.minimum(at.astype(int), side - 2)
        shape = [1, 1, 1]
        shape[axis] = -1
        share = (at - low).astype(np.float32).reshape(shape)
        first, second = np.take(grown, low, axis), np.take(grown, low + 1, axis)
        grown = first * (1 - share) + second * share
    return grown


def thinned(ink: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return images (N, height, width) of ink worn down to lines of one pixel."""
    ink = np.pad(ink, ((0, 0), (1, 1), (1, 1))).view(np.uint8)
    height, width = ink.shape[1] - 2, ink.shape[2] - 2
    live = np.arange(len(ink))
    while len(live):
        worn = np.zeros(len(live), bool)
        for removable in _REMOVABLE:
            part = ink[live]
            around = np.zeros((len(live), height, width), np.uint8)  # a bit for each neighbour
            for bit, (y, x) in enumerate(_AROUND):
                around |= part[:, 1 + y : 1 + y + height, 1 + x : 1 + x + width] << bit
            gone = removable[around] & part[:, 1:-1, 1:-1]
            ink[live, 1:-1, 1:-1] = part[:, 1:-1, 1:-1] ^ gone
            worn |= gone.any(axis=(1, 2))
        live = live[worn]
    return ink[:, 1:-1, 1:-1].astype(bool)


def _removable(last: bool) -> NDArray[np.uint8]:
    """Return, for each of the 256 neighbourhoods, whether a pass takes the pixel away."""
    found = np.zeros(256, np.uint8)
    for code in range(256):
        ring = [code >> bit & 1 for bit in range(8)]
        rises = sum(not one and other for one, other in zip(ring, ring[1:] + ring[:1], strict=True))
        north, east, south, west = ring[::2]
        if last:
            edge = not (north and east and west) and not (north and south and west)
        else:
            edge = not (north and east and south) and not (east and south and west)
        found[code] = 2 <= sum(ring) <= 6 and rises == 1 and edge
    return found


_REMOVABLE = (_removable(False), _removable(True))


def _lines(thin: NDArray[np.bool_]) -> list[Points]:
    """Follow the lines of a thinned image; points are (x, y) in pixels of the image before."""
    pixels = {(int(y), int(x)) for y, x in np.argwhere(thin)}
    near = {one: _neighbours(one, pixels) for one in pixels}
    chains = _chains(near)
    kept = [chain for chain in chains if not _is_spur(chain, near)]
    return [_smooth(chain) for chain in kept or chains]


def _neighbours(one: tuple[int, int], pixels: set[tuple[int, int]]) -> list[tuple[int, int]]:
    y, x = one
    found = []
    for dy, dx in _AROUND:
        if (y + dy, x + dx) not in pixels:
            continue
        if dy and dx and ((y + dy, x) in pixels or (y, x + dx) in pixels):
            continue  # reached around the corner
        found.append((y + dy, x + dx))
    return found


def _chains(near: dict[tuple[int, int], list[tuple[int, int]]]) -> list[list[tuple[int, int]]]:
    """Return the runs of pixels between ends and crossings, then the closed ones."""
    used: set[frozenset[tuple[int, int]]] = set()
    chains = []
    starts = sorted(one for one in near if len(near[one]) != 2) + sorted(near)
    for start in starts:
        if not near[start]:
            chains.append([start])
        for following in near[start]:
            if frozenset((start, following)) in used:
                continue
            chain = [start, following]
            used.add(frozenset((start, following)))
            while len(near[chain[-1]]) == 2 and chain[-1] != start:
                first, second = near[chain[-1]]
                after = second if first == chain[-2] else first
                if frozenset((chain[-1], after)) in used:
                    break
                used.add(frozenset((chain[-1], after)))
                chain.append(after)
            chains.append(chain)
    return chains


def _is_spur(
    chain: Sequence[tuple[int, int]], near: dict[tuple[int, int], list[tuple[int, int]]]
) -> bool:
    ends = sorted(len(near[one]) for one in (chain[0], chain[-1]))
    return ends[0] == 1 and ends[1] > 2 and len(chain) <= SPUR * ENLARGED


def _smooth(chain: Sequence[tuple[int, int]]) -> Points:
    """Return a run of pixels as points, without the steps of the grid, some three pixels apart."""
    at = (np.array(chain, float)[:, ::-1] + 0.5) / ENLARGED  # (x, y)
    for _ in range(4):
        if len(at) > 2:
            at[1:-1] = (at[:-2] + 2 * at[1:-1] + at[2:]) / 4
    steps = max(1, round((len(at) - 1) / 3))
    chosen = at[np.round(np.linspace(0, len(at) - 1, steps + 1)).astype(int)]
    return [(float(x), float(y)) for x, y in chosen]


def by_hand(
    lines: Sequence[Points], rng: np.random.Generator, strength: float = 1.0
) -> list[Points]:
    """Turn up to 15 degrees, slant, stretch and bend lines, each as `strength` has it."""
    every = np.concatenate([np.array(line) for line in lines])
    middle = (every.min(axis=0) + every.max(axis=0)) / 2
    moved = another_hand(max(float(np.ptp(every, axis=0).max()), 1e-6), rng, strength)
    return [[(float(x), float(y)) for x, y in moved(np.array(line) - middle)] for line in lines]


def another_hand(extent: float, rng: np.random.Generator, strength: float = 1.0) -> Hand:
    """Return where another hand puts points (N, 2) of a digit of this extent, around its middle."""
    angle = math.radians(15) * strength * rng.uniform(-1, 1)
    slant = 0.2 * strength * rng.uniform(-1, 1)
    stretch = 1 + 0.15 * strength * rng.uniform(-1, 1, 2)
    cosine, sine = math.cos(angle), math.sin(angle)
    matrix = np.array([[cosine, -sine], [sine, cosine]]) @ np.array([[1, slant], [0, 1]])
    matrix = matrix @ np.diag(stretch)
    # three slow waves for each axis bend the plane by up to some 4 % of the extent each
    waves = rng.normal(0, 1, (2, 3, 2)) * math.pi
    phases = rng.uniform(0, 2 * math.pi, (2, 3))
    bends = rng.normal(0, 0.025 * strength, (2, 3)) * extent

    def moved(points: NDArray[np.float64]) -> NDArray[np.float64]:
        at, share = points.copy(), points / extent
        for axis in range(2):
            for wave, phase, bend in zip(waves[axis], phases[axis], bends[axis], strict=True):
                at[:, axis] += bend * np.sin(share @ wave + phase)
        return at @ matrix.T

    return moved


def laid_out(
    lines: Sequence[Points],
    *,
    size: float,
    width: float,
    rng: np.random.Generator,
    canvas: int = 280,
) -> list[Points]:
    """Scale lines so that the ink's longest side, by a pen of `width`, is `size`; lay it anywhere.

    Where the ink can lie on the canvas whole, it does.
    """
    every = np.concatenate([np.array(line) for line in lines])
    low, high = every.min(axis=0), every.max(axis=0)
    extent = float((high - low).max())
    scale = max(size - width, 1.0) / max(extent, 1e-6)
    room = np.maximum(canvas - (high - low) * scale - width, 0)
    corner = width / 2 + room * rng.uniform(0, 1, 2)
    return [
        [(float(x), float(y)) for x, y in (np.array(line) - low) * scale + corner] for line in lines
    ]
