"""Checks of what comes in and what is said of it: sizes, methods, nonsense, labels, digest."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import Any

from purpleteam.core.checks import CHECKS, Outcome, Target
from purpleteam.serve.checks._web import (
    OCTETS,
    STROKE,
    Reply,
    WebCheck,
    ask,
    careless_server,
    talk,
    web_check,
)

IMAGES = {"stroke": STROKE, "full page": b"\xff" * 784, "empty page": bytes(784)}
CHUNK, CHUNKS = bytes(5000), 1000
HUGE = 100_000_000
OTHERS = ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE")
LEAK = re.compile(
    r"Traceback|Werkzeug|debugger|File \"|\bline \d+|0x[0-9a-f]{6,}|(?:/[\w.-]+){2,}"
    r"|\w+(?:Error|Exception)\b"
)
"""What an error must not say: traces, addresses in memory, paths, names of exceptions."""


@web_check("web.no-confidences")
def no_confidences(url: str) -> Outcome:
    """The app answers with a label or a reason, never with scores."""
    answers = {name: _fields(ask(url, "POST", "/predict", image)) for name, image in IMAGES.items()}
    return Outcome(
        passed=all(_is_bare(answer) for answer in answers.values()),
        measured={name: sorted(answer) for name, answer in answers.items()},
        threshold="label, and reason where there is no label",
    )


def _fields(reply: Reply) -> dict[str, Any]:
    try:
        answer = json.loads(reply.body)
    except ValueError:
        return {}
    return answer if reply.status == 200 and isinstance(answer, dict) else {}


def _is_bare(answer: dict[str, Any]) -> bool:
    if answer.get("label") is None:
        return answer.keys() == {"label", "reason"} and isinstance(answer["reason"], str)
    return answer.keys() == {"label"} and type(answer["label"]) is int


@CHECKS.register("web.model-digest")
class ModelDigest(WebCheck):
    """The running app serves the model whose digest is on record."""

    needs = ("url", "served_digest")

    def examine(self, target: Target) -> Outcome:
        told = _fields(ask(str(target.url), "GET", "/version")).get("digest")
        wanted, inputs = target.served_digest, {"/version": str(told)}
        return Outcome(passed=told == wanted, measured=told, threshold=wanted, inputs=inputs)

    @contextmanager
    def bad_target(self, folder: Path) -> Iterator[Target]:
        with careless_server() as url:
            yield Target(url=url, served_digest="sha256:" + 64 * "a")


@web_check("web.size-cap")
def size_cap(url: str) -> Outcome:
    """A body of more than 784 bytes is refused before it is processed."""
    whole = ask(url, "POST", "/predict", STROKE).status
    over = ask(url, "POST", "/predict", STROKE + b"\0").status
    poured = ask(url, "POST", "/predict", repeat(CHUNK, CHUNKS)).status
    huge = {**OCTETS, "Content-Length": str(HUGE)}
    announced = ask(url, "POST", "/predict", headers=huge).status
    refused = over in (400, 413) and poured in (0, 400, 413) and announced in (400, 413)
    return Outcome(
        passed=whole == 200 and refused,
        measured={
            "784 bytes": whole,
            "785 bytes": over,
            "5 MB in chunks": poured or "cut",
            "100 MB announced": announced or "waited for",
        },
        threshold="200, then 400 or 413; the chunks may be cut",
    )


@web_check("web.method-not-allowed")
def method_not_allowed(url: str) -> Outcome:
    """Only the methods that a path has are answered."""
    asked = [(method, path) for path in ("/predict", "/") for method in OTHERS]
    asked += [("GET", "/predict"), ("POST", "/"), ("POST", "/version")]
    wrong = {}
    for method, path in asked:
        reply = ask(url, method, path, headers={})
        if reply.status != 405 or "allow" not in reply.headers:
            wrong[f"{method} {path}"] = reply.status
    return Outcome(passed=not wrong, measured={"wrong": wrong}, threshold="405 with Allow")


@web_check("web.errors-clean")
def errors_clean(url: str) -> Outcome:
    """Malformed requests are answered with a 4xx that leaks nothing."""
    packed, typed = {**OCTETS, "Content-Encoding": "gzip"}, {"Content-Type": "application/json"}
    replies = {
        "empty body": ask(url, "POST", "/predict", b""),
        "one byte short": ask(url, "POST", "/predict", STROKE[:-1]),
        "one byte over": ask(url, "POST", "/predict", STROKE + b"\0"),
        "no type": ask(url, "POST", "/predict", STROKE, {}),
        "JSON": ask(url, "POST", "/predict", b'{"image": [[[', typed),
        "claims to be packed": ask(url, "POST", "/predict", STROKE, packed),
        "no such path": ask(url, "GET", "/no/such/path"),
        "up and out": ask(url, "GET", "/static/../app.py"),
        "up and out, coded": ask(url, "GET", "/static/%2e%2e%2fapp.py"),
        "a null in the path": ask(url, "GET", "/static/%00"),
        "length below zero": ask(url, "POST", "/predict", headers={"Content-Length": "-1"}),
    }
    faults = {name: _fault(reply) for name, reply in replies.items()}
    head, _, body = talk(url, b"THIS IS NO HTTP\r\n\r\n").partition(b"\r\n\r\n")
    refused = re.match(rb"HTTP/1\.[01] 4\d\d ", head)
    faults["no HTTP"] = _leak(body.decode("utf-8", "replace")) if refused else "no 4xx"
    wrong = {name: fault for name, fault in faults.items() if fault}
    return Outcome(
        passed=not wrong,
        measured={"asked": len(faults), "wrong": wrong},
        threshold="4xx, application/problem+json, no trace, path, address or exception",
    )


def _fault(reply: Reply) -> str:
    if not 400 <= reply.status < 500:
        return f"status {reply.status}"
    if not reply.headers.get("content-type", "").startswith("application/problem+json"):
        return "no problem document"
    return _leak(reply.text)


def _leak(text: str) -> str:
    match = LEAK.search(text)
    return f"leaks {match.group(0)!r}" if match else ""
