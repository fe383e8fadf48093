"""Is an audit log as it was written? Every line is hashed and held against every checkpoint.

In one pass and bounded memory, whatever the file holds; proofs of single lines take a second one.
"""

import base64
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from purpleteam.core.errors import Refused, UsageError, reason_of
from purpleteam.core.verification import Part, Verdict
from purpleteam.serve.audit.log import CHECKPOINT, beside, checkpoint_line
from purpleteam.serve.audit.merkle import (
    Tree,
    hashes_of,
    inclusion_path,
    leaf_hash,
    proves_inclusion,
)
from purpleteam.serve.audit.note import Checkpoint, NotSigned, PublicKey, notes_in

PROVES = (
    "A pass says that the lines up to the last checkpoint are those that were signed, in their "
    "order. Whoever holds the key and the disk can write a log anew from its first line, and its "
    "last checkpoints can be cut off unseen: only a checkpoint and a public key that were kept "
    "elsewhere (--checkpoint, --log-key) show that. No line after the last checkpoint is proved."
)
MANY = 3  # of what is wrong that are told; the rest are counted
MOST_LINE = 1 << 16  # bytes
PROOF = "c2sp.org/tlog-proof@v1"


@dataclass(frozen=True)
class LogVerification:
    """What was looked at, one part each."""

    parts: tuple[Part, ...]
    lines: int
    signed: int  # lines that the largest fitting checkpoint covers
    checkpoint: str = ""  # that one, a note to keep elsewhere

    @property
    def verdict(self) -> Verdict:
        verdicts = {part.verdict for part in self.parts}
        return "fail" if "fail" in verdicts else "unknown" if "unknown" in verdicts else "pass"

    def to_json(self) -> dict[str, Any]:
        """Return the fields of `purple verify --log --json`."""
        parts = [asdict(part) for part in self.parts]
        counts = {"lines": self.lines, "signed": self.signed, "checkpoint": self.checkpoint}
        return {"verdict": self.verdict, "parts": parts, **counts, "proves": PROVES}


def verify_log(
    path: Path, *, checkpoints: Iterable[Path] = (), key: PublicKey | None = None
) -> LogVerification:
    """Look at every line of a log.

    Args:
        path: the log.
        checkpoints: files of checkpoints that were kept elsewhere; FILE.checkpoints counts too.
        key: the log's public key, where it was kept elsewhere; else FILE.pub is believed.
    """
    if not path.is_file():
        raise UsageError(f"audit log {str(path)!r} does not exist")
    public = key or public_key(beside(path, "pub"))
    look, copies = _Look(public), beside(path, "checkpoints")
    told: dict[int, list[tuple[str, str]]] = {}
    for file in [*([copies] if copies.exists() else []), *checkpoints]:
        notes = [note for note, _ in notes_in(_read(file))]
        if not notes and file != copies:
            raise UsageError(f"{str(file)!r} holds no checkpoint")
        for note in notes:
            if (size := look.size(note, str(file))) is not None:
                told.setdefault(size, []).append((note, str(file)))
    tree, torn = look.tree, 0
    for line in _lines(path):
        if line[-1:] != b"\n":
            torn = len(line)
            break
        if line.startswith(CHECKPOINT):
            look.own(line)
        # leaf_hash and Tree.append, without the calls
        leaf, size, edge = sha256(b"\0" + line[:-1]).digest(), tree.size, tree.edge
        tree.size = size + 1
        while size & 1:
            leaf = sha256(b"\1" + edge.pop() + leaf).digest()
            size >>= 1
        edge.append(leaf)
        for note, where in told.pop(tree.size, ()):
            look.hold(note, where)
    for size, ones in sorted(told.items()):
        look.wrong += [
            f"{file}: {size} lines were signed, {tree.size} are there" for _, file in ones
        ]
    return look.verification(torn)


