"""A body is read to its end, under a cap and a deadline, before anything looks at it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from purpleteam.serve.guards.visit import Gone, Refusal

if TYPE_CHECKING:
    from purpleteam.serve.engine import Engine
    from purpleteam.serve.guards.visit import App, Message, Receive, Scope, Send, Visit
    from purpleteam.serve.settings import Settings

IMAGE_BYTES = 784
LONGEST_NUMBER = 18  # digits of a content length


class Body:
    """Read the body into the visit; refuse one that is too large or too slow."""

    def __init__(self, app: App, settings: Settings, engine: Engine) -> None:
        self.app, self.limits = app, settings.limits
        self.seconds = None if "deadlines" in settings.without else self.limits.body_seconds
        self.most = {"/predict/batch": IMAGE_BYTES * settings.limits.batch_images}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        visit: Visit = scope["visit"]
        most = self.most.get(scope["path"], self.limits.body_bytes)
        too_large = f"The body may hold at most {most} bytes."
        length = visit.headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit():
            raise Refusal(400, "The content length is no number.")
        if len(length) > LONGEST_NUMBER or int(length) > most:
            raise Refusal(413, too_large)
        if "whole_body" in scope:  # our own protocol had it all when the request began
            visit.body = scope["whole_body"]
            if len(scope["whole_body"]) > most:
                raise Refusal(413, too_large)
            await self.app(scope, receive, send)
            return
        body = visit.body = await self._read(receive, most, too_large)
        read: list[Message] = [{"type": "http.request", "body": body}]

        async def replay() -> Message:
            return read.pop() if read else await receive()

        await self.app(scope, replay, send)

    async def _read(self, receive: Receive, most: int, too_large: str) -> bytes:
        body, more = b"", True
        try:
            async with asyncio.timeout(self.seconds):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Gone
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > most:
                        raise Refusal(413, too_large)
        except TimeoutError:
            raise Refusal(408, "The body took too long.") from None
        return body
