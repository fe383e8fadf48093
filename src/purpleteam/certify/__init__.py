"""Certificates: what an adversary of a stated strength cannot change.

Against changed images, at test time:
- `network`     a net as a graph of `layers` (affine) and `bends` (activations, pooling), read by
  `torch_graph` or `onnx_graph`
- `bounds`      IBP and CROWN; `tighten` for inner neurons, `slopes` searched (alpha and beta-CROWN)
- `cascade`     from the cheapest proof to `branch` and bound: verified, falsified or unknown
- `smoothing`   randomized smoothing: against changes in L2, of any classifier
- `lipschitz`   a bound of the net's slope: against changes in L2 and, weakly, L-infinity
- `radii`       certified radii, and attacks on what they claim
- `vnnlib`      problems for other verifiers, with the net of `onnx_writer`; verdicts read back

Against changed training images:
- `dpa`         Deep Partition Aggregation: against insertions and removals of training images
- `features`    the fixed first layers of every part's network
- `learners/`   how a part's network is trained, one way a file
"""

from purpleteam.certify.dpa import PartitionCertificate, certify_partitions
from purpleteam.certify.learners import LEARNERS

__all__ = ["LEARNERS", "PartitionCertificate", "certify_partitions"]
