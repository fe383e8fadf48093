"""Ask an app over HTTP, at the pace that it wants, and say in one line what went wrong.

A busy app (429 Too Many Requests, 503 Service Unavailable; RFC 9110 and RFC 6585) is asked again
when its Retry-After says so, else after a pause that doubles. What all connections to one app
share is its `Traffic`: when the next request may go out, and how many images were answered.
"""

from __future__ import annotations

import email.utils
import http.client
import ssl
import threading
import time
from dataclasses import dataclass

from purpleteam.core.address import Address
from purpleteam.core.errors import ModelError

SECONDS = 30.0
"""How long an app may be silent."""
MOST_BYTES = 1_000_000
BUSY = (429, 503)
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 30.0
PATIENCE = 300.0
"""Seconds that one image may wait for a busy app, all in all."""


class Stopped(Exception):
    """Another request failed, or the user stopped: this one need not go out."""


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    body: bytes
    retry_after: str | None
    location: str | None

    @property
    def shown(self) -> str:
        """The start of the body, fit for one line."""
        return repr(" ".join(self.body.decode("utf-8", "replace").split())[:120])


class Traffic:
    """What the connections to one app share."""

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self.answered = 0
        self.waited = 0.0
        self._free_at = 0.0
        self._lock = threading.Lock()

    def hold(self, seconds: float) -> None:
        """Let no request out for so long; overlapping waits count once."""
        with self._lock:
            now = time.monotonic()
            until = now + seconds
            self.waited += max(0.0, until - max(self._free_at, now))
            self._free_at = max(self._free_at, until)

    def wait(self, stop: threading.Event) -> None:
        """Return when a request may go out; raise `Stopped` once nobody wants its answer."""
        while (left := self._free_at - time.monotonic()) > 0:
            stop.wait(left)
            if stop.is_set():
                raise Stopped

    def count(self) -> None:
        """Count an image that was answered."""
        with self._lock:
            self.answered += 1


class Connection:
    """One kept-alive connection; it is used by one thread at a time."""

    def __init__(self, address: Address, traffic: Traffic) -> None:
        self.address = address
        self.traffic = traffic
        self._http = (
            http.client.HTTPSConnection(
                address.host, address.port, timeout=SECONDS, context=ssl.create_default_context()
            )
            if address.secure
            else http.client.HTTPConnection(address.host, address.port, timeout=SECONDS)
        )

    def ask(
        self, method: str, path: str, body: bytes | None = None, stop: threading.Event | None = None
    ) -> Reply:
        """Return the reply to one request, the first that is not "busy"."""
        spent, tries = 0.0, 0
        while True:
            self.traffic.wait(stop or threading.Event())
            reply = self.send(method, path, body)
            if reply.status not in BUSY:
                return reply
            pause = pause_before(reply.retry_after, tries)
            spent, tries = spent + pause, tries + 1
            if spent > self.traffic.patience:
                raise self.error(
                    f"is busy (status {reply.status}) and asks to wait {pause:.0f} s; "
                    f"the limit for one image is {self.traffic.patience:.0f} s"
                )
            self.traffic.hold(pause)

    def send(self, method: str, path: str, body: bytes | None = None) -> Reply:
        """Return the reply to one request, whatever it says."""
        fresh = self._http.sock is None
        try:
            try:
                return self._exchange(method, path, body)
            except (ConnectionError, http.client.RemoteDisconnected):
                self._http.close()
                if fresh:
                    raise
                return self._exchange(method, path, body)  # it had only closed the idle connection
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            self._http.close()
            raise self.error(_reason(error)) from None

    def error(self, what: str) -> ModelError:
        """Return the error that names the app, what came, and how far one got."""
        answered = self.traffic.answered
        far = f"; {answered} images were answered before" if answered else ""
        return ModelError(f"{self.address.name} {what}{far}")

    def close(self) -> None:
        """Close the socket; the next request opens another."""
        self._http.close()

    def _exchange(self, method: str, path: str, body: bytes | None) -> Reply:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/octet-stream"
        if self.address.authorisation is not None:
            headers["Authorization"] = self.address.authorisation
        self._http.request(method, self.address.target(path), body, headers)
        with self._http.getresponse() as response:
            content = response.read(MOST_BYTES + 1)
            if len(content) > MOST_BYTES:
                raise http.client.HTTPException(f"answers with more than {MOST_BYTES} bytes")
            if response.length:  # less came than was announced
                raise http.client.IncompleteRead(content)
            told = (response.getheader(name) for name in ("Retry-After", "Location"))
            return Reply(response.status, content, *told)


def pause_before(retry_after: str | None, tries: int) -> float:
    """Return how long to wait: what was asked for, or twice as long each time.

    Retry-After is seconds or a date (RFC 9110, 10.2.3). Who asks for 0 seconds is asked again at
    once, and the second time after a pause.
    """
    own = min(FIRST_PAUSE * 2.0 ** min(tries, 20), LONGEST_PAUSE)
    asked = (retry_after or "").strip()
    if asked.isascii() and asked.isdigit():
        seconds = float(asked)
    else:
        try:
            seconds = email.utils.parsedate_to_datetime(asked).timestamp() - time.time()
        except ValueError:
            return own
    return max(seconds, own if tries else 0.0)


def _reason(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "does not answer: connection refused"
    if isinstance(error, TimeoutError):
        return f"does not answer: silent for {SECONDS:.0f} s"
    if isinstance(error, (http.client.RemoteDisconnected, ConnectionError)):
        return "closed the connection without an answer"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"has no valid certificate: {error.verify_message}"
    if isinstance(error, http.client.IncompleteRead):
        return "closed the connection in mid-answer"
    if isinstance(error, http.client.HTTPException):
        return f"does not speak HTTP as expected: {str(error)[:100] or type(error).__name__}"
    return f"cannot be reached: {getattr(error, 'strerror', None) or type(error).__name__}"
