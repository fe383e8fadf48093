"""Deep Partition Aggregation: a vote that few changed training images cannot turn.

- `dpa`          `certify_partitions`: a training set and images -> a certificate
- `layout`       which part an image falls into, by its pixels alone
- `figure`       one image alone onto the canvas;  `edges`: the fixed first layers
- `learners/`    how a part's network is trained;  `ensemble`: the networks of all parts
- `votes`        what votes prove;  `certificate`: the record of it
"""

from __future__ import annotations

from purpleteam.certify.partition.certificate import PartitionCertificate
from purpleteam.certify.partition.dpa import certify_partitions, fitting
from purpleteam.certify.partition.layout import Layout
from purpleteam.certify.partition.learners import LEARNERS, Learner, seeded

__all__ = [
    "LEARNERS",
    "Layout",
    "Learner",
    "PartitionCertificate",
    "certify_partitions",
    "fitting",
    "seeded",
]
