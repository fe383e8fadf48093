"""Does a trained model have a backdoor? One detector a file; `scan_model` asks them all.

- `patch`            the smallest patch for each class (Neural Cleanse), on a log scale
- `additive`         the shortest addition for each class: blended patterns, sinusoids
- `warp`             the smallest smooth warp for each class: WaNet
- `source_specific`  the smallest patch for each pair of classes: TaCT
- `feature`          the shortest shift of the last layer's features for each class: FeatureRE
- `max_margin`       the largest margin of each class, without any image: MM-BD
- `reference`        distilled from the model: how near each class is by nature
- `scan`             asks them all, and makes one verdict of what they found
"""

import sys

from purpleteam.defences.detection.model._base import (
    MODEL_DETECTORS,
    Evidence,
    ModelDetector,
    Null,
    Scanning,
)
from purpleteam.defences.detection.model.scan import ModelScan, scan_model

__all__ = ["MODEL_DETECTORS", "Evidence", "ModelDetector", "ModelScan", "Null", "Scanning"]
__all__ += ["scan_model"]

MODEL_DETECTORS.load(sys.modules[__name__])
