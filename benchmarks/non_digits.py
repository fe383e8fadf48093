"""Drawings that are no digits, and some that are: letters, shapes, scribbles, blots.

Each drawing becomes the 784 bytes that the page would send. What is learned from, what the settings
are chosen by and what is measured come from other fonts, shapes and ways to scribble: a kind of
`test` is in no other split. Fonts are those of Debian's packages (`FONTS`); none is copied.

Letters and signs that some hand writes as a digit (`ALIKE`) are taught as nothing, and measured
apart.
"""

from __future__ import annotations

import math
import subprocess
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from pen_paths import Points, by_hand, laid_out, paths
from PIL import Image, ImageDraw, ImageFont

from purpleteam.data.drawing import fitted, place, strokes

Pixels = NDArray[np.uint8]
Random = np.random.Generator
Wave = NDArray[np.float64]
TAU = 2 * math.pi
THIN_INK = 100  # from which a pixel of a printed letter is ink: thin fonts must not fall to pieces
SPLITS = ("train", "validation", "test")
DIGITS = "0123456789"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SIGNS = "!#$%&()*+/<=>?@[\\]^{|}~"
ALIKE = {  # what some hand writes so, by the digit
    "0": "OoD",
    "1": "Ilij|/\\!()[]{}",
    "2": "Zz",
    "4": "Yy",
    "5": "Ss",
    "6": "bG",
    "8": "B&",
    "9": "gq",
}
GREEK = "ΓΔΛΞΠΣΦΨΩαγζηκλμνξπτυφχψω"  # taught; without those that look like a digit
CYRILLIC = "БГДЖИЙКЛПФЦШЩЪЫЮЯбгджийклпцшщъыюя"
STRANGE = "אבגדהזחטכלמנעפצקרשתԱԲԳԴԵԶԷԸԹԺԻԼԽԾԿՀՃՄՅՆՇՈაბდეზთკლმნპჟრსტფქღყშჩცძწჭხჯჰ"  # never taught
FONTS = {  # Debian's packages of the fonts of each split; none is in two
    "train": (
        "fonts-dejavu-core fonts-freefont-ttf fonts-liberation fonts-breip fonts-dkg-handwriting "
        "fonts-ecolier-court fonts-humor-sans fonts-kristi fonts-dancingscript fonts-comic-neue "
        "fonts-sil-andika fonts-lato fonts-adf-universalis fonts-adf-oldania "
        "fonts-levien-typoscript fonts-tomsontalks fonts-sjfonts fonts-tlwg-purisa-ttf "
        "fonts-ebgaramond"
    ),
    "validation": (
        "fonts-isabella fonts-play fonts-cantarell fonts-junction fonts-lobster fonts-yusei-magic"
    ),
    "test": (
        "fonts-bwht fonts-femkeklaver fonts-rufscript fonts-klee fonts-kaushanscript "
        "fonts-beteckna fonts-open-sans fonts-courier-prime fonts-jura fonts-quicksand "
        "fonts-adf-mekanus"
    ),
}


def alike() -> str:
    """Return every letter and sign that looks like a digit."""
    return "".join(ALIKE.values())


@cache
def fonts(split: str) -> tuple[str, ...]:
    """Return the files of the fonts of a split, in order."""
    found: list[str] = []
    for package in FONTS[split].split():
        listed = subprocess.run(
            ["/usr/bin/dpkg", "-L", package], capture_output=True, text=True, check=False
        )
        if listed.returncode:
            raise SystemExit(
                f"the package {package} is missing; install it: apt-get install {package}"
            )
        ends = (".ttf", ".otf")
        found += [one for one in sorted(listed.stdout.split("\n")) if one.lower().endswith(ends)]
    return tuple(found)


@cache
def glyph(file: str, letter: str) -> bytes | None:
    """Return the 784 bytes of a printed letter; None where the font has none of its own."""
    font = _font(file)
    mask = font.getmask(letter)
    unknown = font.getmask("\uffff")
    if mask.getbbox() is None or bytes(mask) == bytes(unknown):
        return None
    image = np.array(mask, np.uint8).reshape(mask.size[1], mask.size[0])
    return place(image).tobytes()


@cache
def _font(file: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, 120)


