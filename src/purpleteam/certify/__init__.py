"""Certificates: what an adversary of a stated strength cannot change.

- `dpa`        Deep Partition Aggregation: against insertions and removals of training images
- `features`   the fixed first layers of every part's network
- `learners/`  how a part's network is trained, one way a file
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from purpleteam.certify.dpa import PartitionCertificate, certify_partitions
    from purpleteam.certify.learners import LEARNERS

__all__ = ["LEARNERS", "PartitionCertificate", "certify_partitions"]


def __getattr__(name: str) -> object:
    if name not in __all__:  # the rest needs torch, and this room is named by the map of rooms
        raise AttributeError(f"module 'purpleteam.certify' has no attribute {name!r}")
    from purpleteam.certify import dpa, learners

    return getattr(learners if name == "LEARNERS" else dpa, name)


def __dir__() -> list[str]:
    return list(__all__)
