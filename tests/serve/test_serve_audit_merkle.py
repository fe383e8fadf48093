"""Tree hashes and proofs against the definition in RFC 6962, and notes against those of others."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from purpleteam.core.errors import UsageError
from purpleteam.serve.audit.merkle import (
    Tree,
    consistency_path,
    hashes_of,
    inclusion_path,
    leaf_hash,
    proves_consistency,
    proves_inclusion,
)
from purpleteam.serve.audit.note import Checkpoint, NotSigned, PublicKey, SecretKey, notes_in

LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657"]
LEAVES += ["606162636465666768696a6b6c6d6e6f"]
ROOTS = [  # of the first 1, 2, ... of them: the test data of Certificate Transparency
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
NOTE = """If you think cryptography is the answer to your problem,
then you don't know what your problem is.

\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=
"""  # noqa: E501 - of the documentation of Go's sumdb/note


def root_of(leaves: list[bytes]) -> bytes:
    """MTH, word by word as in RFC 6962, section 2.1."""
    if len(leaves) < 2:
        return leaves[0] if leaves else sha256(b"").digest()
    split = max(2**power for power in range(60) if 2**power < len(leaves))
    return sha256(b"\1" + root_of(leaves[:split]) + root_of(leaves[split:])).digest()


def hashed(count: int) -> list[bytes]:
    return [leaf_hash(str(number).encode()) for number in range(count)]


def test_the_roots_are_those_of_certificate_transparency() -> None:
    tree, roots = Tree(), list[str]()
    for leaf in LEAVES:
        tree.append(leaf_hash(bytes.fromhex(leaf)))
        roots.append(tree.root().hex())
    assert roots == ROOTS


@given(st.integers(0, 200))
@settings(deadline=None)
def test_a_tree_that_grew_has_the_root_of_the_definition(count: int) -> None:
    leaves, tree = hashed(count), Tree()
    for leaf in leaves:
        tree.append(leaf)
    assert tree.root() == root_of(leaves) == Tree(count, tree.edge).root()


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_leaf_is_proved_at_its_place_alone(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 130))
    at, other = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size + 1))
    leaves = hashed(size)
    root, proof = root_of(leaves), hashes_of(inclusion_path(at, size), leaves)
    assert proves_inclusion(leaves[at], at, size, root, proof)
    assert proves_inclusion(leaves[at], other, size, root, proof) == (other == at)
    assert not proves_inclusion(leaf_hash(b"forged"), at, size, root, proof)
    assert not proves_inclusion(leaves[at], at, size, root, [*proof, root])
    if proof:
        assert not proves_inclusion(leaves[at], at, size, root, proof[:-1])


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_tree_is_proved_the_beginning_of_those_that_begin_with_it(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 130))
    first, changed = data.draw(st.integers(1, size)), data.draw(st.integers(0, size - 1))
    leaves = hashed(size)
    root, proof = root_of(leaves), hashes_of(consistency_path(first, size), leaves)
    before = root_of(leaves[:first])
    assert proves_consistency(first, before, size, root, proof)
    leaves[changed] = leaf_hash(b"forged")
    forged = hashes_of(consistency_path(first, size), leaves)
    kept = proves_consistency(first, before, size, root_of(leaves), forged)
    assert kept == (changed >= first)
    assert not proves_consistency(first, before, size, root, [*proof, root])


def test_a_root_proves_nothing_of_a_tree_of_another_size() -> None:
    leaf = leaf_hash(b"a leaf")
    assert proves_inclusion(leaf, 0, 1, leaf, [])
    assert not proves_inclusion(leaf, 0, 2, leaf, [])
    assert not proves_consistency(1, leaf, 2, leaf, [])


@pytest.mark.parametrize(("index", "size"), [(3, 3), (-1, 3), (0, 0)])
def test_a_leaf_that_is_not_there_has_no_proof(index: int, size: int) -> None:
    assert not proves_inclusion(b"", index, size, b"", [])
    with pytest.raises(ValueError, match=f"no leaf {index} in a tree of {size}"):
        inclusion_path(index, size)


def test_a_note_that_go_signed_opens() -> None:
    key = PublicKey.parse(KEY)
    assert key.open(NOTE).endswith("what your problem is.\n") and str(key) == KEY


@pytest.mark.parametrize(
    ("old", "new"), [("answer", "Answer"), ("x08go", "x08gp"), ("PeterN", "PaterN"), ("\n\n", "\n")]
)
def test_a_note_that_was_changed_does_not(old: str, new: str) -> None:
    with pytest.raises(NotSigned):
        PublicKey.parse(KEY).open(NOTE.replace(old, new))


@pytest.mark.parametrize("old", ["c74f20a3", "ARpc", "PeterNeumann", "+"])
def test_a_damaged_public_key_is_refused(old: str) -> None:
    with pytest.raises(UsageError):
        PublicKey.parse(KEY.replace(old, "d74f20a3"))


def test_a_checkpoint_comes_back_as_it_was_signed() -> None:
    key = SecretKey("example.com/log", b"\7" * 32)
    checkpoint = Checkpoint("example.com/log", 12, bytes(32))
    note = SecretKey.parse(str(key)).sign(str(checkpoint))
    assert Checkpoint.open(note, key.public) == checkpoint
    assert [found for found, _ in notes_in(f"{note}\n{note}".encode())] == [note, note]


def test_a_checkpoint_of_another_log_is_none() -> None:
    key = SecretKey("example.com/log", b"\7" * 32)
    for text in (
        str(Checkpoint("example.com/other", 12, bytes(32))),
        "example.com/log\n12\nAA==\n",
    ):
        with pytest.raises(NotSigned, match="no checkpoint of this log"):
            Checkpoint.open(key.sign(text), key.public)


def test_a_damaged_secret_key_is_refused_without_being_told() -> None:
    text = str(SecretKey("example.com/log", b"\7" * 32))
    with pytest.raises(UsageError, match=r"damaged one$") as told:
        SecretKey.parse(text.replace("+AQcHB", "+AQcHC"))
    assert "HBwcH" not in str(told.value)
