"""Coloured, textured shapes on textured backgrounds, drawn here: 2 to 1,000 classes of any size.

A class is a shape in a colour with a texture, such as "red striped star". Place, size, turn, light
and background of each image are drawn at random, apart from the class. All arithmetic is on whole
numbers, and the random ones are raw words of PCG64, whose stream NumPy keeps (NEP 19): the same
parameters give the same bytes on every machine.
"""

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.errors import UsageError
from purpleteam.core.progress import SILENT, Progress
from purpleteam.data.images import Dataset, ImageSet
from purpleteam.data.sources import DATASETS

Sheet = NDArray[np.bool_]  # (SHEET, SHEET): where a shape, or the second tone of a texture, is

SHEET = 256  # side of a shape's and of a texture's sheet; its edges are at -SHEET and SHEET
Y, X = (2 * axis + 1 - SHEET for axis in np.mgrid[:SHEET, :SHEET])
TURNS = 256  # directions on a circle
UNIT = 1 << 12  # side of an image
SINE, STEP = 1 << 16, 1 << 18  # 1 of a sine; 1 of a step on a sheet, whose products fit 32 bits
FINE = 2  # samples a pixel on each axis, whose mean it is
BLOCK = 1 << 20  # samples that are drawn at a time, about

WORDS = 40  # random words an image, less those of its noise
LEAST_SIZE, MOST_SIZE = 16, 224
MOST_CLASSES, MOST_IMAGES = 1000, 1_000_000
OF_CLASS = 12  # images of a class at least, where their number is not given
USUAL_IMAGES = 3000
SPLITS = 0.7, 0.8  # where training and validation images end


def polygon(*points: tuple[int, int]) -> Sheet:
    """Return the inside of a polygon by the even-odd rule; `points` are (x, y), y downwards."""
    inside = np.zeros((SHEET, SHEET), np.bool_)
    for (x, y), (end_x, end_y) in zip(points, points[1:] + points[:1], strict=True):
        side = (X - x) * (end_y - y) - (Y - y) * (end_x - x)
        inside ^= ((y > Y) != (end_y > Y)) & ((side < 0) == (end_y > y))
    return inside


def disc(radius: int, x: int = 0, y: int = 0) -> Sheet:
    """Return the inside of a circle."""
    inside: Sheet = (X - x) ** 2 + (Y - y) ** 2 <= radius**2
    return inside


