"""Architectures by name, one file each: `(shape, classes) -> nn.Module` with random weights.

`shape` is (channels, height, width). Every architecture takes images in [0, 1] and normalises
inside, so that epsilon is in pixel units everywhere and the app cannot skew from training.

- `classic_cnn`   two convolutions and two dense layers, as in most tutorials
- `small_cnn`     the same idea at a fifteenth of the size
- `residual_cnn`  residual blocks and batch normalisation: better and, by parameters, smaller
"""

import sys

from purpleteam.models.architectures._base import ARCHITECTURES, Normalise, Shape, initialise

__all__ = ["ARCHITECTURES", "Normalise", "Shape", "initialise"]

ARCHITECTURES.load(sys.modules[__name__])