class _Look:
    """What is known of a log, of which `tree` holds the lines so far."""

    def __init__(self, public: PublicKey) -> None:
        self.public, self.tree, self.wrong = public, Tree(), list[str]()
        self.fits = self.differ = 0  # checkpoints
        self.signed, self.note = 0, ""  # of the largest that fits
        self.end = 0  # of the lines up to it, or to its own line

    def size(self, note: str, where: str) -> int | None:
        """Return how many lines a checkpoint signs; None where it is none."""
        try:
            return Checkpoint.open(note, self.public).size
        except NotSigned as error:
            self.wrong.append(f"{where}: {error}")
            return None

    def own(self, line: bytes) -> None:
        """Hold the lines so far against the checkpoint that follows them in the log."""
        tree, where = self.tree, f"line {self.tree.size + 1}"
        try:
            note = str(json.loads(line)["checkpoint"])
        except (ValueError, LookupError, TypeError, RecursionError):
            note = ""
        size = self.size(note, where)
        if size is None or size != tree.size:
            if size is not None:
                self.wrong.append(f"{where} signs {size} lines, and follows {tree.size}")
        elif self.hold(note, where):
            self.end = tree.size + 1
            if line != checkpoint_line(note, tree):
                self.wrong.append(f"{where}: this checkpoint was edited")

    def hold(self, note: str, where: str) -> bool:
        """Hold the lines so far against a checkpoint that signs so many."""
        tree = self.tree
        if Checkpoint.open(note, self.public).root == tree.root():
            self.fits, self.signed, self.note = self.fits + 1, tree.size, note
            self.end = max(self.end, tree.size)
            return True
        if not self.differ:  # all later ones will differ too
            lines = f"lines {self.signed + 1} to {tree.size}"
            self.wrong.append(f"{where}: something in {lines} is not as it was signed")
        self.differ += 1
        return False

    def verification(self, torn: int) -> LogVerification:
        """Return what was found."""
        lines = Part("lines", "pass", f"lines 1 to {self.signed} fit {self.fits} checkpoints")
        if self.wrong:
            rest = f"; {len(self.wrong) - MANY} more" if len(self.wrong) > MANY else ""
            lines = Part("lines", "fail", "; ".join(self.wrong[:MANY]) + rest, tuple(self.wrong))
        elif not self.fits:
            lines = Part(
                "lines", "unknown", f"{self.tree.size} lines, no checkpoint signs them yet"
            )
        after = f"{self.tree.size - self.end} lines after the last checkpoint that fits"
        if torn:
            after += f"; a last one of {torn} bytes was not written to its end"
        parts = (lines, Part("end", "pass", after))
        return LogVerification(parts, self.tree.size, self.signed, self.note)


def answer_in(path: Path, answer: str) -> tuple[int, dict[str, Any]]:
    """Return the line, from 1, and the record of the answer with an id; UsageError for none."""
    for number, line in enumerate(_lines(path), 1):
        if answer.encode() in line:
            record: dict[str, Any] = json.loads(line)
            if record.get("id") == answer:
                return number, record
    raise UsageError(f"no answer has the id {answer!r} in {str(path)!r}")


def prove(path: Path, number: int, checkpoint: str) -> str:
    """Return a proof (c2sp.org/tlog-proof) that line `number`, from 1, is in what was signed."""
    size = int(checkpoint.split("\n")[1])
    if not 1 <= number <= size:
        raise UsageError(f"line {number} is not among the {size} lines that were signed")
    path_of = inclusion_path(number - 1, size)
    hashes = hashes_of(path_of, (leaf_hash(line[:-1]) for line in _lines(path)))
    shown = [base64.b64encode(node).decode() for node in hashes]
    return "\n".join([PROOF, f"index {number - 1}", *shown, "", checkpoint])


def proved(line: bytes, proof: str, key: PublicKey) -> bool:
    """Return whether a proof, beside nothing but the key, shows that a line was logged."""
    head, _, note = proof.partition("\n\n")
    first, index, *shown = [*head.split("\n"), "", ""][: max(2, head.count("\n") + 1)]
    try:
        checkpoint = Checkpoint.open(note, key)
        at = int(index.removeprefix("index "))
        hashes = [base64.b64decode(node, validate=True) for node in shown]
    except (NotSigned, ValueError):
        return False
    leaf = leaf_hash(line.removesuffix(b"\n"))
    return first == PROOF and proves_inclusion(leaf, at, checkpoint.size, checkpoint.root, hashes)


def public_key(given: Path | str) -> PublicKey:
    """Read a public key from a file, or from its text."""
    text = str(given)
    if "+" not in text or Path(text).exists():
        text = _read(Path(given)).decode("utf-8", "replace")
    return PublicKey.parse(text)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"{str(file)!r} cannot be read: {reason_of(error)}") from None


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(MOST_LINE):
                number += 1
                if len(line) == MOST_LINE and line[-1:] != b"\n":
                    raise Refused(f"{str(path)!r}: line {number} is longer than {MOST_LINE} bytes")
                yield line
    except OSError as error:
        raise UsageError(f"{str(path)!r} cannot be read: {reason_of(error)}") from None