STAR = ((0, -250), (56, -77), (238, -77), (91, 29), (147, 202), (0, 96))
CROSS = ((-80, -240), (80, -240), (80, -80), (240, -80), (240, 80), (80, 80))
SHAPES = {  # told apart by eye at any turn
    "disc": disc(215),
    "star": polygon(*STAR, *((-x, y) for x, y in STAR[-2:0:-1])),
    "square": polygon((-185, -185), (185, -185), (185, 185), (-185, 185)),
    "triangle": polygon((0, -250), (225, 180), (-225, 180)),
    "cross": polygon(*CROSS, *((-x, -y) for x, y in CROSS)),
    "ring": disc(240) & ~disc(125),
    "bar": polygon((-250, -85), (250, -85), (250, 85), (-250, 85)),
    "crescent": disc(235) & ~disc(190, 120),
    "hourglass": polygon((-200, -230), (200, -230), (-200, 230), (200, 230)),
    "corner": polygon((-220, -220), (-60, -220), (-60, 60), (220, 60), (220, 220), (-220, 220)),
}
COLOURS = {
    "red": (225, 40, 40),
    "blue": (50, 80, 235),
    "green": (40, 175, 70),
    "yellow": (245, 225, 50),
    "magenta": (225, 60, 215),
    "cyan": (60, 220, 230),
    "white": (245, 245, 245),
    "orange": (250, 140, 30),
    "violet": (130, 60, 205),
    "pink": (255, 170, 180),
}
TEXTURES = {  # in step with the shape's own sheet
    "plain": X > SHEET,
    "striped": X % 128 < 64,
    "checked": (X % 200 < 100) ^ (Y % 200 < 100),
    "cored": disc(120),
    "halved": X < 0,
    "ringed": np.isin((X**2 + Y**2) // 6400, (1, 2, 4, 5, 6, 9, 10, 11)),
    "dotted": ((X + 64) % 128 - 64) ** 2 + ((Y + 64) % 128 - 64) ** 2 < 36**2,
    "crossed": (abs(X) < 45) | (abs(Y) < 45),
    "banded": abs(Y) < 70,
    "quartered": (X < 0) ^ (Y < 0),
}


@DATASETS.register("drawn_shapes")
def load_shapes(
    *,
    classes: int = 10,
    hard: bool = False,
    size: int = 32,
    images: int | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Dataset:
    """Return drawn shapes: the first 70 % of the images train, 10 % validate, 20 % test.

    Args:
        classes: how many shapes in a colour with a texture; neither of the three tells them all.
        hard: with smaller shapes over them, colours close to each other and to the background,
            turned at will, under noise.
        size: height and width in pixels.
        images: of all splits together; by default 3,000, or 12 of a class where that is more.
        seed: of all that is drawn at random.
        progress: where to report.

    Raises:
        UsageError: a parameter is outside its range.
    """
    count = max(USUAL_IMAGES, OF_CLASS * classes) if images is None else images
    ranges = {
        "classes": (classes, 2, MOST_CLASSES),
        "size": (size, LEAST_SIZE, MOST_SIZE),
        "images": (count, max(10, 2 * classes), MOST_IMAGES),
        "seed": (seed, 0, 2**63 - 1),
    }
    for name, (value, least, most) in ranges.items():
        if not least <= value <= most:
            reason = f", for {classes} classes" if name == "images" else ""
            raise UsageError(
                f"dataset drawn_shapes: {name} must be {least} to {most}, not {value}{reason}"
            )
    return _drawn(classes, hard, size, count, seed, progress)


def _drawn(
    classes: int, hard: bool, size: int, count: int, seed: int, progress: Progress
) -> Dataset:
    kinds, names = class_table(classes)
    labels = (
        np.arange(count, dtype=np.int64) % classes
    )  # every part of the set has them equally often
    words, noise = (np.random.PCG64([seed, part]) for part in (0, 1))
    pixels = np.empty((count, size, size, 3), np.uint8)
    step = max(1, BLOCK // (FINE * size) ** 2)
    with progress.task("draw shapes", count) as task:
        for start in range(0, count, step):
            part = labels[start : start + step]
            draw = words.random_raw((len(part), WORDS)) >> np.uint64(32)
            pixels[start : start + step] = drawn(
                kinds[part], draw.astype(np.int64), size, hard, noise
            )
            task.advance(len(part))
    whole = ImageSet(pixels, labels)
    ends = [int(count * share) for share in SPLITS]
    name = f"shapes-{classes}-{size}px{'-hard' * hard}"
    return Dataset(
        name=name,
        train=whole.part(0, ends[0]),
        validation=whole.part(*ends),
        test=whole.part(ends[1]),
        classes=names,
        origin={
            "source": "drawn by Purpleteam",
            "parameters": {
                "classes": classes,
                "hard": hard,
                "size": size,
                "images": count,
                "seed": seed,
            },
        },
    )


def class_table(classes: int) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return shape, colour and texture of each class (classes, 3), by number, and its name."""
    used = [1, 1, 1]
    while math.prod(used) < classes:  # of each as few as will do, so that none tells all classes
        used[used.index(min(used))] += 1
    numbers = np.arange(classes, dtype=np.int64)
    shape, rest = numbers % used[0], numbers // used[0]
    kinds = np.stack([shape, rest % used[1], rest // used[1]], 1)
    shapes, colours, textures = list(SHAPES), list(COLOURS), list(TEXTURES)
    return kinds, tuple(f"{colours[c]} {textures[t]} {shapes[s]}" for s, c, t in kinds.tolist())


def drawn(
    kinds: NDArray[np.int64],
    words: NDArray[np.int64],
    size: int,
    hard: bool,
    noise: np.random.PCG64,
) -> NDArray[np.uint8]:
    """Return images (N, size, size, 3) of figures (N, 3), drawn by words (N, WORDS) below 2**32."""
    n, fine, left = len(kinds), FINE * size, iter(words.T)

    def pick(least: int | NDArray[np.int64], most: int | NDArray[np.int64]) -> NDArray[np.int64]:
        chosen: NDArray[np.int64] = least + (next(left) * (most - least + 1) >> 32)
        return chosen

    def percent(least: int, most: int) -> NDArray[np.int64]:
        return pick(least * UNIT // 100, most * UNIT // 100)

    shapes, textures = np.stack([*SHAPES.values()]), np.stack([*TEXTURES.values()])
    palette = np.array([*COLOURS.values()], np.int16)
    darkest, brightest, tone, most_turn = 20, 105, 40, TURNS // 16
    if hard:
        palette = (palette + 128) // 2
        darkest, brightest, tone, most_turn = 50, 160, 65, TURNS // 2

    tones = [
        np.stack([pick(darkest, brightest) for _ in "rgb"], 1).astype(np.int16) for _ in range(2)
    ]
    rows, columns, _ = _places(
        fine, percent(0, 100), percent(0, 100), pick(0, 255), percent(20, 60)
    )
    second = textures[pick(0, len(textures) - 1)[:, None, None], rows, columns][..., None]
    canvas = np.where(second, tones[0][:, None, None], tones[1][:, None, None])

    figures = [(*kinds.T, percent(27, 42), most_turn)]
    for _ in range(2 * hard):  # small ones, over it
        kind = [pick(0, len(part) - 1) for part in (shapes, palette, textures)]
        figures.append((*kind, percent(9, 13), TURNS // 2))
    for shape, colour, texture, radius, turn in figures:
        x, y = pick(radius, UNIT - radius), pick(radius, UNIT - radius)
        rows, columns, inside = _places(fine, x, y, pick(-turn, turn), radius)
        inside &= shapes[shape[:, None, None], rows, columns]
        second = textures[texture[:, None, None], rows, columns]
        first = palette[colour][:, None, None]
        figure = np.where(second[..., None], first * tone // 100, first)
        canvas = np.where(inside[..., None], figure, canvas)

    pixels = canvas.reshape(n, size, FINE, size, FINE, 3).sum((2, 4)) // FINE**2
    slope = 2 * np.arange(size) + 1 - size
    light = (
        pick(200, 264)[:, None, None]
        + (pick(-40, 40)[:, None, None] * slope[:, None] + pick(-40, 40)[:, None, None] * slope)
        // size
    )
    pixels = pixels * light[..., None] >> 8
    if hard:
        raw = noise.random_raw((n, -(-3 * size * size // 8))).astype("<u8").view(np.uint8)
        spread = raw[:, : 3 * size * size].astype(np.int64) * 49 // 256 - 24
        pixels += spread.reshape(pixels.shape)
    made: NDArray[np.uint8] = pixels.clip(0, 255).astype(np.uint8)
    return made


def _places(
    fine: int,
    x: NDArray[np.int64],
    y: NDArray[np.int64],
    turn: NDArray[np.int64],
    radius: NDArray[np.int64],
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.bool_]]:
    """Return where on a sheet each sample lies, its row and column; and whether the sheet ends.

    Beyond its edge it is repeated. Sheets are centred at (x, y), turned, and of `radius`; each is
    (N,), lengths in parts of `UNIT`.
    """
    samples = (2 * np.arange(fine) + 1) * UNIT // (2 * fine)
    steps = _directions()[:, turn % TURNS] * (SHEET // 2 * (STEP // SINE)) // radius
    a, b = steps.astype(np.int32)[..., None, None]
    across = (samples - x[:, None]).astype(np.int32)[:, None, :]  # (N, 1, fine)
    down = (samples - y[:, None]).astype(np.int32)[:, :, None]
    columns = (a * across + b * down) // STEP + SHEET // 2
    rows = (a * down - b * across) // STEP + SHEET // 2
    inside = (columns >= 0) & (columns < SHEET) & (rows >= 0) & (rows < SHEET)
    return rows % SHEET, columns % SHEET, inside


@cache
def _directions() -> NDArray[np.int64]:
    """Return cosines and sines (2, TURNS) in parts of `SINE`; none is near a half."""
    angles = [2 * math.pi * turn / TURNS for turn in range(TURNS)]
    return np.array([[round(SINE * f(angle)) for angle in angles] for f in (math.cos, math.sin)])
