"""Is this client attacking? From what it asks alone, one image after another. NumPy alone.

Blacklight's idea (Li et al. 2022, arXiv:2006.14042): attacks by queries ask again and again for
nearly the same image. Here two images are near where few pixels are ink in one of them alone, with
their centres of mass moved together, so that neither small noise nor a shift tells them apart.
Who draws with a preview sends such images too, but few of each, and those of `place` only: ink in a
box of 20 pixels, and nothing beside it.

Each of the two signs is summed as in Page's CUSUM (1954, doi:10.1093/biomet/41.1-2.100): what a
query adds, less what honest clients add in the mean, never below 0. Attackers who know this can
stay below it: results/abuse.json says at what cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.registry import check_ranges

Sign = Literal["near_duplicates", "no_drawing"]

SIDE, BOX = 28, 20  # of an image, and of the ink in it, as `data.drawing.place` leaves them
INKED = 128  # a pixel at least this bright counts as ink
CROPPED = 24  # rows and columns around the centre of mass that are compared: 576 bits
MARGIN = (SIDE - CROPPED) // 2
WORDS = CROPPED * CROPPED // 64
MIDDLE = slice(WORDS // 3, 2 * WORDS // 3)  # the eight rows around the centre of mass
DIGEST = 8  # bytes
FIRST = 16  # queries for which there is room at first; it doubles as more come
_PLACES = np.stack([*np.divmod(np.arange(SIDE * SIDE), SIDE), np.ones(SIDE * SIDE)], 1)
_PLACES = _PLACES.astype(np.float32)  # (784, 3): row, column and 1 of each pixel


@dataclass(frozen=True, kw_only=True)
class Watch:
    """How closely clients are watched; chosen on honest sessions kept apart from the measured."""

    ranges: ClassVar[str] = (
        "distance at least 0; history at least 16; matches at least 1; "
        "allowance between 0 and 1; alarm above 0"
    )

    distance: int = 12
    """Most pixels, of 576, that are ink in one of two near images alone."""
    history: int = 512
    """So many of the last different queries of a client are compared with; 80 bytes for each."""
    matches: int = 16
    """So many near images before it make a query as suspicious as one can be."""
    allowance: float = 0.35
    """What every query takes off both sums: a share of suspicious ones that is let pass."""
    alarm: float = 24.0
    """The sum at which a client is told of."""

    def __post_init__(self) -> None:
        check_ranges(self)


class Queries:
    """What one client has asked so far; some 40 KB at most with a history of 512."""

    __slots__ = ("_codes", "_digests", "_seen", "_watch", "near", "strange")

    def __init__(self, watch: Watch = Watch()) -> None:
        self._watch = watch
        self._codes = np.empty((WORDS, FIRST), np.uint64)  # a column for each query
        self._digests = bytearray()  # eight bytes for each query
        self._seen = 0
        self.near = self.strange = 0.0  # the two sums

    def see(self, pixels: bytes) -> Sign | None:
        """Take one query, 784 bytes of 28x28 grey pixels; return what it is now a sign of.

        What was asked before, byte for byte, tells nobody anything and counts for nothing. With a
        sign, the sums start anew.
        """
        watch, count = self._watch, min(self._seen, self._watch.history)
        digest = hash(pixels).to_bytes(DIGEST, "little", signed=True)
        if digest in self._digests:
            return None
        code = _code(np.frombuffer(pixels, np.uint8))
        near_ones = _near(self._codes[MIDDLE, :count], code[MIDDLE], watch.distance)
        if len(near_ones):  # most that are not near differ in the middle rows already
            rest = _near(self._codes[:, near_ones], code, watch.distance)
            near_ones = near_ones[rest]
        self._keep(code, digest)
        near = min(len(near_ones) / watch.matches, 1.0) - watch.allowance
        strange = (0.0 if is_placed(pixels) else 1.0) - watch.allowance
        self.near, self.strange = max(0.0, self.near + near), max(0.0, self.strange + strange)
        if max(self.near, self.strange) < watch.alarm:
            return None
        sign: Sign = "near_duplicates" if self.near >= self.strange else "no_drawing"
        self.near = self.strange = 0.0
        return sign

    def _keep(self, code: NDArray[np.uint64], digest: bytes) -> None:
        room, history = self._codes.shape[1], self._watch.history
        if self._seen == room < history:
            more = min(2 * room, history) - room
            self._codes = np.pad(self._codes, ((0, 0), (0, more)))
        place = self._seen % history
        self._codes[:, place : place + 1] = code
        self._digests[DIGEST * place : DIGEST * (place + 1)] = digest
        self._seen += 1


def _near(codes: NDArray[np.uint64], code: NDArray[np.uint64], distance: int) -> NDArray[np.intp]:
    """Return which of the codes (words, N) differ in so few bits from one (words, 1)."""
    differing = np.bitwise_count(codes ^ code)
    total: NDArray[np.uint16] = np.add.reduce(differing, 0, np.uint16)
    return (total <= distance).nonzero()[0]


def _code(image: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return 576 bits (9, 1): where the image (784,) has ink, seen from its centre of mass."""
    ink = image >= INKED
    down, across, mass = (ink.astype(np.float32) @ _PLACES).tolist()
    shift = 0
    if mass:
        shift = (int(down / mass + 0.5) - SIDE // 2) * SIDE + int(across / mass + 0.5) - SIDE // 2
    # what leaves the image on one side comes in on the other: the same for images that are near
    moved = np.concatenate([ink[shift:], ink[:shift]]) if shift else ink
    cropped = moved.reshape(SIDE, SIDE)[MARGIN : SIDE - MARGIN, MARGIN : SIDE - MARGIN]
    code: NDArray[np.uint64] = np.packbits(cropped).view(np.uint64)[:, None]
    return code


def is_placed(pixels: bytes) -> bool:
    """Say whether all that is not black in 28x28 grey pixels fits into the box of `place`."""
    turned = np.frombuffer(pixels, np.uint8).reshape(SIDE, SIDE).T.tobytes()
    for lines in (pixels, turned):
        first = (SIDE * SIDE - len(lines.lstrip(b"\0"))) // SIDE
        if (len(lines.rstrip(b"\0")) - 1) // SIDE - first >= BOX:
            return False
    return True