def printed(letters: str, split: str, rng: Random) -> Pixels:
    """Return a letter (28, 28) as a font of the split prints it."""
    while True:
        file, letter = rng.choice(fonts(split)), letters[rng.integers(len(letters))]
        if (found := glyph(str(file), letter)) is not None:
            return np.frombuffer(found, np.uint8).reshape(28, 28)


@cache
def _paths_of(content: bytes) -> list[Points]:
    return paths(np.frombuffer(content, np.uint8).reshape(1, 28, 28), ink=THIN_INK)[0]


def written(letters: str, split: str, rng: Random) -> Pixels:
    """Return a letter (28, 28) drawn along the middle of its printed strokes by some hand."""
    while not (lines := _paths_of(printed(letters, split, rng).tobytes())):
        pass
    return drawn(lines, rng)


def drawn(lines: Sequence[Points], rng: Random, strength: float = 1.0) -> Pixels:
    """Return what the page would send of lines drawn by a hand, of any size, by any pen."""
    pen, size = rng.uniform(6, 40), rng.uniform(60, 260)
    there = laid_out(by_hand(lines, rng, strength), size=max(size, pen + 20), width=pen, rng=rng)
    moved, widths = fitted(there, width=pen)
    return place(strokes(moved, width=widths))


def _regular(corners: int, *, turn: float = 0.0, step: int = 1) -> Points:
    angles = [turn + 2 * math.pi * step * n / corners for n in range(corners + 1)]
    return [(math.sin(angle), -math.cos(angle)) for angle in angles]


def _points(x: NDArray[np.float64], y: NDArray[np.float64]) -> Points:
    return [(float(a), float(b)) for a, b in zip(x, y, strict=True)]


def _curve(at: Callable[[Wave], tuple[Wave, Wave]], n: int = 60) -> Points:
    x, y = at(np.linspace(0, 1, n))
    return _points(x, y)


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


def shape(split: str, rng: Random) -> Pixels:
    """Return a drawn shape (28, 28), by its outline."""
    names = sorted(SHAPES[split])
    return drawn(SHAPES[split][names[rng.integers(len(names))]], rng)


def _walk(rng: Random) -> list[Points]:
    """A pen that turns at random."""
    n = int(rng.integers(40, 160))
    turns = np.cumsum(np.cumsum(rng.normal(0, rng.uniform(0.12, 0.35), n)))
    return [_points(np.cumsum(np.cos(turns)), np.cumsum(np.sin(turns)))]


def _lissajous(rng: Random) -> list[Points]:
    a = rng.uniform(2, 6)
    b = a + rng.uniform(0.6, 3)
    t = np.linspace(0, TAU, 120)
    return [_points(np.sin(a * t + rng.uniform(0, TAU)), np.sin(b * t + rng.uniform(0, TAU)))]


def _jitter(rng: Random) -> list[Points]:
    """Straight strokes between points at random."""
    return [_points(*rng.uniform(0, 1, (2, int(rng.integers(7, 16)))))]


def _sticks(rng: Random) -> list[Points]:
    return [_points(*rng.uniform(0, 1, (2, 2))) for _ in range(rng.integers(4, 9))]


def _hatching(rng: Random) -> list[Points]:
    """To and fro, as one shades."""
    n = int(rng.integers(8, 22))
    along = np.arange(n) / n * rng.uniform(0.7, 1.6)
    return [_points(along + rng.normal(0, 0.03, n), np.arange(n) % 2 + rng.normal(0, 0.1, n))]


def _loops(rng: Random) -> list[Points]:
    """Round and round while the hand moves on."""
    t = np.linspace(0, 1, 120)
    turns, far = TAU * rng.uniform(3, 8), rng.uniform(1.5, 4)
    return [_points(far * t + np.cos(turns * t), rng.uniform(0.6, 1.4) * np.sin(turns * t))]


def _drift(rng: Random) -> list[Points]:
    """Two to four smooth lines through points at random."""
    lines = []
    for _ in range(rng.integers(2, 5)):
        knots = rng.uniform(0, 1, (2, int(rng.integers(3, 7))))
        at = np.linspace(0, knots.shape[1] - 1, 40)
        smooth = [np.interp(at, np.arange(knots.shape[1]), row) for row in knots]
        lines.append(_points(*(np.convolve(row, np.ones(7) / 7, "valid") for row in smooth)))
    return lines


