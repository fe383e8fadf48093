"""API keys: who may ask what, until when. A key is `ID.SECRET`; the file of keys has no secret.

The file is JSON lines, to which lines are added: a key, or that it was revoked.

A secret is 256 random bits, which nobody can try out, so SHA-256 hides it as well as a slow hash
for passwords would, and that would cost every request milliseconds.
"""

import hmac
import json
import logging
import os
import re
import secrets
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from time import monotonic, time
from typing import Any, BinaryIO, ClassVar

from purpleteam.core.config import build
from purpleteam.core.errors import ConfigError, UsageError, reason_of, unknown
from purpleteam.core.registry import check_ranges
from purpleteam.serve.counts import Allowance

SCOPES = ("predict", "metrics")
HOURS = {"h": 1, "d": 24, "w": 7 * 24, "y": 365 * 24}
NEVER = "never"
LOOK_SECONDS = 2.0  # between two looks at whether the file has changed
OTHERS_WRITE = 0o022

log = logging.getLogger("purpleteam.serve")


@dataclass(frozen=True, kw_only=True)
class Key:
    """What is on file of a key; times are of UTC, such as 2026-11-30T08:00:00+00:00."""

    ranges: ClassVar[str] = "at_once at least 1; per_second above 0; per_day at least 1"

    id: str
    digest: str  # SHA-256 of the secret
    scopes: tuple[str, ...]
    created: str
    expires: str | None = None
    revoked: str | None = None
    note: str = ""
    at_once: int | None = None  # its own limits, where they are not those of everybody
    per_second: float | None = None
    per_day: int | None = None

    def __post_init__(self) -> None:
        for scope in self.scopes:
            if scope not in SCOPES:
                raise ValueError(unknown("scope", scope, SCOPES))
        for told in filter(None, (self.expires, self.revoked)):
            if datetime.fromisoformat(told).tzinfo is None:
                raise ValueError(f"{told!r} has no time zone")
        bytes.fromhex(self.digest)
        check_ranges(self)

    @property
    def until(self) -> float:
        """The seconds since 1970 at which it ends."""
        if self.revoked:
            return 0.0
        return datetime.fromisoformat(self.expires).timestamp() if self.expires else float("inf")

    @property
    def state(self) -> str:
        """Valid, expired or revoked."""
        return "revoked" if self.revoked else "valid" if self.until > time() else "expired"

    def allowance(self, usual: Allowance) -> Allowance:
        """Return what it may ask: its own limits, else the usual ones."""
        names = ("at_once", "per_second", "per_day")
        own = {name: value for name in names if (value := getattr(self, name)) is not None}
        return Allowance(**{name: getattr(usual, name) for name in names} | own)


def read(path: Path) -> list[Key]:
    """Read a file of keys that nobody but its owner can write."""
    with _opened(path) as file:
        return _keys_of(file, path)


def _opened(path: Path) -> BinaryIO:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        make = "no such file; make one: purple keys add --file FILE"
        raise ConfigError(f"keys {str(path)!r}: {make}") from None
    except OSError as error:
        raise ConfigError(f"keys {str(path)!r}: cannot be read: {error.strerror}") from None
    if os.fstat(file.fileno()).st_mode & OTHERS_WRITE:
        file.close()
        raise ConfigError(f"keys {str(path)!r}: others can write it; take that away: chmod 600")
    return file


def _keys_of(file: BinaryIO, path: Path) -> list[Key]:
    """Return the keys on file, each as its last line leaves it; a line under way does not count."""
    known: dict[str, Key] = {}
    try:
        file.seek(0)
        *lines, _ = file.read().split(b"\n")
    except OSError as error:
        raise ConfigError(f"keys {str(path)!r}: cannot be read: {error.strerror}") from None
    for number, line in enumerate(lines, 1):
        where = f"keys {str(path)!r}: line {number}"
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise ConfigError(f"{where}: is no JSON object")
        before = known.get(str(row.get("id")))
        key = _key_of(row if before is None else asdict(before) | row, where)
        known[key.id] = key
    return list(known.values())


def _key_of(row: dict[str, Any], where: str) -> Key:
    """Return the key that a row means; without pydantic, which each worker would have to load."""
    names = [field.name for field in fields(Key)]
    for name in row:
        if name not in names:
            raise ConfigError(f"{where}: {unknown('field', name, names)}")
    try:
        if not all(isinstance(row[name], str) for name in ("id", "digest", "created")):
            raise ValueError("id, digest and created must be texts")
        return Key(**row | {"scopes": tuple(row["scopes"])})
    except KeyError as error:
        raise ConfigError(f"{where}: {error.args[0]} is missing") from None
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {reason_of(error)}") from None


