r"""The file: one line of JSON is one leaf of the tree; some lines are signed checkpoints.

    {"time":1764460800.123,"kind":"start","cut":0,...}   the writer began; it cut a torn line off
    {"time":1764460801.456,"kind":"predict","id":...}    a request
    {"time":1764460802.789,"kind":"unanswered","lines":2}  a full disk: these two were no answers
    {"checkpoint":"ORIGIN\nSIZE\nROOT\n\n...","edge":[...]}   all lines before this one, signed

Beside FILE lie FILE.key (secret, mode 0600), FILE.pub, and FILE.checkpoints: each checkpoint once
more, as plain notes to copy elsewhere. `edge` is what a writer needs to go on from there: a start
reads what follows the last checkpoint alone, and never signs what contradicts that one.
"""

import contextlib
import fcntl
import json
import logging
import mmap
import os
import secrets
import stat
import time
from hashlib import blake2b
from importlib import metadata
from json.encoder import encode_basestring_ascii as _text
from pathlib import Path
from typing import Any

from purpleteam.core.errors import PurpleError, Refused, UsageError, reason_of
from purpleteam.serve.audit.merkle import Tree, leaf_hash
from purpleteam.serve.audit.note import Checkpoint, NotSigned, PublicKey, SecretKey, notes_in

CHECKPOINT = b'{"checkpoint":'
CHECKPOINT_LINES = 1 << 16  # a checkpoint comes at the latest after so many lines
NOTE_BYTES = 1000  # more than a checkpoint takes

log = logging.getLogger("purpleteam.serve")
_sync = getattr(os, "fdatasync", os.fsync)  # which macOS lacks


def beside(path: Path, kind: str) -> Path:
    """Return where the key, the pub or the checkpoints of a log lie."""
    return path.with_name(f"{path.name}.{kind}")


