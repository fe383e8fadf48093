"""How much each client has asked: counted in memory that workers share, or in Redis for machines.

The rate is the generic cell rate algorithm (ITU-T I.371, 1996): a client is one number, the time at
which all that it asked is paid for. The day's budget is a count since midnight UTC. Of the `limits`
library, stores in memory look at all clients every 10 ms, and keep them: a request costs the more,
the more addresses have asked. This table never grows.
"""

import logging
import mmap
import os
import struct
import sys
import tempfile
import time
import weakref
from dataclasses import dataclass
from functools import lru_cache, partial
from hashlib import blake2b
from operator import itemgetter
from typing import Any, ClassVar, NamedTuple

from purpleteam.core.address import without_secrets
from purpleteam.core.errors import MissingExtra, UsageError
from purpleteam.core.registry import check_ranges

if sys.platform == "win32":  # where no processes share a table
    LOCK_EX = LOCK_UN = 0

    def lockf(file: int, how: int) -> None:
        """Do nothing."""
else:
    from fcntl import LOCK_EX, LOCK_UN, lockf

DAY = 86_400  # seconds
SLOT = struct.Struct("=8sdII")  # the client, when it has paid, the day, its images of that day
PAID_AT = itemgetter(1)
PLACES, BESIDE = 65_536, 4  # slots in all, and those that one client may have
SET = BESIDE * SLOT.size
SALT = 16  # bytes before the slots
REDIS_SECONDS = 0.25  # that Redis may take to answer
WITHOUT_REDIS_SECONDS = 5.0  # for so long it is not asked again once it did not

NO_REDIS = "is no redis://HOST:PORT, rediss:// or unix://"

log = logging.getLogger("purpleteam.serve")


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """What one client may ask, in images."""

    ranges: ClassVar[str] = "at_once at least 1; per_second above 0 and finite; per_day at least 1"

    at_once: int = 20  # more than this, in one request, are let through where nothing is owed
    per_second: float = 10.0
    per_day: int = 5000  # since midnight UTC

    def __post_init__(self) -> None:
        check_ranges(self)


class Told(NamedTuple):
    """What a client is told of its limits."""

    wait: float  # seconds until the same may be asked again; 0 where it was let through
    at_once: int  # images that it may ask now
    today: int  # images that it may ask until midnight UTC


