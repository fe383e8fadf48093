"""A limit on how fast, and how much in a day, one key, or one address without a key, may ask."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from purpleteam.serve.counts import DAY, Allowance, Counts, SharedCounts, Told
from purpleteam.serve.guards.visit import Refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from purpleteam.serve.engine import Engine
    from purpleteam.serve.guards.visit import App, Receive, Scope, Send, Visit
    from purpleteam.serve.settings import Settings

IMAGE_BYTES = 784
TOO_FAST = "You ask faster than is allowed; ask again after the seconds in Retry-After."
DAY_SPENT = "You have used up the day; ask again after the seconds in Retry-After, at 0:00 UTC."


@dataclass(frozen=True, kw_only=True)
class RateLimit(Allowance):
    """What one client may ask, and where that is counted."""

    redis: str | None = field(default=None, repr=False)
    """redis://HOST:PORT, rediss:// or unix://, for several machines; else this one's memory."""
    table: int | None = None
    """The number of an open file, from `counts.new_file`, that workers of one machine share."""


class Rate:
    """Count each image that is asked for; refuse with 429, and say when to come again.

    What is asked with no valid key is counted by address, right or wrong; pages and health are not
    counted. The headers are those of draft-ietf-httpapi-ratelimit-headers-10.
    """

    def __init__(self, app: App, settings: Settings, engine: Engine) -> None:
        self.app, self.usual = app, settings.rate
        self.counts, self.shared = Counts(self.usual.table), None
        if self.usual.redis is not None:
            self.shared = SharedCounts(self.usual.redis, self.counts)

    async def close(self) -> None:
        """Close the connections to Redis."""
        if self.shared is not None:
            await self.shared.close()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["method"] == "POST":
            if self.shared is not None:
                return self._count_beside_others(self.shared, scope, receive, send)
            visit = scope["visit"]
            asked = self._asked(visit)
            tell(visit, asked, self.counts.take(*asked))
        return self.app(scope, receive, send)

    async def _count_beside_others(
        self, shared: SharedCounts, scope: Scope, receive: Receive, send: Send
    ) -> None:
        visit = scope["visit"]
        asked = self._asked(visit)
        tell(visit, asked, await shared.take(*asked))
        await self.app(scope, receive, send)

    def _asked(self, visit: Visit) -> tuple[str, Allowance, int]:
        """Return who asks, what it may, and how many images it asks for."""
        client = f"address {visit.address}" if visit.key is None else f"key {visit.key}"
        images = max(1, len(visit.body or b"") // IMAGE_BYTES)
        return client, visit.allowance or self.usual, images


def tell(visit: Visit, asked: tuple[str, Allowance, int], told: Told) -> None:
    """Say in the answer what is left, or refuse."""
    _, allowance, images = asked
    if told.wait > 0:
        visit.told["limited"] = True
        raise refusal(allowance, told, images)
    left = b'"burst";r=%d, "day";r=%d' % (told.at_once, told.today)
    visit.headers_out[b"ratelimit"] = left


def refusal(allowance: Allowance, told: Told, images: int) -> Refusal:
    """Return what a client is told that has to wait."""
    wait = max(1, math.ceil(told.wait))
    spent = images > told.today
    window = math.ceil(allowance.at_once / allowance.per_second)
    return Refusal(
        429,
        DAY_SPENT if spent else TOO_FAST,
        **{
            "retry-after": str(wait),
            "ratelimit": f'"day";r={told.today};t={wait}' if spent else f'"burst";r=0;t={wait}',
            "ratelimit-policy": f'"burst";q={allowance.at_once};w={window}, '
            f'"day";q={allowance.per_day};w={DAY}',
        },
    )
