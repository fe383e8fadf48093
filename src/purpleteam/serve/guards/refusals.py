"""What a client is told when something is wrong: a problem document, and nothing of the inside."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from purpleteam.serve.guards.visit import Gone, Refusal, problem

if TYPE_CHECKING:
    from purpleteam.serve.engine import Engine
    from purpleteam.serve.guards.visit import App, Receive, Scope, Send, Visit
    from purpleteam.serve.settings import Settings

LINGER_BYTES, LINGER_SECONDS = 65_536, 1.0

log = logging.getLogger("purpleteam.serve")


class Refusals:
    """Answer each Refusal and each crash with a problem document of constant text (RFC 9457)."""

    def __init__(self, app: App, settings: Settings, engine: Engine) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        visit: Visit = scope["visit"]
        try:
            await self.app(scope, receive, send)
            return
        except Gone:
            return
        except Refusal as error:
            refusal = error
            visit.told["refused"] = _where(error)
        except Exception:
            log.exception("request failed")
            if visit.status:  # the answer has begun
                raise
            refusal, visit.body = (
                Refusal(500, "The server could not answer.", connection="close"),
                b"",
            )
        if unread := visit.body is None:
            refusal.headers["connection"] = "close"
        own, content = problem(refusal)
        raw = [(name.encode(), value.encode()) for name, value in own.items()]
        await send({"type": "http.response.start", "status": refusal.status, "headers": raw})
        await send({"type": "http.response.body", "body": content, "more_body": unread})
        if unread:
            await _linger(receive)
            await send({"type": "http.response.body"})


def _where(error: Refusal) -> str:
    """Return the name of the module that refused: of a guard, or of the app."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else str(trace.tb_frame.f_globals["__name__"]).rpartition(".")[2]


async def _linger(receive: Receive) -> None:
    """Read on for a moment before closing, so that the answer reaches a client still sending."""
    taken, more = 0, True
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while more and taken < LINGER_BYTES:
                message = await receive()
                taken += len(message.get("body", b""))
                more = message.get("more_body", False)