class AuditLog:
    """A log that is open for writing: by this process alone, which a lock of the file ensures.

    Args:
        path: made where it is not there, with its keys.
        checkpoint_seconds: a line is signed at the latest so long after it was written.

    Raises:
        UsageError: it cannot be opened, is locked, or others may read its key.
        Refused: it is not as it was left: shorter than its last checkpoint, or without its key.
    """

    def __init__(self, path: Path, checkpoint_seconds: float = 10.0) -> None:
        self.path, self.checkpoint_seconds = path, checkpoint_seconds
        self.broken = False
        """Whether nothing is known of the file any more; who opens it anew can go on."""
        self._begun, self._there = b"", 0  # lines that a full disk cut, and bytes of them it holds
        self._notes = b""  # copies of checkpoints that are still to be written
        self._fresh, self._due = 0, 0.0  # lines since the last checkpoint, and when to sign them
        self._file = self._copies = -1
        try:
            cut = self._open()
        except BlockingIOError:
            self.leave()
            raise UsageError(
                f"audit log {str(path)!r} is being written by another server"
            ) from None
        except OSError as error:
            self.leave()
            raise UsageError(f"audit log {str(path)!r}: {reason_of(error)}") from None
        except PurpleError:
            self.leave()
            raise
        if cut:
            log.warning("audit log %s: a torn last line of %d bytes was cut off", path, cut)

    def _open(self) -> int:
        """Lock the file, cut a torn line off and say so in it; return how many bytes it had."""
        # Whoever breaks into a confined process can add to files that are open so, no more: what is
        # open for reading too could be mapped into memory and written anywhere.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._file = os.open(self.path, flags, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._end = os.fstat(self._file).st_size
        self._key = self._read_key()
        self._copies = os.open(beside(self.path, "checkpoints"), flags, 0o644)
        cut = self._resume()
        self.write(
            encoded({"kind": "start", "cut": cut, "version": metadata.version("purpleteam")})
        )
        return cut

    @property
    def salt(self) -> bytes:
        """The secret by which bodies are digested; whoever has it cannot sign."""
        return blake2b(key=self._key.seed, person=b"purple audit", digest_size=32).digest()

    def write(self, lines: bytes) -> None:
        """Add whole lines, which are on the disk when this returns; after an OSError none counts.

        What a full disk took of them is cut off again. Where a sandbox refuses that, the line that
        was begun is finished once there is room, and one more says how many were not answered.
        """
        if self.broken or not lines.endswith(b"\n"):
            raise OSError(f"audit log {str(self.path)!r} can no longer be written")
        if self._begun:
            self._finish()
        self._add(lines)

    def _finish(self) -> None:
        told = {"kind": "unanswered", "lines": self._begun.count(b"\n")}
        self._add(self._begun + encoded(told), self._there)
        self._begun = b""

    def _add(self, lines: bytes, there: int = 0) -> None:
        """Add lines of which the file has so many bytes already."""
        left = memoryview(lines)
        try:
            while there < len(lines):
                there += os.write(self._file, left[there:])
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._end)
                there = 0
            self._begun = lines[: lines.find(b"\n", there - 1) + 1] if there else b""
            self._there = there
            raise
        try:
            _sync(self._file)
        except OSError:  # the kernel drops what it could not write: nothing is known of the file
            self.broken = True
            raise
        self._end += len(lines)
        self._hash(lines)

    def checkpoint(self) -> None:
        """Sign all lines so far, in the log and once more beside it."""
        if self._begun:
            self._finish()
        tree, name = self._tree, self._key.public.name
        note = self._key.sign(str(Checkpoint(name, tree.size, tree.root())))
        self._due = time.monotonic() + self.checkpoint_seconds  # should this one fail
        self.write(checkpoint_line(note, tree))
        self._fresh = 0
        self._notes += f"{note}\n".encode()
        while self._notes:  # what a full disk leaves of them comes first the next time
            self._notes = self._notes[os.write(self._copies, self._notes) :]
        _sync(self._copies)

    def seconds_to_checkpoint(self) -> float | None:
        """Return in how many seconds a checkpoint is due; None where nothing is new."""
        if not self._fresh or self.broken:
            return None
        return max(0.0, self._due - time.monotonic())

    def close(self) -> None:
        """Sign what is new, and let go of the file."""
        if self._fresh and not self.broken:
            with contextlib.suppress(OSError):
                self.checkpoint()
        self.leave()

    @property
    def filenos(self) -> tuple[int, int]:
        """The numbers of the files that are open."""
        return self._file, self._copies

    def leave(self) -> None:
        """Close the file in this process; a forked one that writes on keeps the lock."""
        for descriptor in self.filenos:
            if descriptor >= 0:
                os.close(descriptor)

    def _hash(self, lines: bytes) -> None:
        before = self._fresh
        for line in lines[:-1].split(b"\n"):
            self._tree.append(leaf_hash(line))
            self._fresh += 1
        if not before:
            self._due = time.monotonic() + self.checkpoint_seconds
        if before < CHECKPOINT_LINES <= self._fresh:
            self._due = 0.0

    def _read_key(self) -> SecretKey:
        secret, public = beside(self.path, "key"), beside(self.path, "pub")
        if not secret.exists():
            if self._end:
                raise Refused(f"audit log {str(self.path)!r} has lost its key, {secret.name!r}")
            key = SecretKey(f"purpleteam/audit/{secrets.token_hex(8)}", secrets.token_bytes(32))
            for file, text, mode in ((secret, key, 0o600), (public, key.public, 0o644)):
                made = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
                os.write(made, f"{text}\n".encode())
                os.fsync(made)
                os.close(made)
            return key
        if stat.S_IMODE(secret.stat().st_mode) & 0o077:
            raise UsageError(f"others may read {str(secret)!r}; try: chmod 600 {secret}")
        try:
            key = SecretKey.parse(secret.read_text(encoding="ascii"))
            if PublicKey.parse(public.read_text(encoding="ascii")) != key.public:
                raise UsageError(f"{public.name!r} is not its public key")
        except (UnicodeDecodeError, UsageError) as error:
            raise UsageError(f"{str(secret)!r}: {error}") from None
        return key

    def _resume(self) -> int:
        """Hash what follows the last checkpoint; return the bytes of a torn line, which is cut."""
        self._tree = Tree()
        cut = whole = 0
        if self._end:
            with (
                self.path.open("rb") as file,
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
            ):
                whole = content.rfind(b"\n") + 1
                start = content.rfind(b"\n" + CHECKPOINT, 0, whole) + 1
                if start:
                    self._tree = self._tree_of(content[start : content.find(b"\n", start)])
                if whole:
                    self._hash(content[start:whole])
            cut = self._end - whole
            os.ftruncate(self._file, whole)
            self._end = whole
        size = os.fstat(self._copies).st_size
        with beside(self.path, "checkpoints").open("rb") as file:
            file.seek(max(0, size - NOTE_BYTES))
            last = file.read()
        *_, (note, end) = [("", len(last)), *notes_in(last)]
        if end < len(last) - 1:  # a crash left the beginning of a note
            os.ftruncate(self._copies, size - len(last) + end)
        if note and (signed := self._opened(note).size) > self._tree.size:
            held = f"holds {self._tree.size} lines, and {signed} were signed"
            raise Refused(f"audit log {str(self.path)!r} {held}: it was cut short; begin another")
        return cut

    def _tree_of(self, line: bytes) -> Tree:
        try:
            content = json.loads(line)
            checkpoint = self._opened(content["checkpoint"])
            tree = Tree(checkpoint.size, map(bytes.fromhex, content["edge"]))
        except (ValueError, LookupError, TypeError, AttributeError):
            tree, checkpoint = Tree(), None
        if checkpoint is None or tree.root() != checkpoint.root:
            raise Refused(f"audit log {str(self.path)!r}: its last checkpoint is damaged")
        return tree

    def _opened(self, note: str) -> Checkpoint:
        try:
            return Checkpoint.open(note, self._key.public)
        except NotSigned as error:
            raise Refused(f"audit log {str(self.path)!r}: of its last checkpoint {error}") from None


_encode = json.JSONEncoder(separators=(",", ":")).encode


def encoded(record: dict[str, Any]) -> bytes:
    """Return a record as a line, which begins with the time: seconds since 1970, UTC."""
    fields = []  # on the way of every request: a JSONEncoder takes twice as long
    for name, value in record.items():
        if value is None:
            fields.append(f'"{name}":null')
        elif type(value) is str:
            fields.append(f'"{name}":{_text(value)}')
        else:
            fields.append(f'"{name}":{value if type(value) is int else _encode(value)}')
    return f'{{"time":{time.time():.3f},{",".join(fields)}}}\n'.encode()


def checkpoint_line(note: str, tree: Tree) -> bytes:
    """Return the line of a checkpoint, with what the next writer needs to grow the tree."""
    edge = [node.hex() for node in tree.edge]
    return f"{_encode({'checkpoint': note, 'edge': edge})}\n".encode()
