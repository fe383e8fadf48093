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
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from figures import SHAPES, TAU, Random, figure, points_of
from numpy.typing import NDArray
from pen_paths import Points, by_hand, laid_out, paths
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from purpleteam.data.drawing import fitted, place, redraw, strokes

Pixels = NDArray[np.uint8]
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
SYMBOLS = ("dejavu", "freefont")  # fonts with many of the signs below; both are for `train`
RANGES = (  # arrows, mathematics, technology, geometry, ornaments, runes, Tifinagh
    *((0x2190, 0x2300), (0x2311, 0x2329), (0x25A0, 0x2768), (0x2794, 0x27BF)),
    *((0x16A0, 0x16EB), (0x2D30, 0x2D66)),
)
LEFT_OUT = (  # in Unicode's names of what is a shape of another split, or looks like a digit
    *(
        "HEART",
        "HOUSE",
        "PENTAGON",
        "LIGHTNING",
        "VOLTAGE",
        "THUNDER",
        "ZIGZAG",
        "TREE",
        "SHAMROCK",
    ),
    *("ENVELOPE", "ASTERISK", "STAR", "SPARKLE", "FLORETTE", "SNOW", "PERSON", "MALE", "FLAG"),
    *("PROPORTIONAL", "UMBRELLA", "INFINITY", "SCISSORS", "CIRCLE", "RING OPERATOR", "INTEGRAL"),
    *("PARTIAL DIFFERENTIAL", "DIVIDES", "DIVISION SLASH", "SET MINUS", "EMPTY SET", "VERTICAL"),
    *("LETTER YAN", "LETTER YAR", "LETTER YI", "ISAZ", "LETTER C", "RUNIC LETTER SHORT"),
)
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


def printed(letters: str, split: str, rng: Random, among: tuple[str, ...] = ("",)) -> Pixels:
    """Return a letter (28, 28) as a font of the split prints it, one whose file is so called."""
    files = [one for one in fonts(split) if any(part in one.lower() for part in among)]
    while True:
        file, letter = rng.choice(files), letters[rng.integers(len(letters))]
        if (found := glyph(str(file), letter)) is not None:
            return np.frombuffer(found, np.uint8).reshape(28, 28)


@cache
def _paths_of(content: bytes) -> list[Points]:
    return paths(np.frombuffer(content, np.uint8).reshape(1, 28, 28), ink=THIN_INK)[0]


def written(letters: str, split: str, rng: Random, among: tuple[str, ...] = ("",)) -> Pixels:
    """Return a letter (28, 28) drawn along the middle of its printed strokes by some hand."""
    while not (lines := _paths_of(printed(letters, split, rng, among).tobytes())):
        pass
    return drawn(lines, rng)


def drawn(lines: Sequence[Points], rng: Random, strength: float = 1.0) -> Pixels:
    """Return what the page would send of lines drawn by a hand, of any size, by any pen."""
    pen, size = rng.uniform(6, 40), rng.uniform(60, 260)
    there = laid_out(by_hand(lines, rng, strength), size=max(size, pen + 20), width=pen, rng=rng)
    moved, widths = fitted(there, width=pen)
    return place(strokes(moved, width=widths))


