"""Merkle tree hashes, inclusion and consistency proofs: RFC 6962, section 2.1, and RFC 9162.

A proof is a list of hashes of stretches of leaves. Which stretches is said without a look at any
leaf (`inclusion_path`, `consistency_path`), so one pass over a file of any size makes the hashes.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256

Stretch = tuple[int, int]
"""The leaves from the first number up to, not including, the second."""


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf, which no node can have."""
    return sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a node over two."""
    return sha256(b"\1" + left + right).digest()


class Tree:
    """The right edge of a growing tree: all that it takes to append, and to name the root."""

    def __init__(self, size: int = 0, edge: Iterable[bytes] = ()) -> None:
        self.size, self.edge = size, list(edge)  # roots of perfect trees, the largest first
        if len(self.edge) != size.bit_count():
            raise ValueError(f"a tree of {size} leaves has an edge of {size.bit_count()} hashes")

    def append(self, leaf: bytes) -> None:
        """Add the hash of a leaf."""
        size, edge = self.size, self.edge
        self.size = size + 1
        while size & 1:
            leaf = sha256(b"\1" + edge.pop() + leaf).digest()
            size >>= 1
        edge.append(leaf)

    def root(self) -> bytes:
        """Return the hash that names all leaves and their order."""
        if not self.edge:
            return sha256().digest()
        *lefts, root = self.edge
        for left in reversed(lefts):
            root = node_hash(left, root)
        return root


def inclusion_path(index: int, size: int) -> list[Stretch]:
    """Return whose hashes prove a leaf to whoever has the root: PATH of RFC 6962, 2.1.1."""
    if not 0 <= index < size:
        raise ValueError(f"no leaf {index} in a tree of {size}")
    path, start, end = list[Stretch](), 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append((middle, end))
            end = middle
        else:
            path.append((start, middle))
            start = middle
    return path[::-1]


def consistency_path(first: int, size: int) -> list[Stretch]:
    """Return whose hashes prove that a tree of `first` leaves is the beginning of one of `size`.

    PROOF of RFC 6962, 2.1.2.
    """
    if not 0 < first <= size:
        raise ValueError(f"a tree of {first} leaves is no beginning of one of {size}")
    path, start, end = list[Stretch](), 0, size
    while first != end:
        middle = start + _split(end - start)
        if first <= middle:
            path.append((middle, end))
            end = middle
        else:
            path.append((start, middle))
            start = middle
    # what is left is a whole part of the first tree, whose verifier knows the root of all of it
    return ([(start, end)] if start else []) + path[::-1]


def hashes_of(path: Sequence[Stretch], leaves: Iterable[bytes]) -> list[bytes]:
    """Return the hash of each stretch, in one pass over the hashes of all leaves."""
    trees = {stretch: Tree() for stretch in path}
    number, ahead = 0, iter(sorted(path))
    start, end = next(ahead, (0, 0))
    for number, leaf in enumerate(leaves):
        if number == end:
            start, end = next(ahead, (0, 0))
        if start <= number < end:
            trees[start, end].append(leaf)
    if missing := [
        stretch for stretch, tree in trees.items() if tree.size != stretch[1] - stretch[0]
    ]:
        raise ValueError(f"{number + 1} leaves are too few for {missing}")
    return [trees[stretch].root() for stretch in path]


def proves_inclusion(
    leaf: bytes, index: int, size: int, root: bytes, proof: Sequence[bytes]
) -> bool:
    """Return whether the tree of that root has that leaf there: RFC 9162, 2.1.3.2."""
    if not 0 <= index < size:
        return False
    node, last = index, size - 1
    for other in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            leaf = node_hash(other, leaf)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            leaf = node_hash(leaf, other)
        node, last = node >> 1, last >> 1
    return last == 0 and leaf == root


def proves_consistency(
    first: int, first_root: bytes, size: int, root: bytes, proof: Sequence[bytes]
) -> bool:
    """Return whether the second tree only adds leaves to the first: RFC 9162, 2.1.4.2."""
    if not 0 < first <= size:
        return False
    if first == size:
        return not proof and first_root == root
    if first & (first - 1) == 0:  # a perfect tree, which the proof leaves out
        proof = [first_root, *proof]
    if not proof:
        return False
    node, last = first - 1, size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    before = after = proof[0]
    for other in proof[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            before, after = node_hash(other, before), node_hash(other, after)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            after = node_hash(after, other)
        node, last = node >> 1, last >> 1
    return last == 0 and before == first_root and after == root


def _split(size: int) -> int:
    """Return the largest power of two below `size`."""
    return 1 << (size - 1).bit_length() - 1
