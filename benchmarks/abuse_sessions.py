"""Sessions of a served classifier, simulated: people who draw, heavy users, and attackers.

A session is what one client sends, in order, 784 bytes a query. People draw a digit bit by bit: its
ink appears in the order in which it lies along the stroke, from one end (breadth first), on a
canvas, and each preview is placed as the page places it. They undo, erase, touch up and send again.
Attackers ask the served engine itself, so that its refusals hold them up as they would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray

from purpleteam.attacks.evasion import EvasionAttack
from purpleteam.data.drawing import EmptyDrawing, fitted, place, redraw, strokes
from purpleteam.models.black_box import BlackBox, as_bytes, log_scores
from purpleteam.models.inference import Nets
from purpleteam.serve.engine import Engine

Images = NDArray[np.uint8]
CANVAS = 112  # side of the canvas: four pixels for each of the image
WAYS = ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))


Disguise = Callable[[Images], Images]  # what an attacker does to an image (28, 28) before it goes


@dataclass(frozen=True, kw_only=True)
class Session:
    """What one client sent, and what it got from it."""

    sent: list[bytes]
    tried: int = 0  # digits that were attacked
    broken: tuple[int, ...] = ()  # after how many queries each digit was that was broken


# People ------------------------------------------------------------------------------------------


def along(canvas: Images, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return for each pixel when the pen comes there, 0 to 1; infinite where there is no ink."""
    ink = canvas >= 64
    ys, xs = np.nonzero(ink)
    angle = rng.uniform(0, 2 * np.pi)
    first = np.argmax(xs * np.cos(angle) + ys * np.sin(angle))  # the ink's end on some side
    when = np.full(canvas.shape, np.inf)
    reached = np.zeros_like(ink)
    reached[ys[first], xs[first]] = True
    step = 0
    while True:
        when[reached & np.isinf(when)] = step
        grown = reached.copy()
        for down, across in WAYS[: 4 if step % 2 else 8]:
            grown |= np.roll(reached, (down, across), (0, 1))
        grown &= ink
        if (grown == reached).all():
            left = ink & ~reached  # another stroke
            if not left.any():
                break
            ys, xs = np.nonzero(left)
            grown[ys[0], xs[0]] = True
        reached, step = grown, step + 1
    faint = (canvas > 0) & ~ink  # the soft edge comes with the ink beside it
    for down, across in WAYS:
        near = np.roll(when, (down, across), (0, 1))
        when[faint] = np.minimum(when[faint], near[faint])
    return when / max(step, 1)


def drawn_digit(digit: Images, rng: np.random.Generator, live: bool) -> Iterator[Images]:
    """Yield what the page sends while one digit (28, 28) is drawn, each (784,)."""
    size = int(rng.integers(24, 92))
    room = (CANVAS - size) // 2
    shift = rng.integers(-room, room + 1, 2)
    canvas = redraw(digit, size=size, offset_x=int(shift[0]), offset_y=int(shift[1]), canvas=CANVAS)
    when = along(canvas, rng)
    previews = int(rng.integers(6, 31)) if live else int(rng.integers(1, 4))
    shares = list(np.linspace(1 / previews, 1.0, previews))
    mood = rng.random()
    if mood < 0.15:  # undone, and drawn again
        back = int(rng.integers(0, previews))
        shares += shares[back::-1][:1] + shares[back:]
    for share in shares:
        yield from _placed(np.where(when <= share, canvas, 0).astype(np.uint8))
    if 0.15 <= mood < 0.3:  # rubbed out bit by bit, then mended
        ys, xs = np.nonzero(canvas)
        at = int(rng.integers(len(ys)))
        y, x = np.mgrid[:CANVAS, :CANVAS]
        gap, last = np.hypot(y - ys[at], x - xs[at]), canvas
        for radius in np.linspace(2, rng.uniform(4, 16), 6 if live else 1):
            yield from _placed(np.where(gap < radius, 0, canvas).astype(np.uint8))
        yield from _placed(last)
    if 0.3 <= mood < 0.45:  # touched up, with small dabs
        for _ in range(int(rng.integers(1, 9))):
            ys, xs = np.nonzero(canvas)
            at, radius = int(rng.integers(len(ys))), rng.uniform(1.5, 4)
            y, x = np.mgrid[:CANVAS, :CANVAS]
            dab = np.clip(radius + 0.5 - np.hypot(y - ys[at], x - xs[at]), 0, 1) * 255
            canvas = np.maximum(canvas, dab.astype(np.uint8))
            yield from _placed(canvas)
    if mood > 0.95:  # sent again as it is
        yield from _placed(canvas)


