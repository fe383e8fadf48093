"""Certificates: bound from below what an adversary of a stated strength can reach.

- `partition/`  against changes of the training set: Deep Partition Aggregation
"""