def coarse(image: Pixels, rng: Random) -> Pixels:
    """Return an image (28, 28) by a wider pen, narrower, from a copy of 8x8 cells of 17 levels."""
    rows, columns = (np.flatnonzero((image >= 64).any(axis=axis)) for axis in (1, 0))
    box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    scale = 32 / max(box[2] - box[0], box[3] - box[1])
    squeezed = scale * rng.uniform(0.65, 1), scale
    size = [max(4, round((box[n + 2] - box[n]) * squeezed[n])) for n in (0, 1)]
    fine = np.zeros((32, 32), np.uint8)
    left, top = (32 - size[0]) // 2, (32 - size[1]) // 2
    ink = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, box)
    if rng.random() < 0.6:
        ink = ink.filter(ImageFilter.MaxFilter(3))
    fine[top : top + size[1], left : left + size[0]] = np.array(ink) >= rng.uniform(60, 140)
    cells = fine.reshape(8, 4, 8, 4).sum(axis=(1, 3))  # (8, 8), 0 to 16
    if not cells.max() >= 8:
        return image
    return place(redraw((cells * 255 // 16).astype(np.uint8), size=80, canvas=120))


def shape(split: str, rng: Random) -> Pixels:
    """Return a drawn shape (28, 28), by its outline."""
    names = sorted(SHAPES[split])
    return drawn(SHAPES[split][names[rng.integers(len(names))]], rng)


def _walk(rng: Random) -> list[Points]:
    """A pen that turns at random."""
    n = int(rng.integers(40, 160))
    turns = np.cumsum(np.cumsum(rng.normal(0, rng.uniform(0.12, 0.35), n)))
    return [points_of(np.cumsum(np.cos(turns)), np.cumsum(np.sin(turns)))]


def _lissajous(rng: Random) -> list[Points]:
    a = rng.uniform(2, 6)
    b = a + rng.uniform(0.6, 3)
    t = np.linspace(0, TAU, 120)
    return [points_of(np.sin(a * t + rng.uniform(0, TAU)), np.sin(b * t + rng.uniform(0, TAU)))]


def _jitter(rng: Random) -> list[Points]:
    """Straight strokes between points at random."""
    return [points_of(*rng.uniform(0, 1, (2, int(rng.integers(7, 16)))))]


def _sticks(rng: Random) -> list[Points]:
    return [points_of(*rng.uniform(0, 1, (2, 2))) for _ in range(rng.integers(4, 9))]


def _hatching(rng: Random) -> list[Points]:
    """To and fro, as one shades."""
    n = int(rng.integers(8, 22))
    along = np.arange(n) / n * rng.uniform(0.7, 1.6)
    return [points_of(along + rng.normal(0, 0.03, n), np.arange(n) % 2 + rng.normal(0, 0.1, n))]


def _loops(rng: Random) -> list[Points]:
    """Round and round while the hand moves on."""
    t = np.linspace(0, 1, 120)
    turns, far = TAU * rng.uniform(3, 8), rng.uniform(1.5, 4)
    return [points_of(far * t + np.cos(turns * t), rng.uniform(0.6, 1.4) * np.sin(turns * t))]


def _drift(rng: Random) -> list[Points]:
    """Two to four smooth lines through points at random."""
    lines = []
    for _ in range(rng.integers(2, 5)):
        knots = rng.uniform(0, 1, (2, int(rng.integers(3, 7))))
        at = np.linspace(0, knots.shape[1] - 1, 40)
        smooth = [np.interp(at, np.arange(knots.shape[1]), row) for row in knots]
        lines.append(points_of(*(np.convolve(row, np.ones(7) / 7, "valid") for row in smooth)))
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


@cache
def signs() -> str:
    """Return signs and runes that are taught as nothing."""
    among = (chr(number) for low, end in RANGES for number in range(low, end))
    named = ((one, unicodedata.name(one, LEFT_OUT[0])) for one in among)
    return "".join(one for one, name in named if not any(part in name for part in LEFT_OUT))


def kinds(split: str) -> dict[str, Callable[[Random], Pixels]]:
    """Return the kinds of drawings of a split that are no digits, by name."""
    named = letters_of(split)
    found: dict[str, Callable[[Random], Pixels]] = {}
    if split == "train":
        found = {
            "signs, printed": lambda rng: printed(signs(), split, rng, SYMBOLS),
            "signs, drawn": lambda rng: written(signs(), split, rng, SYMBOLS),
            "figures": lambda rng: drawn(figure(rng), rng),
            "letters, coarse": lambda rng: coarse(written(named, split, rng), rng),
        }
    return found | {
        "letters, printed": lambda rng: printed(named, split, rng),
        "letters, drawn": lambda rng: written(named, split, rng),
        "shapes": lambda rng: shape(split, rng),
        "scribbles": lambda rng: scribble(split, rng),
        "blots": lambda rng: blot(split, rng),
    }
