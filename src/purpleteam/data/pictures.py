"""Image files, read as input from strangers: measured before decoded, every change noted.

What a file may be, and what becomes of it:

- grey (1, 8 or 16 bits; 16 are divided by 257) or colour; CMYK and the like become RGB
- palette, or with transparency: laid on black; grey if all of it is and the set is grey
- turned upright as its EXIF orientation says; of several frames the first
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from purpleteam.core.errors import DataError, MissingExtra
from purpleteam.core.progress import SILENT, Progress
from purpleteam.data.idx import MAX_BYTES

FORMATS = ("PNG", "JPEG", "BMP", "PPM", "WEBP")
"""The formats that are opened whatever a file's name; PGM and PBM are PPM."""
BY_NAME = {".gif": "GIF", ".tif": "TIFF", ".tiff": "TIFF"}
"""Formats that are opened under their own names alone; each parser is attack surface."""
ENDS = {*BY_NAME, ".png", ".jpg", ".jpeg", ".jpe", ".bmp", ".ppm", ".pgm", ".pbm", ".webp"}
"""How the name of an image ends, in any case."""
MAX_PIXELS = 16 << 20
"""Most pixels of one image, before and after resizing."""
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

    pixels: NDArray[np.uint8]
    """(H, W, C) with C = 1 or 3."""
    kind: str
    """`grey`, `colour`, or `neutral`: a palette or transparency, and every pixel grey."""
    mode: str
    """What Pillow calls the form of the file's pixels."""
    size: tuple[int, int]
    """Height and width before it was resized."""
    changes: tuple[str, ...] = ()


