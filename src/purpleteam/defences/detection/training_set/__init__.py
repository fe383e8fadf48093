"""Find the poisoned images of a training set; class, rate, trigger and family are unknown.

- `scanning`               the whole scan: every detector, one ranking, one verdict
- `shared_trigger`         what the contradicted images of one label share
- `compact_group`          a group of one label that stands off and is tight
- `split_label`            a label that falls in two, and what its smaller part shows
- `clean_reference`        a net that never learned from a doubted image contradicts the label
- `small_subsets`          votes of learners on small disjoint parts
- `label_errors`           confident learning
- `spectre`                robust whitening and quantum entropy scores
- `scan`                   SCAn: one group of features, or two
- `spectral_signatures`    outliers along the direction in which a class varies the most
- `mask_removal`           what an image loses when the inverted trigger is taken off it
- `activation_clustering`  a class that falls into two parts
"""

import sys

from purpleteam.defences.detection.training_set._analysis import TRAINING_SET_DETECTORS, Analysis
from purpleteam.defences.detection.training_set.scanning import TrainingSetScan, scan_training_set

__all__ = ["TRAINING_SET_DETECTORS", "Analysis", "TrainingSetScan", "scan_training_set"]

TRAINING_SET_DETECTORS.load(sys.modules[__name__])