class Counts:
    """A table of fixed size in memory, which workers share that are given the same file.

    A client's slots follow from a keyed hash, so that nobody can choose addresses that meet in
    one place. Where all are taken, whoever has paid first leaves; a newcomer may ask as much.
    """

    def __init__(self, file: int | None = None) -> None:
        """Take the table in an open file (a number from `new_file`), else one of its own."""
        self._shared = file is not None
        self._file = new_file() if file is None else file
        weakref.finalize(self, os.close, self._file)
        self._table = mmap.mmap(self._file, SALT + PLACES * SLOT.size)
        self._place = lru_cache(4096)(partial(_place, self._table[:SALT]))

    def take(self, client: str, allowance: Allowance, images: int = 1) -> Told:
        """Let images of a client through and count them, or say how long it has to wait."""
        name, first = self._place(client)
        if not self._shared:  # nor is there another thread that counts here
            return self._take(name, first, allowance, images)
        lockf(self._file, LOCK_EX)
        try:
            return self._take(name, first, allowance, images)
        finally:
            lockf(self._file, LOCK_UN)

    def _take(self, name: bytes, first: int, allowance: Allowance, images: int) -> Told:
        now, seconds, each = time.monotonic(), time.time(), 1 / allowance.per_second
        today, place, owed, used = (
            int(seconds // DAY),
            self._table.find(name, first, first + SET),
            0.0,
            0,
        )
        if place >= 0:
            _, paid_at, day, counted = SLOT.unpack_from(self._table, place)
            owed, used = max(0.0, paid_at - now), counted if day == today else 0
        left = allowance.per_day - used
        late = owed - max(0.0, (allowance.at_once - images) * each)
        if images > left:
            late = DAY - seconds % DAY
        elif late <= 0:
            owed, left, late = owed + images * each, left - images, 0.0
            if place < 0:
                slots = list(SLOT.iter_unpack(self._table[first : first + SET]))
                place = first + slots.index(min(slots, key=PAID_AT)) * SLOT.size
            SLOT.pack_into(self._table, place, name, now + owed, today, used + images)
        return Told(late, max(0, int(allowance.at_once - owed / each)), left)


def _place(salt: bytes, client: str) -> tuple[bytes, int]:
    """Return the name of a client in the table, and where its slots begin."""
    name = blake2b(client.encode(), digest_size=8, key=salt).digest()
    return name, SALT + int.from_bytes(name, "little") % (PLACES // BESIDE) * SET


def new_file() -> int:
    """Return the number of an open file, in memory where the system can, with an empty table."""
    if sys.platform == "linux":
        file = os.memfd_create("purpleteam-counts")
    else:
        with tempfile.TemporaryFile() as unnamed:
            file = os.dup(unnamed.fileno())
    os.write(file, os.urandom(SALT))
    os.truncate(file, SALT + PLACES * SLOT.size)
    return file


SCRIPT = """
local at_once, per_second, per_day, images = unpack(ARGV)
local each, time = 1 / per_second, redis.call('TIME')
local now, today = time[1] + time[2] / 1e6, math.floor(time[1] / 86400)
local known = redis.call('HMGET', KEYS[1], 'paid_at', 'day', 'used')
local owed = math.max(0, (tonumber(known[1]) or 0) - now)
local used = tonumber(known[2]) == today and tonumber(known[3]) or 0
local late, left = owed - math.max(0, (at_once - images) * each), per_day - used
if late <= 0 and images - left <= 0 then
  owed, used, left, late = owed + images * each, used + images, left - images, 0
  local paid_at = string.format('%.6f', now + owed)
  redis.call('HSET', KEYS[1], 'paid_at', paid_at, 'day', today, 'used', used)
  redis.call('EXPIRE', KEYS[1], math.ceil(math.max(owed, (today + 1) * 86400 - now)))
elseif images - left > 0 then
  late = (today + 1) * 86400 - now
end
return {tostring(late), math.max(0, math.floor(at_once - owed / each)), left}
"""
"""The same as `Counts.take`, by the clock of Redis, which all machines share."""


def away(url: str) -> str:
    """Return why the Redis of a URL cannot count, in words that can be shown; "" where it can."""
    try:
        import redis
    except ImportError:
        raise MissingExtra("redis", "redis") from None
    shown, seconds = without_secrets(url), 4 * REDIS_SECONDS
    try:
        with redis.Redis.from_url(
            url, socket_timeout=seconds, socket_connect_timeout=seconds
        ) as asked:
            asked.ping()
    except ValueError:
        raise UsageError(f"redis {shown!r} {NO_REDIS}") from None
    except (redis.RedisError, OSError) as error:
        return f"redis {shown!r} does not answer: {type(error).__name__}"
    return ""


class SharedCounts:
    """Counts in Redis; in this machine's memory while Redis does not answer."""

    def __init__(self, url: str, local: Counts) -> None:
        """Take a URL, redis://HOST:PORT, rediss:// or unix://, that is never shown whole."""
        try:
            from redis import asyncio as redis
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
        except ImportError:
            raise MissingExtra("redis", "redis") from None
        try:
            self._redis: Any = redis.Redis.from_url(
                url,
                retry=Retry(NoBackoff(), 0),
                socket_timeout=REDIS_SECONDS,
                socket_connect_timeout=REDIS_SECONDS,
            )
        except ValueError:
            raise UsageError(f"redis {without_secrets(url)!r} {NO_REDIS}") from None
        self._take = self._redis.register_script(SCRIPT)
        self._errors, self._local, self._again_at = redis.RedisError, local, 0.0
        self._is_away = False
        self.name = without_secrets(url)

    async def take(self, client: str, allowance: Allowance, images: int = 1) -> Told:
        """Let images through as `Counts` does."""
        if time.monotonic() >= self._again_at:
            numbers = [allowance.at_once, allowance.per_second, allowance.per_day, images]
            try:
                late, at_once, today = await self._take([f"purpleteam:{client}"], numbers)
                if self._is_away:
                    self._is_away = False
                    log.warning("%s answers again: limits hold on all machines together", self.name)
                return Told(float(late), at_once, today)
            except (self._errors, OSError):
                self._again_at = time.monotonic() + WITHOUT_REDIS_SECONDS
                if not self._is_away:
                    log.warning("%s does not answer: each machine limits by itself", self.name)
                self._is_away = True
        return self._local.take(client, allowance, images)

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
