"""The address of a deployed app, and how much of it may be shown."""

import base64
import re
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import quote, unquote, urlsplit

from purpleteam.core.errors import UsageError

USER = re.compile(r"(?<=://)[^/?#\s]*@")  # user and password in an address
QUERY = re.compile(r"(?<=://)(\S*?)\?\S*")  # all after the `://` of an address that has a query


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where an app is. Who may read records may not read its password."""

    name: str  # the address without user, password and query: this is what is shown and recorded
    secure: bool
    host: str
    port: int
    path: str
    query: str = field(repr=False)
    authorisation: str | None = field(repr=False)

    @classmethod
    def of(cls, url: str) -> Self:
        """Read `http://HOST:PORT`, with what else an address may have."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            parts, host, port = urlsplit(""), None, None
        if parts.scheme not in ("http", "https") or not host:
            shown = url.rpartition("@")[2].partition("?")[0]
            raise UsageError(f"address {shown!r} is not of the form http://HOST:PORT or https://")
        secure = parts.scheme == "https"
        path = quote(parts.path.rstrip("/").removesuffix("/predict"), safe="/%~:")
        place = (f"[{host}]" if ":" in host else host) + ("" if port is None else f":{port}")
        basic = None
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            basic = f"Basic {base64.b64encode(pair).decode()}"
        return cls(
            name=f"{parts.scheme}://{place}{path}",
            secure=secure,
            host=host,
            port=(443 if secure else 80) if port is None else port,
            path=path,
            query=quote(parts.query, safe="=&%~+"),
            authorisation=basic,
        )

    def target(self, path: str) -> str:
        """Return what a request for `path` asks for."""
        return f"{self.path}{path}?{self.query}" if self.query else f"{self.path}{path}"


def without_secrets(typed: str) -> str:
    """Return what was typed with each address in it as it may be shown."""
    return QUERY.sub(r"\1", USER.sub("", typed))
