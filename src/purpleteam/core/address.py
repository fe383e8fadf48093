"""The address of a deployed app, and how much of it may be shown."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

from purpleteam.core.errors import UsageError

__all__ = ["Address", "without_secrets"]

USER = re.compile(r"(?<=://)[^/?#\s]*@")
"""User and password in an address."""
QUERY = re.compile(r"(?<=://)(\S*?)\?\S*")
"""All after the `://` of an address that has a query."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where an app is. Who may read records may not read its password."""

    name: str
    """The address without user, password and query: this is what is shown and recorded."""
    secure: bool
    host: str
    port: int
    path: str
    query: str = field(repr=False)
    authorisation: str | None = field(repr=False)

    @classmethod
    def of(cls, url: str) -> Address:
        """Read `http://HOST:PORT`, with what else an address may have."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            parts, host, port = urlsplit(""), None, None
        if parts.scheme not in ("http", "https") or not host:
            shown = url.rpartition("@")[2].partition("?")[0]
            raise UsageError(f"address {shown!r} is not of the form http://HOST:PORT or https://")
        path = quote(parts.path.rstrip("/").removesuffix("/predict"), safe="/%~")
        shown_host = f"[{host}]" if ":" in host else host
        default = 443 if parts.scheme == "https" else 80
        place = shown_host if port is None else f"{shown_host}:{port}"
        return cls(
            name=f"{parts.scheme}://{place}{path}",
            secure=parts.scheme == "https",
            host=host,
            port=default if port is None else port,
            path=path,
            query=quote(parts.query, safe="=&%~+"),
            authorisation=_basic(parts.username, parts.password),
        )

    def target(self, path: str) -> str:
        """Return what a request for `path` asks for."""
        return f"{self.path}{path}?{self.query}" if self.query else f"{self.path}{path}"


def without_secrets(typed: str) -> str:
    """Return what was typed with each address in it as it may be shown."""
    return QUERY.sub(r"\1", USER.sub("", typed))


def _basic(user: str | None, password: str | None) -> str | None:
    if user is None:
        return None
    pair = f"{unquote(user)}:{unquote(password or '')}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"
