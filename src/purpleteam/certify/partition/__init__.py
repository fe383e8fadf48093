"""Deep Partition Aggregation: a vote that few changed training images cannot turn.

- `dpa`          `certify_partitions`: a training set and images -> a certificate
- `certificate`  which part an image falls into, what votes prove, and the record of it
- `features`     the fixed first layers of every part's network
- `learners/`    how a part's network is trained
"""

from purpleteam.certify.partition.certificate import Layout, PartitionCertificate
from purpleteam.certify.partition.dpa import certify_partitions, fitting
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