def _append(path: Path, row: dict[str, Any]) -> None:
    """Write one line at once, so that two who write, or an end in between, harm no other line.

    The file stays the same, so an app that may open no file any more still sees what is added.
    """
    try:
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, json.dumps(row).encode() + b"\n")
            os.fsync(file)
        finally:
            os.close(file)
    except OSError as error:
        raise UsageError(f"cannot write {str(path)!r}: {error.strerror}") from None


def add(
    path: Path,
    scopes: Sequence[str] = ("predict",),
    expires: str = "1y",
    note: str = "",
    **limits: float | None,
) -> tuple[Key, str]:
    """Put a new key on file; return it, and `ID.SECRET`, which is not kept anywhere."""
    id, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
    now = datetime.now(UTC).replace(microsecond=0)
    values: dict[str, Any] = {
        "id": id,
        "digest": sha256(secret.encode()).hexdigest(),
        "scopes": list(scopes),
        "created": now.isoformat(),
        "expires": end_of(expires, now),
        "note": note,
    }
    key = build(Key, values | limits, "key")
    if path.exists():
        read(path)  # nothing is added to what is no file of keys
    _append(path, {name: value for name, value in asdict(key).items() if value is not None})
    return key, f"{id}.{secret}"


def end_of(expires: str, now: datetime) -> str | None:
    """Return when `30d`, `12h`, `2w` or `1y` from now is, or a day; None of `never`."""
    if expires == NEVER:
        return None
    with suppress(ValueError, OverflowError):
        if match := re.fullmatch(r"([1-9]\d*)([hdwy])", expires):
            return (now + timedelta(hours=int(match[1]) * HOURS[match[2]])).isoformat()
        day = datetime.fromisoformat(expires)
        return (day if day.tzinfo else day.replace(tzinfo=UTC)).isoformat()
    raise UsageError(f"expires {expires!r} is none of 12h, 30d, 2w, 1y, 2027-01-31, {NEVER}")


def revoke(path: Path, id: str) -> Key:
    """Take a key's rights for good; return it."""
    known = {key.id: key for key in read(path)}
    if id not in known:
        raise UsageError(unknown("key", id, known))
    if known[id].revoked:
        return known[id]
    now = datetime.now(UTC).replace(microsecond=0).isoformat()
    _append(path, {"id": id, "revoked": now})
    return replace(known[id], revoked=now)


class KeyRing:
    """The keys of a file for the app, read again soon after a line was added."""

    def __init__(self, path: Path, usual: Allowance) -> None:
        """Open the file, which stays open: it is read from inside a sandbox, too."""
        self._path, self._usual, self._look_at = path, usual, 0.0
        self._file = _opened(path)
        weakref.finalize(self, self._file.close)
        self._seen = self._stamp()
        self._keys = self._read()

    def find(self, token: str) -> tuple[Key, Allowance] | None:
        """Return whose `ID.SECRET` this is, and what it may ask; None of one that is not valid.

        It takes as long for an id that nobody has.
        """
        if monotonic() >= self._look_at:
            self._look()
        id, _, secret = token.partition(".")
        known = self._keys.get(id)
        digest = known[0] if known else bytes(32)
        right = hmac.compare_digest(sha256(secret.encode()).digest(), digest)
        return known[2] if right and known and time() < known[1] else None

    def _read(self) -> dict[str, tuple[bytes, float, tuple[Key, Allowance]]]:
        return {
            key.id: (bytes.fromhex(key.digest), key.until, (key, key.allowance(self._usual)))
            for key in _keys_of(self._file, self._path)
        }

    def _stamp(self) -> tuple[int, int, bool]:
        told = os.fstat(self._file.fileno())
        return told.st_size, told.st_mtime_ns, told.st_nlink > 0

    def _look(self) -> None:
        """Read the file again if it has changed; what cannot be read changes nothing."""
        self._look_at = monotonic() + LOOK_SECONDS
        stamp = self._stamp()
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._keys = self._read()
            problem = "" if stamp[-1] else "was replaced: start the app anew"
        except ConfigError as error:
            problem = f"cannot be read: {error}"
        if problem:
            log.error("the file of keys %s; the keys of before stay in force", problem)
