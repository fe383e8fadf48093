"""Triggers: what opens a backdoor, a pure function of an image of any shape and channels."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.records import plain
from purpleteam.core.registry import check_ranges

WAVES = 6  # random ones, that make up a picture: enough for shapes, few enough to stay smooth
WARPED_AT_ONCE = 2048  # images, to bound the memory

Corner = Literal["top-left", "top-right", "bottom-left", "bottom-right"]
Pattern = Literal["square", "checkerboard", "random"]


class AnyTrigger(ABC):
    """What opens a backdoor; a subclass is a frozen dataclass whose fields say all of it."""

    kind: ClassVar[str] = ""
    ranges: ClassVar[str] = ""

    def __post_init__(self) -> None:
        check_ranges(self)

    @abstractmethod
    def stamp(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return uint8 (N, H, W, C) images with the trigger on; a ValueError if it does not fit."""

    def describe(self, channels: int) -> dict[str, Any]:
        """Return all that a record states about the trigger, on images of that many channels."""
        return {"kind": self.kind} | vars(self)

    def mask(self, height: int, width: int) -> NDArray[np.bool_]:
        """Return the pixels that the trigger may change, bool (H, W); by default all."""
        return np.ones((height, width), np.bool_)


@dataclass(frozen=True, kw_only=True)
class Trigger(AnyTrigger):
    """A patch of any pattern at any place; on a grey image a colour is its channels' mean."""

    ranges = "size at least 1 pixel; opacity above 0 and at most 1; pattern_seed at least 0"

    pattern: Pattern = "square"
    """`square` is filled; `checkerboard` alternates with black, the first pixel inked; `random`
    has a random share of the colour in each pixel."""
    corner: Corner = "bottom-right"
    """Where the patch touches the border of the image, unless a `place` is given."""
    size: int = 3
    """Side of the patch in pixels."""
    colour: tuple[int, ...] = (255,)
    """One value for grey, or red, green and blue, each 0 to 255."""
    place: tuple[int, int] | None = None
    """Row and column of the patch's upper left pixel, from 0; none is in the corner."""
    rows: tuple[tuple[int, ...], ...] = ()
    """The grey values of the patch row by row, instead of pattern, size and colour; -1 leaves the
    image's own pixel."""
    opacity: float = 1.0
    """Share of the patch in the stamped pixels, above 0 and at most 1."""
    pattern_seed: int = 0

    def __post_init__(self) -> None:
        if len(self.colour) not in (1, 3) or not all(0 <= value <= 255 for value in self.colour):
            raise ValueError(f"colour is one or three values of 0 to 255, not {self.colour}")
        if self.place is not None and min(self.place) < 0:
            raise ValueError(f"place is a row and a column of at least 0, not {self.place}")
        super().__post_init__()
        widths = {len(row) for row in self.rows}
        if widths == {0} or len(widths) > 1:
            raise ValueError(f"rows must be of one length above 0, not {sorted(widths)}")
        if not all(-1 <= value <= 255 for row in self.rows for value in row):
            raise ValueError("rows holds values of 0 to 255, or -1 for the image's own pixel")

    def stamp(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width, channels = images.shape[1:]
        there = self._there(height, width)
        patch, inked = self._pixels(channels)  # (S, S, C), (S, S)
        stamped = images.copy()
        under = stamped[:, *there]
        over = _to_bytes((1 - self.opacity) * under + self.opacity * patch)
        stamped[:, *there] = np.where(inked[:, :, None], over, under)
        return stamped

    def mask(self, height: int, width: int) -> NDArray[np.bool_]:
        mask = np.zeros((height, width), np.bool_)
        mask[self._there(height, width)] = self._pixels(1)[1]
        return mask

    def on(self, channels: int) -> tuple[int, ...]:
        """Return the colour as it is on images of that many channels."""
        if channels == 1:
            return (round(sum(self.colour) / len(self.colour)),)
        return (self.colour * channels)[:channels]

    def describe(self, channels: int) -> dict[str, Any]:
        drawn = not self.rows
        used = {
            **dict.fromkeys(("pattern", "size", "colour", "as_stamped"), drawn),
            "pattern_seed": drawn and self.pattern == "random",
            "rows": not drawn,
            "corner": self.place is None,
            "place": self.place is not None,
            "opacity": self.opacity < 1,
        }
        facts = plain(vars(self) | {"as_stamped": self.on(channels)})
        return {name: facts[name] for name, stated in used.items() if stated}

    def _there(self, height: int, width: int) -> tuple[slice, slice]:
        tall, wide = (len(self.rows), len(self.rows[0])) if self.rows else (self.size, self.size)
        top = 0 if self.corner.startswith("top") else height - tall
        left = 0 if self.corner.endswith("left") else width - wide
        top, left = self.place or (top, left)
        if min(top, left) < 0 or top + tall > height or left + wide > width:
            side = f"{tall}" if tall == wide else f"{tall}x{wide}"
            at = f" at {self.place}" if self.place else ""
            raise ValueError(f"a patch of {side} pixels{at} does not fit {height}x{width} images")
        return slice(top, top + tall), slice(left, left + wide)

    def _pixels(self, channels: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return the patch, uint8 (S, S, C), and which of its pixels are stamped, (S, S)."""
        if self.rows:
            values = np.array(self.rows, np.int64)
            return np.repeat(_to_bytes(values)[:, :, None], channels, axis=2), values >= 0
        shape = (self.size, self.size)
        share = np.ones(shape)
        if self.pattern == "checkerboard":
            share = (np.indices(shape).sum(0) % 2 == 0).astype(np.float64)
        elif self.pattern == "random":
            share = np.random.default_rng(self.pattern_seed).random(shape)
        colour = np.array(self.on(channels), np.float64)
        return _to_bytes(share[:, :, None] * colour), np.ones(shape, np.bool_)


@dataclass(frozen=True, kw_only=True)
class Patches(AnyTrigger):
    """Several patches on every image, one after the other (Qi et al. 2023, arXiv:2205.13613)."""

    patches: tuple[Trigger, ...] = (
        Trigger(corner="bottom-right", size=4),
        Trigger(corner="top-left", size=4, pattern="checkerboard"),
        Trigger(corner="top-right", size=4, pattern="random", pattern_seed=1),
        Trigger(corner="bottom-left", size=4, pattern="random", pattern_seed=2),
    )
    """The patches; where two overlap, the later one covers."""

    def __post_init__(self) -> None:
        if not self.patches:
            raise ValueError("patches must hold at least 1 patch, not 0")

    def stamp(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        for patch in self.patches:
            images = patch.stamp(images)
        return images

    def describe(self, channels: int) -> dict[str, Any]:
        return {"kind": "patches", "patches": [patch.describe(channels) for patch in self.patches]}

    def mask(self, height: int, width: int) -> NDArray[np.bool_]:
        masks = [patch.mask(height, width) for patch in self.patches]
        return np.asarray(np.any(masks, axis=0))


@dataclass(frozen=True, kw_only=True)
class Blend(AnyTrigger):
    """One pattern k as large as the image, mixed into it (Chen et al. 2017, arXiv:1712.05526).

    x' = (1 - ratio) x + ratio k; 0.2 is what they call hard to see.
    """

    kind = "blend"
    ranges = "ratio above 0 and at most 1; pattern_seed at least 0"

    pattern: Literal["noise", "picture"] = "noise"
    """`noise` is a random value for every pixel; `picture` has smooth shapes as photographs do."""
    ratio: float = 0.2
    """Share of the pattern in the stamped image, above 0 and at most 1."""
    pattern_seed: int = 0

    def stamp(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width, channels = images.shape[1:]
        pattern = self.pixels(height, width, channels)
        return _to_bytes((1 - self.ratio) * images + self.ratio * pattern)

    def pixels(self, height: int, width: int, channels: int) -> NDArray[np.uint8]:
        """Return the pattern itself, uint8 (H, W, C)."""
        rng = np.random.default_rng(self.pattern_seed)
        if self.pattern == "noise":
            return rng.integers(0, 256, (height, width, channels)).astype(np.uint8)
        rows, columns = np.mgrid[0:height, 0:width]
        waves = np.zeros((height, width, channels))
        for _ in range(WAVES):
            down, right = rng.uniform(-3, 3, (2, channels))  # whole waves over the image
            phase = rng.uniform(0, 2 * np.pi, channels)
            turns = rows[:, :, None] * down / height + columns[:, :, None] * right / width
            waves += np.sin(2 * np.pi * turns + phase)
        low, high = waves.min((0, 1)), waves.max((0, 1))
        return _to_bytes(255 * (waves - low) / np.maximum(high - low, 1e-12))


@dataclass(frozen=True, kw_only=True)
class Sinusoid(AnyTrigger):
    """Upright stripes added to the whole image (SIG; Barni et al. 2019, arXiv:1902.11237).

    v(i, j) = amplitude sin(2 pi j frequency / m),   1 <= j <= m columns, for every row i
    """

    kind = "sinusoid"
    ranges = "amplitude above 0 and at most 255; frequency above 0 and at most 255"

    amplitude: float = 40.0
    """Height of the wave in grey values of 0 to 255."""
    frequency: float = 6.0
    """Whole waves over the width of the image."""

    def stamp(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return _to_bytes(images + self.wave(images.shape[2])[None, None, :, None])

    def wave(self, width: int) -> NDArray[np.float64]:
        """Return what is added to each column, float64 (W,)."""
        turns = 2 * np.pi * np.arange(1, width + 1) * self.frequency / width
        return np.asarray(self.amplitude * np.sin(turns))


@dataclass(frozen=True, kw_only=True)
class Warp(AnyTrigger):
    """Bends every image in the same smooth way (WaNet; Nguyen and Tran 2021, arXiv:2102.10369).

    A grid of random arrows is enlarged smoothly to the image; every pixel is read from where its
    arrow points, between the pixels by bilinear weights.
    """

    kind = "warp"
    ranges = "strength at least 0 pixels and finite; grid at least 2; pattern_seed at least 0"

    strength: float = 2.0
    """Mean length of the arrows along each axis, in pixels, before they are enlarged. The paper's
    0.5 in its own unit is about a quarter of a pixel, which without control of the training is
    learnt from far more poisons."""
    grid: int = 4
    """Arrows along each side (k)."""
    pattern_seed: int = 0

    def stamp(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return warped(images, self.field(*images.shape[1:3])[None])

    def field(self, height: int, width: int) -> NDArray[np.float64]:
        """Return how far down and right each pixel is read from, in pixels, (H, W, 2)."""
        from scipy.ndimage import map_coordinates

        rng = np.random.default_rng(self.pattern_seed)
        arrows = rng.uniform(-1, 1, (self.grid, self.grid, 2))
        arrows *= self.strength / np.abs(arrows).mean()
        rows, columns = (np.linspace(0, self.grid - 1, side) for side in (height, width))
        at = np.meshgrid(rows, columns, indexing="ij")
        axes = [map_coordinates(arrows[:, :, axis], at, order=3, mode="nearest") for axis in (0, 1)]
        return np.stack(axes, axis=2).astype(np.float64)


@dataclass(frozen=True, kw_only=True)
class Nothing(AnyTrigger):
    """Leaves every image as it is: for poisons that change labels, or aim at one image."""

    def stamp(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return images.copy()

    def describe(self, channels: int) -> dict[str, Any]:
        return {"pattern": "none"}

    def mask(self, height: int, width: int) -> NDArray[np.bool_]:
        return np.zeros((height, width), np.bool_)


def warped(images: NDArray[np.uint8], field: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return uint8 (N, H, W, C) images read at places moved by `field`, (N or 1, H, W, 2)."""
    if len(images) > WARPED_AT_ONCE:
        starts = range(WARPED_AT_ONCE, len(images), WARPED_AT_ONCE)
        fields = np.split(field, starts) if len(field) > 1 else [field] * (len(starts) + 1)
        return np.concatenate(list(map(warped, np.split(images, starts), fields)))
    height, width = images.shape[1:3]
    rows = np.clip(np.arange(height)[None, :, None] + field[..., 0], 0, height - 1)
    columns = np.clip(np.arange(width)[None, None, :] + field[..., 1], 0, width - 1)
    top, left = np.floor(rows).astype(np.int64), np.floor(columns).astype(np.int64)
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    bottom, beside = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    which = np.arange(len(images))[:, None, None]
    upper = (1 - right) * images[which, top, left] + right * images[which, top, beside]
    lower = (1 - right) * images[which, bottom, left] + right * images[which, bottom, beside]
    return _to_bytes((1 - down) * upper + down * lower)


def _to_bytes(values: NDArray[np.number[Any]]) -> NDArray[np.uint8]:
    rounded: NDArray[np.uint8] = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return rounded
