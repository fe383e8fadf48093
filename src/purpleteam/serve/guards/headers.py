"""Security headers on every response, whatever its status."""

from __future__ import annotations

from typing import TYPE_CHECKING

from purpleteam.serve.guards.visit import SECURITY_HEADERS

if TYPE_CHECKING:
    from purpleteam.serve.engine import Engine
    from purpleteam.serve.guards.visit import App, Message, Receive, Scope, Send
    from purpleteam.serve.settings import Settings

RAW = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
NAMES = frozenset(name for name, _ in RAW)


class Headers:
    """Add the security headers, in place of any that the app has set itself."""

    def __init__(self, app: App, settings: Settings, engine: Engine) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def harden(message: Message) -> None:
            if message["type"] == "http.response.start":
                others = [pair for pair in message["headers"] if pair[0] not in NAMES]
                message = {**message, "headers": others + RAW}
            await send(message)

        await self.app(scope, receive, harden)
