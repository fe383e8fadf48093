"""The guards of the app: pure ASGI around it, one bound on clients each, one file a guard.

A guard is `class X: def __init__(self, app, settings, engine)` with ASGI's `__call__`; it reads and
fills `scope["visit"]`, with headers for the answer too, and raises `Refusal` for what it does not
let in. Its check `web.*` must pass on the app and fail on the same app with that one guard left out
(`Settings.without`). What it needs a running loop for begins in `async def open()`; what it opened
ends in `async def close()`.

A guard that waits for nothing returns what the app inside it returns: one coroutine less.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from purpleteam.core.errors import ConfigError, unknown
from purpleteam.serve.guards.abuse import Abuse
from purpleteam.serve.guards.audit import Auditor
from purpleteam.serve.guards.body import Body
from purpleteam.serve.guards.client import Client, Keys
from purpleteam.serve.guards.headers import Headers
from purpleteam.serve.guards.origin import Hosts, Sites
from purpleteam.serve.guards.rate import Rate
from purpleteam.serve.guards.refusals import Refusals
from purpleteam.serve.guards.visit import Visit
from purpleteam.serve.guards.watch import Watch

if TYPE_CHECKING:
    from purpleteam.serve.engine import Engine
    from purpleteam.serve.guards.visit import App, Message, Receive, Scope, Send
    from purpleteam.serve.settings import Settings

__all__ = ["GUARDS", "guarded"]

GUARDS: dict[str, Callable[[App, Settings, Engine], App]] = {  # the outermost first
    "watch": Watch,
    "headers": Headers,
    "refusals": Refusals,
    "client": Client,
    "audit": Auditor,
    "hosts": Hosts,
    "sites": Sites,
    "body": Body,
    "rate": Rate,
    "keys": Keys,
    "abuse": Abuse,
}
ELSEWHERE = ("deadlines", "methods", "restart")
"""What `without` can leave out besides: of connections, of routes, of the supervisor."""


def guarded(app: App, settings: Settings, engine: Engine) -> App:
    """Return the app inside all guards but those that are left out."""
    for name in settings.without:
        if name not in (*GUARDS, *ELSEWHERE):
            raise ConfigError(f"without: {unknown('part', name, (*GUARDS, *ELSEWHERE))}")
    opened: list[App] = []
    for name, guard in reversed(GUARDS.items()):
        if name not in settings.without:
            app = guard(app, settings, engine)
            opened.append(app)
    return _Entrance(app, opened)


class _Entrance:
    """Where a request becomes a visit, and its answer gets the headers that guards have added.

    At the end of the app, guards close what they opened.
    """

    def __init__(self, app: App, guards: Sequence[App]) -> None:
        self.app, self.guards = app, guards

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            for guard in self.guards:
                if begin := getattr(guard, "open", None):
                    await begin()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            for guard in self.guards:
                if close := getattr(guard, "close", None):
                    await close()
            await send({"type": "lifespan.shutdown.complete"})
        if scope["type"] != "http":
            return
        headers: dict[str, str] = {}
        for raw_name, raw_value in scope["headers"]:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1").strip()
            # What comes twice is one list (RFC 9110, 5.3); a list is no host and no length.
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        client = scope.get("client")
        visit = scope["visit"] = Visit(headers, client[0] if client else "")

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                visit.status, ours = message["status"], visit.headers_out
                others = [pair for pair in message["headers"] if pair[0] not in ours]
                message["headers"] = [*others, *ours.items()]
            elif "body" in message:
                visit.size += len(message["body"])
            await send(message)

        await self.app(scope, receive, answer)