SCRIBBLES: dict[str, tuple[Callable[[Random], list[Points]], ...]] = {
    "train": (_walk, _lissajous, _jitter),
    "validation": (_sticks,),
    "test": (_hatching, _loops, _drift),
}


def scribble(split: str, rng: Random) -> Pixels:
    """Return a scribble (28, 28)."""
    ways = SCRIBBLES[split]
    return drawn(ways[rng.integers(len(ways))](rng), rng)


def _discs(rng: Random) -> Pixels:
    lines = [[(x, y)] for x, y in rng.uniform(90, 190, (rng.integers(1, 8), 2)).tolist()]
    return strokes(lines, width=rng.uniform(20, 90, len(lines)).tolist())


def _filled(rng: Random) -> Pixels:
    canvas = Image.new("L", (280, 280))
    corners = int(rng.integers(3, 9))
    angles = np.sort(rng.uniform(0, TAU, corners))
    reach = rng.uniform(30, 120, corners)
    points = [
        (140 + r * math.cos(a), 140 + r * math.sin(a)) for r, a in zip(reach, angles, strict=True)
    ]
    ImageDraw.Draw(canvas).polygon(points, fill=255)
    return np.array(canvas)


def _noise(rng: Random) -> Pixels:
    return (rng.random((28, 28)) < rng.uniform(0.03, 0.3)).astype(np.uint8) * np.uint8(255)


def _specks(rng: Random) -> Pixels:
    dots = [[(x, y)] for x, y in rng.uniform(20, 260, (rng.integers(3, 14), 2)).tolist()]
    return strokes(dots, width=rng.uniform(8, 30, len(dots)).tolist())


def _stain(rng: Random) -> Pixels:
    """Smooth noise above a level."""
    side = int(rng.integers(4, 8))
    coarse = Image.fromarray(rng.integers(0, 256, (side, side), dtype=np.uint8))
    grey = np.array(coarse.resize((112, 112), Image.Resampling.BICUBIC))
    grey[[0, -1]], grey[:, [0, -1]] = 0, 0
    return np.where(grey >= np.quantile(grey, rng.uniform(0.5, 0.85)), 255, 0).astype(np.uint8)


def _splash(rng: Random) -> Pixels:
    """A drop with rays."""
    rays = int(rng.integers(3, 10))
    lines = [[(140.0, 140.0)]]
    widths = [float(rng.uniform(50, 110))]
    for angle in rng.uniform(0, TAU, rays):
        far = rng.uniform(50, 110)
        lines.append([(140.0, 140.0), (140 + far * math.cos(angle), 140 + far * math.sin(angle))])
        widths.append(float(rng.uniform(10, 30)))
    return strokes(lines, width=widths)


BLOTS: dict[str, tuple[Callable[[Random], Pixels], ...]] = {
    "train": (_discs, _filled, _noise),
    "validation": (_specks,),
    "test": (_stain, _splash),
}


def blot(split: str, rng: Random) -> Pixels:
    """Return a blot (28, 28)."""
    ways = BLOTS[split]
    return place(ways[rng.integers(len(ways))](rng))


def make(one: Callable[[Random], Pixels], count: int, seed: int) -> Pixels:
    """Return `count` images (count, 28, 28); image n is a function of (seed, n) alone."""
    return np.stack([one(np.random.default_rng((seed, number))) for number in range(count)])


def letters_of(split: str) -> str:
    """Return the letters and signs that a split has, without those that look like digits."""
    plain = "".join(one for one in LETTERS + SIGNS if one not in alike())
    return plain + (GREEK + CYRILLIC if split == "train" else "")


def kinds(split: str) -> dict[str, Callable[[Random], Pixels]]:
    """Return the kinds of drawings of a split that are no digits, by name."""
    named = letters_of(split)
    return {
        "letters, printed": lambda rng: printed(named, split, rng),
        "letters, drawn": lambda rng: written(named, split, rng),
        "shapes": lambda rng: shape(split, rng),
        "scribbles": lambda rng: scribble(split, rng),
        "blots": lambda rng: blot(split, rng),
    }
