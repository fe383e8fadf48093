"""What a model is asked: the type of who answers, how many images at once, and moved images."""

from collections.abc import Callable

import numpy as np

from purpleteam.core.arrays import Pixels, Singles

Ask = Callable[[Pixels], Singles]
"""The model: uint8 images (B, H, W, C) to scores (B, classes), a row of NaN where it refuses."""
TOGETHER = 256  # images whose copies are asked about at once


def moved(pixels: Pixels, down: int, right: int) -> Pixels:
    """Return images (N, H, W, C) moved by whole pixels; what comes in is black."""
    height, width = pixels.shape[1:3]
    out = np.zeros_like(pixels)
    into = slice(max(down, 0), height + min(down, 0)), slice(max(right, 0), width + min(right, 0))
    whence = (
        slice(max(-down, 0), height - max(down, 0)),
        slice(max(-right, 0), width - max(right, 0)),
    )
    out[:, *into] = pixels[:, *whence]
    return out
