"""Security headers on every response, whatever its status."""

from __future__ import annotations

from typing import TYPE_CHECKING

from purpleteam.serve.guards.visit import SECURITY_HEADERS
from purpleteam.serve.tls import STRICT_TRANSPORT

if TYPE_CHECKING:
    from purpleteam.serve.engine import Engine
    from purpleteam.serve.guards.visit import App, Message, Receive, Scope, Send
    from purpleteam.serve.settings import Settings


class Headers:
    """Add the security headers, in place of any that the app has set itself."""

    def __init__(self, app: App, settings: Settings, engine: Engine) -> None:
        headers = SECURITY_HEADERS | (STRICT_TRANSPORT if settings.tls.certificate else {})
        self.raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        self.app, self.names = app, frozenset(name for name, _ in self.raw)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        names, raw = self.names, self.raw

        async def harden(message: Message) -> None:
            if message["type"] == "http.response.start":
                others = [pair for pair in message["headers"] if pair[0] not in names]
                message = {**message, "headers": others + raw}
            await send(message)

        await self.app(scope, receive, harden)
