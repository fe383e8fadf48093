"""Certificates: what an adversary of a stated strength cannot change.

- `dpa`        Deep Partition Aggregation: against insertions and removals of training images
- `smoothing`  randomized smoothing: against changes of an image in L2, of any classifier
- `radii`      certified L2 radii, and what they come to over images
- `features`   the fixed first layers of every part's network
- `learners/`  how a part's network is trained, one way a file
"""

from purpleteam.certify.dpa import PartitionCertificate, certify_partitions
from purpleteam.certify.learners import LEARNERS

__all__ = ["LEARNERS", "PartitionCertificate", "certify_partitions"]
