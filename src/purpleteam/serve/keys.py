"""API keys: who may ask what, until when. A key is `ID.SECRET`; the file of keys has no secret.

A secret is 256 random bits, which nobody can try out, so SHA-256 hides it as well as a slow hash
for passwords would, and that would cost every request milliseconds.
"""

import hmac
import json
import logging
import os
import re
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from time import monotonic, time
from typing import Any, ClassVar

from purpleteam.core.config import build
from purpleteam.core.errors import ConfigError, UsageError, unknown
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
    where = f"keys {str(path)!r}"
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = json.load(file)
    except FileNotFoundError:
        raise ConfigError(f"{where}: no such file; make one: purple keys add --file FILE") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no JSON"
        raise ConfigError(f"{where}: cannot be read: {reason}") from None
    if mode & OTHERS_WRITE:
        raise ConfigError(f"{where}: others can write it; take that away: chmod 600")
    if not isinstance(content, dict) or not isinstance(content.get("keys"), list):
        raise ConfigError(f"{where}: is no file of keys")
    if not all(isinstance(row, dict) for row in content["keys"]):
        raise ConfigError(f"{where}: is no file of keys")
    return [build(Key, row, where) for row in content["keys"]]


@contextmanager
def changing(path: Path) -> Iterator[list[Key]]:
    """Yield the keys on file, none where there is no file yet, and write them back as a whole."""
    folder = path.absolute().parent
    try:
        with _alone(folder):
            keys = read(path) if path.exists() else []
            yield keys
            content = json.dumps({"keys": [asdict(key) for key in keys]}, indent=1)
            with tempfile.NamedTemporaryFile(  # of mode 0600
                "w", dir=folder, prefix=f".{path.name}.", delete=False, encoding="utf-8"
            ) as fresh:
                try:
                    fresh.write(content + "\n")
                    fresh.flush()
                    os.fsync(fresh.fileno())
                    Path(fresh.name).replace(path)
                except OSError:
                    Path(fresh.name).unlink(missing_ok=True)
                    raise
    except OSError as error:
        raise UsageError(f"cannot write {str(path)!r}: {error.strerror}") from None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let no other process change keys of this folder meanwhile, where the system can tell."""
    try:
        from fcntl import LOCK_EX, flock
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        flock(handle, LOCK_EX)
        yield
    finally:
        os.close(handle)


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
    with changing(path) as keys:
        keys.append(key)
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
    read(path)  # a file that is not there is not made
    with changing(path) as keys:
        known = [key.id for key in keys]
        if id not in known:
            raise UsageError(unknown("key", id, known))
        place = known.index(id)
        now = datetime.now(UTC).replace(microsecond=0).isoformat()
        keys[place] = replace(keys[place], revoked=keys[place].revoked or now)
        return keys[place]


class KeyRing:
    """The keys of a file for the app, read again soon after the file has changed."""

    def __init__(self, path: Path, usual: Allowance) -> None:
        self._path, self._usual = path, usual
        self._seen, self._look_at = self._stamp(), monotonic() + LOOK_SECONDS
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
            for key in read(self._path)
        }

    def _stamp(self) -> tuple[int, ...]:
        with suppress(OSError):
            told = self._path.stat()
            return told.st_mtime_ns, told.st_ino, told.st_size
        return ()

    def _look(self) -> None:
        """Read the file again if it has changed; what cannot be read changes nothing."""
        self._look_at = monotonic() + LOOK_SECONDS
        stamp = self._stamp()
        try:
            if stamp != self._seen:
                self._keys, self._seen = self._read(), stamp
        except ConfigError:
            log.error("the file of keys cannot be read: the keys of before stay in force")
