"""The guards of the app: pure ASGI around it, one bound on clients each, one file a guard.

A guard is `class X: def __init__(self, app, settings, engine)` with ASGI's `__call__`; it reads and
fills `scope["visit"]`, and raises `Refusal` for what it does not let in. Its check `web.*` must
pass on the app and fail on the same app with that one guard left out (`Settings.without`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from purpleteam.core.errors import ConfigError, unknown
from purpleteam.serve.guards.body import Body
from purpleteam.serve.guards.headers import Headers
from purpleteam.serve.guards.origin import Hosts, Sites
from purpleteam.serve.guards.refusals import Refusals
from purpleteam.serve.guards.visit import Visit

if TYPE_CHECKING:
    from purpleteam.serve.engine import Engine
    from purpleteam.serve.guards.visit import App, Receive, Scope, Send
    from purpleteam.serve.settings import Settings

GUARDS: dict[str, Callable[[App, Settings, Engine], App]] = {  # the outermost first
    "headers": Headers,
    "refusals": Refusals,
    "hosts": Hosts,
    "sites": Sites,
    "body": Body,
}


def guarded(app: App, settings: Settings, engine: Engine) -> App:
    """Return the app inside all guards but those that are left out."""
    for name in settings.without:
        if name not in GUARDS:
            raise ConfigError(f"without: {unknown('guard', name, GUARDS)}")
    for name, guard in reversed(GUARDS.items()):
        if name not in settings.without:
            app = guard(app, settings, engine)
    return _Entrance(app)


class _Entrance:
    """Where a request becomes a visit."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers: dict[str, str] = {}
        for raw_name, raw_value in scope["headers"]:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1").strip()
            # What comes twice is one list (RFC 9110, 5.3); a list is no host and no length.
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        client = scope.get("client")
        scope["visit"] = Visit(headers, client[0] if client else "")
        await self.app(scope, receive, send)