def _placed(canvas: Images) -> Iterator[Images]:
    try:
        yield place(canvas).ravel()
    except EmptyDrawing:
        return


def drawing(
    digits: Images, rng: np.random.Generator, live: bool, alike: bool = False
) -> list[bytes]:
    """Return what a person sends who draws 1 to 50 digits (N, 28, 28), or 1 and 7 alone."""
    count = int(rng.integers(1, 51))
    sent: list[Images] = []
    for _ in range(count):
        if alike:
            sent += ruled(rng, live)
        else:
            sent += drawn_digit(digits[int(rng.integers(len(digits)))], rng, live)
    return [image.tobytes() for image in sent]


def ruled(rng: np.random.Generator, live: bool) -> Iterator[Images]:
    """Yield a 1, or a 7, of straight lines, drawn by a steady hand, as the page sends it."""
    seven = rng.random() < 0.3
    left, top, length = rng.uniform(60, 150), rng.uniform(20, 60), rng.uniform(120, 190)
    line = [(left, top), (left + 60, top), (left + 20, top + length)] if seven else []
    line = line or [(left, top), (left, top + length)]
    line = [(x + rng.normal(0, 5), y + rng.normal(0, 5)) for x, y in line]
    width = float(rng.uniform(10, 40))
    for share in np.linspace(0.2, 1.0, int(rng.integers(4, 13))) if live else (1.0,):
        ends = [line[0]]
        for start, end in pairwise(line):
            part = share if len(line) == 2 else float(np.clip(2 * share - len(ends) + 1, 0, 1))
            ends.append(
                (start[0] + part * (end[0] - start[0]), start[1] + part * (end[1] - start[1]))
            )
        lines, widths = fitted([ends], width=width)
        yield place(strokes(lines, width=widths)).ravel()


# Attackers ---------------------------------------------------------------------------------------


class Served(BlackBox):
    """The engine behind the app, one image a query; remembers all that it was asked."""

    def __init__(self, engine: Engine, scores: bool, disguise: Disguise | None) -> None:
        kind = "scores" if scores else "labels"
        super().__init__(
            "served", digest=engine.card.digest, shape=(1, 28, 28), classes=10, gives=kind
        )
        self.engine, self.disguise, self.asked = engine, disguise, list[bytes]()

    def ask(self, images: torch.Tensor) -> torch.Tensor:
        rows = torch.full((len(images), self.classes), torch.nan)
        for row, image in zip(rows, as_bytes(images)[:, 0], strict=True):
            sent = image if self.disguise is None else self.disguise(image)
            self.asked.append(sent.tobytes())
            answer = self.engine.classify(sent.tobytes())
            if answer.label is not None and self.gives == "scores":
                row[:] = log_scores(torch.tensor(answer.confidences), 5e-7)
            elif answer.label is not None:
                row[:] = functional.one_hot(torch.tensor(answer.label), self.classes)
        self.calls += len(images)
        return rows


def attack_session(
    engine: Engine,
    attack: EvasionAttack,
    digits: Images,
    labels: NDArray[np.int64],
    *,
    seed: int,
    most: int = 1000,
    disguise: Callable[[np.random.Generator, Images], Disguise] | None = None,
    together: bool = False,
) -> Session:
    """Attack digits (N, 28, 28) one after another, or together a query of each in turn.

    It ends after `most` queries. `disguise` makes, of a digit, what is done to each query for it.
    """
    rng, sent, broken = np.random.default_rng([seed, 3]), list[bytes](), list[int]()
    groups = [slice(None)] if together else [slice(n, n + 1) for n in range(len(digits))]
    tried = 0
    for group in groups:
        if len(sent) >= most:
            break
        hide = None if disguise is None else disguise(rng, digits[group][0])
        served = Served(engine, attack.knowledge == "score-based", hide)
        x = torch.from_numpy(digits[group][:, None].astype(np.float32) / 255)
        nets = Nets.of(served, x)
        served.asked.clear()
        y, index = torch.from_numpy(labels[group].copy()), torch.arange(len(digits))[group]
        result = attack.run(nets, x, y, seed=seed, index=index)
        sent += served.asked
        tried += len(x)
        broken += [len(sent)] * int(result.broken.sum())
    return Session(sent=sent[:most], tried=tried, broken=tuple(broken))


