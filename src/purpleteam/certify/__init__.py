"""Certificates: what an adversary of a stated strength cannot change.

- `partition/`  Deep Partition Aggregation: against insertions and removals of training images
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from purpleteam.certify.partition import LEARNERS, PartitionCertificate, certify_partitions

__all__ = ["LEARNERS", "PartitionCertificate", "certify_partitions"]


def __getattr__(name: str) -> object:
    if name not in __all__:  # the rest needs torch, and this room is named by the map of rooms
        raise AttributeError(f"module 'purpleteam.certify' has no attribute {name!r}")
    return getattr(import_module("purpleteam.certify.partition"), name)


def __dir__() -> list[str]:
    return list(__all__)