def read_image(path: Path, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Return the pixels of an image file: (H, W, 1) where it is grey, else (H, W, 3)."""
    return read_picture(path, size).pixels


def read_picture(path: Path, size: tuple[int, int] | None = None) -> Picture:
    """Read an image file, and resize it to height and width where `size` says so.

    Raises:
        DataError: it is none of the known formats, damaged or too large.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise MissingExtra("Pillow, which reads image files,", "lab") from None
    named = BY_NAME.get(path.suffix.lower())
    formats = (*FORMATS, named) if named else FORMATS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=formats) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise DataError(f"{path}: {width}x{height} is over {MAX_PIXELS} pixels")
                return _picture(image, path, size)
    except UnidentifiedImageError:
        raise DataError(
            f"{path}: no image of a known format; known: {', '.join(formats)}"
        ) from None
    except DataError:
        raise
    except Exception as error:  # a decoder may raise anything on a hostile file
        reason = " ".join(str(error).replace(str(path), "").split()) or type(error).__name__
        raise DataError(f"{path}: cannot be read as an image: {reason[:200]}") from None


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
        if deep.min() < 0 or deep.max() > 65535:
            raise DataError(
                f"{path}: grey values from {deep.min()} to {deep.max()}; 16 bits hold 0 to 65535"
            )
        image = Image.fromarray(((deep + 128) // 257).astype(np.uint8))
        changes.append("had 16 bits and were scaled to 8")
    elif image.has_transparency_data:
        clear = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (0, 0, 0, 255))
        if clear.getextrema()[3][0] < 255:
            changes.append("are transparent in places and were laid on black")
        image = Image.alpha_composite(ground, clear)
    image = image.convert("L" if kind == GREY else "RGB")
    height, width = image.size[1], image.size[0]
    if kind == COLOUR and mode not in ("RGB", "CMYK", "YCbCr"):
        values = np.asarray(image)
        kind = NEUTRAL if (values == values[..., :1]).all() else COLOUR
    if size is not None and (height, width) != size:
        image = image.resize(size[::-1], Image.Resampling.BILINEAR)
        changes.append(f"were resized to {size[1]}x{size[0]} (bilinear)")
    pixels = np.array(image, np.uint8)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    return Picture(pixels, kind, mode, (height, width), tuple(changes))


@dataclass
class Album:
    """Image files read one after the other, with all that is to be noted of them."""

    folder: Path
    reading: Reading = field(default_factory=Reading)
    changes: Counter[str] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    sizes: dict[tuple[int, int], list[Path]] = field(default_factory=dict)
    kinds: set[str] = field(default_factory=set)
    unreadable: dict[Path, str] = field(default_factory=dict)
    count: int = 0
    _bytes: int = 0

    def read(
        self, paths: Sequence[Path], progress: Progress = SILENT
    ) -> list[tuple[int, NDArray[np.uint8]]]:
        """Return the place in `paths` and the pixels of each file that can be read."""
        images: list[tuple[int, NDArray[np.uint8]]] = []
        with progress.task(f"reading {self.folder.name}", len(paths)) as task:
            for place, path in enumerate(paths):
                self.count += 1
                task.advance()
                try:
                    picture = read_picture(path, self.reading.size)
                except DataError as error:
                    self.unreadable[path] = str(error).removeprefix(f"{path}: ")
                    continue
                self.changes.update(picture.changes)
                self.modes[picture.mode] += 1
                self.sizes.setdefault(picture.size, []).append(path)
                self.kinds.add(picture.kind)
                self._bytes += picture.pixels.size
                if self._bytes > MAX_BYTES:
                    raise DataError(f"{self.folder}: over {MAX_BYTES} bytes of pixels")
                images.append((place, picture.pixels))
        return images

    def check(self) -> None:
        """Refuse images that cannot be read, unless they may be skipped, and those of other sizes.

        Raises:
            DataError: with the names of the first few, and the remedy.
        """
        if self.unreadable and not self.reading.skip_unreadable:
            path, reason = next(iter(self.unreadable.items()))
            raise DataError(
                f"{path}: {reason}; {len(self.unreadable)} of {self.count} images cannot be read "
                f"({few(map(self.name, self.unreadable))}): leave them out with --skip-unreadable"
            )
        if len(self.sizes) > 1 and self.reading.size is None:
            size = max(self.sizes, key=lambda known: len(self.sizes[known]))
            differ = [
                (other, path)
                for other, paths in self.sizes.items()
                for path in paths
                if other != size
            ]
            (height, width), path = differ[0]
            raise DataError(
                f"{path}: {width}x{height}, but {self.sizes[size][0]}: {size[1]}x{size[0]}; "
                f"{len(differ)} of {self.count} images differ from {size[1]}x{size[0]} "
                f"({few(self.name(path) for _, path in differ)}): give all one size with "
                f"--resize {size[0]}x{size[1]}"
            )

    @property
    def channels(self) -> int:
        """1 where some images are grey and none has colour, else 3."""
        return 1 if GREY in self.kinds and COLOUR not in self.kinds else 3

    def stacked(self, pixels: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Return images (N, H, W, C) of the form that all of the album get."""
        fitted = [image[..., : self.channels] for image in pixels]
        shape = (*fitted[0].shape[:2], self.channels) if fitted else (0, 1, 1, self.channels)
        images = np.array([np.broadcast_to(image, shape) for image in fitted], np.uint8)
        return images.reshape((len(fitted), *shape[-3:]))

    def notes(self) -> list[str]:
        """Return what was changed, a line for each kind of change."""
        notes = [f"{count} of {self.count} images {what}" for what, count in self.changes.items()]
        if self.unreadable:
            notes.append(
                f"{len(self.unreadable)} of {self.count} images cannot be read and were skipped: "
                f"{few(map(self.name, self.unreadable))}"
            )
        return notes

    def name(self, path: Path) -> str:
        """Return a file's path within the folder."""
        return path.relative_to(self.folder).as_posix()


def few(names: Iterable[object], most: int = 3) -> str:
    """Return the first few names, and how many more there are."""
    listed = [str(name) for name in names]
    rest = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + rest