def in_box(rng: np.random.Generator, digit: Images, shift: int = 0, specks: int = 0) -> Disguise:
    """Return what keeps a query within the digit's box, moves it and adds specks, each at random.

    Specks are pixels of the digit's rim, black to white or white to black.
    """
    rows, columns = (np.flatnonzero(digit.any(axis=axis)) for axis in (1, 0))
    box = np.zeros_like(digit)
    box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = 1
    ink = digit >= 128
    beside = sum(np.roll(ink, way, (0, 1)) != ink for way in WAYS) > 0
    rim = np.flatnonzero(beside & (box > 0))

    def disguise(image: Images) -> Images:
        hidden = image * box
        if specks:
            chosen = rng.choice(rim, min(specks, len(rim)), replace=False)
            flat = hidden.reshape(-1)
            flat[chosen] = np.where(flat[chosen] >= 128, 0, 255)
        if shift:
            hidden = np.roll(hidden, rng.integers(-shift, shift + 1, 2), (0, 1))
        return hidden

    return disguise


def diluted(attack: Session, cover: list[bytes], parts: int) -> Session:
    """Return a session with `parts` queries of the cover, always others, before each one."""
    sent = list[bytes]()
    for number, query in enumerate(attack.sent):
        sent += [*cover[number * parts : (number + 1) * parts], query]
    places = tuple(place * (parts + 1) for place in attack.broken)
    return Session(sent=sent, tried=attack.tried, broken=places)


# Extraction --------------------------------------------------------------------------------------


def noise_queries(rng: np.random.Generator, count: int, ink: float | None = None) -> list[bytes]:
    """Return images of uniform noise, or of white pixels at random, so many of them `ink`."""
    if ink is None:
        return [image.tobytes() for image in rng.integers(0, 256, (count, 784), np.uint8)]
    return [(255 * (image < ink)).astype(np.uint8).tobytes() for image in rng.random((count, 784))]


def scribbles(rng: np.random.Generator, count: int) -> list[bytes]:
    """Return random lines, placed as the page places a drawing."""
    sent = list[bytes]()
    for _ in range(count):
        lines = [list(map(tuple, rng.uniform(10, 100, (int(rng.integers(2, 7)), 2))))]
        sent.append(place(strokes(lines, width=rng.uniform(5, 11), size=CANVAS)).tobytes())
    return sent


def jacobian_queries(
    engine: Engine, seeds: Images, *, most: int, step: float = 0.1, boxed: bool = False
) -> list[bytes]:
    """Return the queries of Jacobian-based augmentation (Papernot et al. 2017, arXiv:1602.02697).

    A copy, here softmax regression, is trained on what was answered so far; each image moves by
    `step` in the direction in which the copy's answer changes fastest, which makes twice as many.
    """
    x, sent, answers = seeds.reshape(len(seeds), -1) / 255.0, list[bytes](), list[int | None]()
    boxes = (x > 0) if boxed else np.ones_like(x)
    fresh = x
    while True:
        for image in np.rint(255 * fresh).astype(np.uint8)[: most - len(sent)]:
            sent.append(image.tobytes())
            answers.append(engine.classify(image.tobytes()).label)
        if len(sent) >= most:
            return sent
        known = [number for number, answer in enumerate(answers) if answer is not None]
        weight = _softmax_regression(x[known], np.array([answers[number] for number in known]))
        labels = np.array([0 if answer is None else answer for answer in answers])
        scores = x @ weight
        scores[np.arange(len(x)), labels] = -np.inf
        away = weight[:, scores.argmax(1)].T - weight[:, labels].T
        fresh = np.clip(x + step * np.sign(away) * boxes, 0, 1)
        x, boxes = np.concatenate([x, fresh]), np.concatenate([boxes, boxes])


def _softmax_regression(x: NDArray[np.float64], y: NDArray[np.int64]) -> NDArray[np.float64]:
    weight, wanted = np.zeros((x.shape[1], 10)), np.eye(10)[y]
    for _ in range(60):
        scores = np.exp(x @ weight - (x @ weight).max(1, keepdims=True))
        weight += x.T @ (wanted - scores / scores.sum(1, keepdims=True)) / len(x)
    return weight
