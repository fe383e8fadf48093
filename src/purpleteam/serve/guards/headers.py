"""Security headers on every response, whatever its status."""

from __future__ import annotations

from typing import TYPE_CHECKING

from purpleteam.serve.guards.visit import SECURITY_HEADERS
from purpleteam.serve.tls import STRICT_TRANSPORT

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from purpleteam.serve.engine import Engine
    from purpleteam.serve.guards.visit import App, Receive, Scope, Send
    from purpleteam.serve.settings import Settings


class Headers:
    """Add the security headers, in place of any that the app has set itself."""

    def __init__(self, app: App, settings: Settings, engine: Engine) -> None:
        headers = SECURITY_HEADERS | (STRICT_TRANSPORT if settings.tls.certificate else {})
        self.app = app
        self.raw = {name.encode(): value.encode() for name, value in headers.items()}

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        scope["visit"].headers_out |= self.raw
        return self.app(scope, receive, send)
