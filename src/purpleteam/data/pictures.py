"""Image files, read as input from strangers: measured before decoded, every change noted.

- grey (1, 8 or 16 bits; 16 are divided by 257) or colour; CMYK and the like become RGB
- palette, or with transparency: laid on black; grey if all of it is and the set is grey
- turned upright as its EXIF orientation says; of several frames the first
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.errors import DataError, MissingExtra

FORMATS = ("PNG", "JPEG", "BMP", "PPM", "WEBP")  # under any name; PGM and PBM are PPM
BY_NAME = {".gif": "GIF", ".tif": "TIFF", ".tiff": "TIFF"}  # under their own names alone
ENDS = {*BY_NAME, ".png", ".jpg", ".jpeg", ".jpe", ".bmp", ".ppm", ".pgm", ".pbm", ".webp"}
MAX_PIXELS = 16 << 20  # of one image, before and after resizing
GREY, COLOUR, NEUTRAL = "grey", "colour", "neutral"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How image files are read; given as `my_images:resize=32,skip_unreadable=true`."""

    resize: int | str | None = None
    """Size that all images get: 32 or 32x48 (height x width), by bilinear interpolation over the
    whole area of what becomes one pixel; the sides are stretched as they have to be."""
    skip_unreadable: bool = False
    """Leave out images that cannot be read; otherwise they are named and the set is refused."""
    labels: str | None = None
    """A file with a line for each image: file,label."""

    def __post_init__(self) -> None:
        self.size  # noqa: B018  what is no size is refused now

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width that all images get, or None."""
        if self.resize is None:
            return None
        sides = str(self.resize).lower().split("x")
        if len(sides) > 2 or not all(side.isascii() and side.isdigit() for side in sides):
            raise ValueError(f"resize {str(self.resize)!r} is no size such as 32 or 32x48")
        height, width = int(sides[0]), int(sides[-1])
        if not 0 < height * width <= MAX_PIXELS:
            raise ValueError(f"resize {str(self.resize)!r} is not 1 to {MAX_PIXELS} pixels")
        return height, width


@dataclass(frozen=True, eq=False)
class Picture:
    """One image file, decoded."""

    pixels: NDArray[np.uint8]  # (H, W, C) with C = 1 or 3
    kind: str  # `grey`, `colour`, or `neutral`: a palette or transparency, and every pixel grey
    mode: str  # what Pillow calls the form of the file's pixels
    size: tuple[int, int]  # height and width before it was resized
    changes: Sequence[str]


def read_picture(path: Path, size: tuple[int, int] | None = None) -> Picture:
    """Read an image file, resized to height and width where a size is given."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise MissingExtra("Pillow, which reads image files,", "lab") from None
    formats = (*FORMATS, *filter(None, [BY_NAME.get(path.suffix.lower())]))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=formats) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise DataError(f"{path}: {width}x{height} is over {MAX_PIXELS} pixels")
                return _picture(image, path, size)
    except UnidentifiedImageError:
        known = ", ".join(formats)
        raise DataError(f"{path}: no image of a known format; known: {known}") from None
    except DataError:
        raise
    except Exception as error:  # a decoder may raise anything on a hostile file
        if isinstance(error, OSError) and error.strerror:  # the file is the matter, not the image
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None
        reason = " ".join(str(error).replace(str(path), "").split())[:200] or type(error).__name__
        raise DataError(f"{path}: cannot be read as an image: {reason}") from None


def _picture(image: Any, path: Path, size: tuple[int, int] | None) -> Picture:
    from PIL import Image, ImageOps

    mode, changes = image.mode, []
    if getattr(image, "n_frames", 1) > 1:
        changes.append("of several frames the first was taken")
    image.load()
    upright = ImageOps.exif_transpose(image)
    if upright.size != image.size or upright.getexif().get(274) != image.getexif().get(274):
        changes.append("turned upright as their EXIF orientation says")
    image = upright
    if mode.startswith("F"):
        raise DataError(f"{path}: pixels are floats (mode {mode}); store 8 or 16 bits a channel")
    kind = GREY if mode in ("1", "L", "LA", "La") or mode.startswith("I") else COLOUR
    if mode.startswith("I"):
        deep = np.asarray(image).astype(np.int64)
        low, high = deep.min(), deep.max()
        if low < 0 or high > 65535:
            raise DataError(f"{path}: grey values from {low} to {high}; 16 bits hold 0 to 65535")
        image = Image.fromarray(((deep + 128) // 257).astype(np.uint8))
        changes.append("had 16 bits and were scaled to 8")
    elif image.has_transparency_data:
        clear = image.convert("RGBA")
        if clear.getextrema()[3][0] < 255:
            changes.append("are transparent in places and were laid on black")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), clear)
    image = image.convert("L" if kind == GREY else "RGB")
    before = image.size[::-1]
    if kind == COLOUR and mode not in ("RGB", "CMYK", "YCbCr"):
        values = np.asarray(image)
        kind = NEUTRAL if (values == values[..., :1]).all() else COLOUR
    if size is not None and before != size:
        image = image.resize(size[::-1], Image.Resampling.BILINEAR)
        changes.append(f"were resized to {size[1]}x{size[0]} (bilinear)")
    pixels = np.array(image, np.uint8)
    return Picture(pixels.reshape(*pixels.shape[:2], -1), kind, mode, before, changes)
