"""Signed notes and checkpoints, as C2SP has them (c2sp.org/signed-note, c2sp.org/tlog-checkpoint).

Ed25519 (RFC 8032) alone. Keys are spelled as Go's sumdb/note spells them: what others wrote opens
here, and what is written here opens elsewhere.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from purpleteam.core.errors import UsageError

ED25519 = b"\1"  # the kind of signature
NAME = re.compile(r"[^\s+]+")
NOTE = re.compile("(?:[^\n]+\n)+\n(?:\u2014 [^\n ]+ [A-Za-z0-9+/=]+\n)+".encode())


class NotSigned(Exception):
    """No signature by the key is there, or the one that is there is wrong."""


@dataclass(frozen=True)
class PublicKey:
    """A name and the key behind it: `name+id+key`, the id in hex and the key in base64."""

    name: str
    key: bytes  # 32 bytes

    @property
    def id(self) -> bytes:
        return hashlib.sha256(self.name.encode() + b"\n" + ED25519 + self.key).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{_base64(ED25519 + self.key)}"

    @classmethod
    def parse(cls, text: str) -> "PublicKey":
        name, _, rest = text.strip().partition("+")
        told, _, encoded = rest.partition("+")
        try:
            content = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            content = b""
        key = cls(name, content[1:])
        if not NAME.fullmatch(name) or content[:1] != ED25519 or len(content) != 33:
            raise UsageError(f"{text.strip()[:80]!r} is no public key of the form name+id+key")
        if told != key.id.hex():
            raise UsageError(
                f"{text.strip()[:80]!r} has the id {told}, and the key is {key.id.hex()}"
            )
        return key

    def open(self, note: str) -> str:
        """Return the text of a note that this key has signed; NotSigned where it has not."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        text, blank, signatures = note.rpartition("\n\n")
        text += "\n"
        for line in signatures.splitlines() if blank else ():
            dash, _, rest = line.partition(" ")
            name, _, encoded = rest.partition(" ")
            try:
                content = base64.b64decode(encoded, validate=True)
            except (binascii.Error, ValueError):
                content = b""
            if dash != "\u2014" or len(content) < 5:
                raise NotSigned("a line of signatures is damaged")
            if name == self.name and content[:4] == self.id:
                try:
                    Ed25519PublicKey.from_public_bytes(self.key).verify(content[4:], text.encode())
                except (InvalidSignature, ValueError):
                    raise NotSigned(f"the signature of {self.name} is wrong") from None
                return text
        raise NotSigned(f"it is not signed by {self.name}, {self.id.hex()}")


class SecretKey:
    """A key that signs: `PRIVATE+KEY+name+id+seed`."""

    def __init__(self, name: str, seed: bytes) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        self.seed = seed  # 32 bytes
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = PublicKey(name, self._private.public_key().public_bytes_raw())

    def __str__(self) -> str:
        public = self.public
        return f"PRIVATE+KEY+{public.name}+{public.id.hex()}+{_base64(ED25519 + self.seed)}"

    @classmethod
    def parse(cls, text: str) -> "SecretKey":
        """Read a key; the message of the UsageError holds nothing of it."""
        *_, name, told, encoded = ["", "", "", *text.strip().split("+", 4)]
        try:
            content = base64.b64decode(encoded, validate=True)
            key = cls(name, content[1:])
        except (binascii.Error, ValueError):
            raise UsageError("it holds no secret key") from None
        if not text.startswith("PRIVATE+KEY+") or told != key.public.id.hex():
            raise UsageError("it holds no secret key, or a damaged one")
        return key

    def sign(self, text: str) -> str:
        """Return a text, which ends with a newline, as a note."""
        signature = self.public.id + self._private.sign(text.encode())
        return f"{text}\n\u2014 {self.public.name} {_base64(signature)}\n"


@dataclass(frozen=True)
class Checkpoint:
    """What a log says of itself: so many leaves, under this root."""

    origin: str
    size: int
    root: bytes

    def __str__(self) -> str:
        return f"{self.origin}\n{self.size}\n{_base64(self.root)}\n"

    @classmethod
    def open(cls, note: str, key: PublicKey) -> "Checkpoint":
        """Read a checkpoint that the key has signed; NotSigned for any other."""
        origin, size, root, *_ = [*key.open(note).split("\n"), "", "", ""]
        try:
            decoded = base64.b64decode(root, validate=True)
        except (binascii.Error, ValueError):
            decoded = b""
        if origin != key.name or not (size.isascii() and size.isdigit()) or len(decoded) != 32:
            raise NotSigned("what is signed is no checkpoint of this log")
        return cls(origin, int(size), decoded)


def notes_in(content: bytes) -> Iterator[tuple[str, int]]:
    """Yield the notes that follow one another, each with where it ends."""
    for found in NOTE.finditer(content):
        yield found[0].decode("utf-8", "replace"), found.end()


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
