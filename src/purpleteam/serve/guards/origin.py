"""Who may ask: only under our own names, and from our own page or a tool."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from purpleteam.serve.guards.visit import ANY_ADDRESS, Refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from purpleteam.serve.engine import Engine
    from purpleteam.serve.guards.visit import App, Receive, Scope, Send
    from purpleteam.serve.settings import Settings


class Hosts:
    """Refuse a Host that is not ours, against DNS rebinding."""

    def __init__(self, app: App, settings: Settings, engine: Engine) -> None:
        self.app, self.hosts = app, settings.hosts

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        host = scope["visit"].headers.get("host", "").lower()
        name = host[1:].partition("]")[0] if host[:1] == "[" else host.partition(":")[0]
        known = name in self.hosts or (ANY_ADDRESS in self.hosts and _is_address(name))
        if not known or "," in host:
            raise Refusal(400, "The host is not one that this server answers for.")
        return self.app(scope, receive, send)


class Sites:
    """Refuse what another site has a browser send (cross-site request forgery)."""

    def __init__(self, app: App, settings: Settings, engine: Engine) -> None:
        self.app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["method"] == "POST":
            headers = scope["visit"].headers
            site, origin = headers.get("sec-fetch-site"), headers.get("origin")
            if site is not None:
                elsewhere = site not in ("same-origin", "none")
            else:
                own = headers.get("host")
                elsewhere = origin is not None and origin.partition("://")[2] != own
            if elsewhere:
                raise Refusal(403, "Requests from other sites are refused.")
        return self.app(scope, receive, send)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
