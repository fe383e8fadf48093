"""Common corruptions: what happens to images without an adversary, at severities 1 to 5.

The fifteen kinds are those of MNIST-C (Mu & Gilmer 2019, arXiv:1906.02337), which took some from
ImageNet-C (Hendrycks & Dietterich 2019, arXiv:1903.12261). They are written from the papers, for
images of any size, grey or in colour; the papers leave the strengths open, so these are ours, and
figures do not compare with published ones digit by digit.

- `noise`     shot_noise, impulse_noise
- `blur`      glass_blur, motion_blur
- `geometry`  rotate, scale, shear, translate
- `weather`   brightness, fog, spatter
- `strokes`   stripe, dotted_line, zigzag, canny_edges
"""

import sys

from purpleteam.data.corruptions._base import CORRUPTIONS, SEVERITIES, corrupt

__all__ = ["CORRUPTIONS", "SEVERITIES", "corrupt"]

CORRUPTIONS.load(sys.modules[__name__])
