"""No answer is given before its record is on the disk, and none where it cannot be written.

A record tells when, what was asked, a keyed digest of the body, whose key it was, what was answered
and by which model: no drawing, no address, no name. What was refused is counted, not recorded one
by one: else whoever is refused could fill the disk. See `purpleteam.serve.audit`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from purpleteam.core.errors import UsageError
from purpleteam.core.registry import check_ranges
from purpleteam.serve.guards.visit import Gone, Refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from purpleteam.serve.audit.writer import AuditClient, Writer
    from purpleteam.serve.engine import Engine
    from purpleteam.serve.guards.visit import App, Message, Receive, Scope, Send, Visit
    from purpleteam.serve.settings import Settings

ANSWERED = ("label", "reason", "limited", "abuse")  # what others tell that is kept: nobody's name
REFUSED = ("limited", "abuse")
REFUSED_SECONDS = 1.0  # so long refusals are counted before the count is recorded
RETRY = {"retry-after": "5"}
UNWRITTEN = "The request could not be recorded, so it is not answered; try again later."


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Where requests are recorded."""

    ranges: ClassVar[str] = "checkpoint_seconds from 0.01 to 86400"

    file: Path | None = None
    """A log that `purple verify --log` verifies; None keeps none. Its keys lie beside it."""
    checkpoint_seconds: float = 10.0
    """A record is signed at the latest so long after it was written."""
    writer: int | None = None
    """`Writer.fileno` of a supervisor, which a worker inherits; else the process writes itself."""

    def __post_init__(self) -> None:
        check_ranges(self)


class Auditor:
    """Record each request that is answered; 503 where that fails."""

    def __init__(self, app: App, settings: Settings, engine: Engine) -> None:
        self.app, self.model = app, engine.card.identity.removeprefix("sha256:")[:16]
        self.client: AuditClient | None = None
        self._writer: Writer | None = None
        self._refused: Counter[tuple[Any, ...]] = Counter()
        asked = settings.audit
        if asked.file is not None:
            try:
                from purpleteam.serve.audit.writer import AuditClient, Writer, connect
            except ImportError:  # no fcntl
                raise UsageError("an audit log needs Linux, macOS or another Unix") from None
            if asked.writer is None:
                self._writer = Writer(asked.file, asked.checkpoint_seconds)
                self.client = AuditClient(self._writer.connect())
            else:
                self.client = AuditClient(connect(asked.writer))

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if self.client is not None and scope["method"] == "POST":
            return self._recorded(self.client, scope, receive, send)
        if self.client is not None and self.client.gone and scope["path"] == "/readyz":
            raise Refusal(503, "No request can be recorded.")
        return self.app(scope, receive, send)

    async def _recorded(
        self, client: AuditClient, scope: Scope, receive: Receive, send: Send
    ) -> None:
        visit, status = scope["visit"], 0

        async def recorded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if status < 400:
                    record = {
                        "kind": scope["path"][1:],  # of a route: no other answers
                        "id": visit.id,
                        "body": client.digest(visit.body or b""),
                        "key": visit.key,
                        "status": status,
                        "model": self.model,
                    }
                    for name in ANSWERED:
                        if name in visit.told:
                            record[name] = visit.told[name]
                    if not await client.append(record):
                        visit.told["audit"] = "failed"
                        raise Refusal(503, UNWRITTEN, **RETRY)
            await send(message)

        try:
            await self.app(scope, receive, recorded)
        except Refusal as refusal:
            status = refusal.status
            raise
        except Gone:
            raise
        except Exception:
            status = 500
            raise
        finally:
            if status >= 400:
                self._count(status, visit)

    async def open(self) -> None:
        """Notice when the writer ends."""
        if self.client is not None:
            self.client.attach()

    async def close(self) -> None:
        """Record what was counted, and let the writer sign and end."""
        if self.client is not None:
            await asyncio.gather(*self._record_counts())
            self.client.close()
        if self._writer is not None:
            await asyncio.to_thread(self._writer.close)

    def _count(self, status: int, visit: Visit) -> None:
        if not self._refused:
            asyncio.get_running_loop().call_later(REFUSED_SECONDS, self._record_counts)
        self._refused[status, visit.key, *(visit.told.get(name) for name in REFUSED)] += 1

    def _record_counts(self) -> list[asyncio.Future[bool]]:
        counts, self._refused = self._refused, Counter()
        records = []
        for (status, key, *decided), count in counts.items():
            record = {"kind": "refused", "count": count, "key": key, "status": status}
            record |= {name: told for name, told in zip(REFUSED, decided, strict=True) if told}
            records.append(record)
        return [self.client.append(record) for record in records] if self.client else []
