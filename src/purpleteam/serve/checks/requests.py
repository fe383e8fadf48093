"""Checks of what comes in: its size, its method, and requests that make no sense."""

from __future__ import annotations

import re
from typing import Any

from purpleteam.core.checks import CHECKS, Outcome, Target
from purpleteam.serve.checks._client import OCTETS, STROKE, Reply, announce, ask, pour, shout
from purpleteam.serve.checks._web import WebCheck, address

__all__ = ["LEAK", "ErrorsClean", "MethodNotAllowed", "SizeCap"]

CHUNK, CHUNKS = bytes(5000), 1000
HUGE = 100_000_000
LEAK = re.compile(
    r"Traceback|Werkzeug|debugger|File \"|\bline \d+|0x[0-9a-f]{6,}|(?:/[\w.-]+){2,}"
    r"|\w+(?:Error|Exception)\b"
)
"""What an error must not say: traces, addresses in memory, paths, names of exceptions."""


@CHECKS.register("web.size-cap")
class SizeCap(WebCheck):
    """An image is taken; a byte more, 5 MB in chunks and an announced 100 MB are not."""

    id = "web.size-cap"
    proves = "A body of more than 784 bytes is refused before it is processed."

    def examine(self, target: Target) -> Outcome:
        url = address(target)
        whole = ask(url, "POST", "/predict", body=STROKE, headers=OCTETS)
        over = ask(url, "POST", "/predict", body=STROKE + b"\0", headers=OCTETS)
        poured = pour(url, "/predict", CHUNK, CHUNKS)
        announced = announce(url, "/predict", HUGE)
        return Outcome(
            passed=whole.status == 200
            and over.status in (400, 413)
            and poured.status in (0, 400, 413)
            and announced.status in (400, 413),
            measured={
                "784 bytes": whole.status,
                "785 bytes": over.status,
                "5 MB in chunks": poured.status or "cut",
                "100 MB announced": announced.status or "waited for",
            },
            threshold="200, then 400 or 413; the chunks may be cut",
        )


@CHECKS.register("web.method-not-allowed")
class MethodNotAllowed(WebCheck):
    """Each path answers 405, naming what it allows, to every method but its own."""

    id = "web.method-not-allowed"
    proves = "Only the methods that a path has are answered."

    def examine(self, target: Target) -> Outcome:
        url = address(target)
        others = ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE")
        asked = [(method, path) for path in ("/predict", "/") for method in others]
        asked += [("GET", "/predict"), ("POST", "/"), ("POST", "/version")]
        replies = {f"{method} {path}": ask(url, method, path) for method, path in asked}
        wrong = {
            name: reply.status
            for name, reply in replies.items()
            if reply.status != 405 or "allow" not in reply.headers
        }
        return Outcome(passed=not wrong, measured={"wrong": wrong}, threshold="405 with Allow")


@CHECKS.register("web.errors-clean")
class ErrorsClean(WebCheck):
    """Malformed requests get 4xx problem documents that say nothing of the inside."""

    id = "web.errors-clean"
    proves = "Malformed requests are answered with a 4xx that leaks nothing."

    def examine(self, target: Target) -> Outcome:
        url = address(target)
        found = {name: _fault(reply) for name, reply in _malformed(url).items()}
        broken = shout(url, b"THIS IS NO HTTP\r\n\r\n")
        found["no HTTP"] = _raw_fault(broken)
        wrong = {name: fault for name, fault in found.items() if fault}
        return Outcome(
            passed=not wrong,
            measured={"asked": len(found), "wrong": wrong},
            threshold="4xx, application/problem+json, no trace, path, address or exception",
        )


def _malformed(url: str) -> dict[str, Reply]:
    def post(body: bytes, **headers: str) -> Reply:
        return ask(url, "POST", "/predict", body=body, headers=headers or OCTETS)

    json_type = {"Content-Type": "application/json"}
    return {
        "empty body": post(b""),
        "one byte short": post(STROKE[:-1]),
        "one byte over": post(STROKE + b"\0"),
        "no type": ask(url, "POST", "/predict", body=STROKE),
        "JSON": post(b'{"image": [[[', **json_type),
        "claims to be packed": post(STROKE, **OCTETS, **{"Content-Encoding": "gzip"}),
        "no such path": ask(url, "GET", "/no/such/path"),
        "up and out": ask(url, "GET", "/static/../app.py"),
        "up and out, coded": ask(url, "GET", "/static/%2e%2e%2fapp.py"),
        "a null in the path": ask(url, "GET", "/static/%00"),
        "length below zero": ask(url, "POST", "/predict", headers={"Content-Length": "-1"}),
    }


def _fault(reply: Reply) -> str:
    if not 400 <= reply.status < 500:
        return f"status {reply.status}"
    if not reply.headers.get("content-type", "").startswith("application/problem+json"):
        return "no problem document"
    return _leak(reply.text)


def _raw_fault(raw: bytes) -> str:
    head, _, body = raw.partition(b"\r\n\r\n")
    if not re.match(rb"HTTP/1\.[01] 4\d\d ", head):
        return "no 4xx"
    return _leak(body.decode("utf-8", "replace"))


def _leak(text: str) -> str:
    match: Any = LEAK.search(text)
    return f"leaks {match.group(0)!r}" if match else ""
