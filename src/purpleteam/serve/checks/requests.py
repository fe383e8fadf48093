"""Checks of what is asked and answered: sizes, methods, nonsense, headers, the page, the label."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from itertools import repeat
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from purpleteam.core.checks import CHECKS, Outcome, Target
from purpleteam.core.digest import sha256_bytes
from purpleteam.serve.checks import _web
from purpleteam.serve.checks._web import (
    OCTETS,
    STROKE,
    Reply,
    ask,
    left_out,
    must_answer,
    other_page,
    web_check,
)
from purpleteam.serve.settings import Limits

IMAGES = {"stroke": STROKE, "full page": b"\xff" * 784, "empty page": bytes(784)}
CHUNK, CHUNKS = bytes(5000), 1000
HUGE = 100_000_000
UNCAPPED = Limits(body_bytes=10**9, body_seconds=0.5)  # what is announced is waited for
OTHERS = ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE")
LEAK = re.compile(  # traces, addresses in memory, paths, names of exceptions
    r"Traceback|Werkzeug|debugger|File \"|\bline \d+|0x[0-9a-f]{6,}|(?:/[\w.-]+){2,}"
    r"|\w+(?:Error|Exception)\b"
)
REQUIRED = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
CLOSED = ("default-src", "base-uri", "form-action", "frame-ancestors")  # that must be 'none'
SOURCES = {"'none'", "'self'", "'script'"}  # all that any directive may allow
# Not /openapi.json: a description that was written to be read shows nothing of the inside.
PATHS = ("/console", "/debug", "/_debug_toolbar", "/docs", "/redoc", "/metrics")
DEBUGGER = "/?__debugger__=yes&cmd=resource&f=debugger.js"
SINKS = re.compile(  # how a script or a style sheet brings in code, or calls other hosts
    r"\beval\s*\(|new Function|\.innerHTML|\.outerHTML|insertAdjacentHTML|document\.write"
    r"|@import|url\(\s*['\"]?(?:https?:)?//"
)
IMPORT = re.compile(r"""(?:from|import)\s*\(?\s*["']([^"']+)["']""")


@web_check("web.no-confidences", left_out(expose_confidences=True))
def no_confidences(url: str) -> Outcome:
    """The app answers with a label or a reason, never with scores."""
    must_answer(url)
    answers = {name: _fields(ask(url, "POST", "/predict", image)) for name, image in IMAGES.items()}
    return Outcome(
        passed=all(map(_is_bare, answers.values())),
        measured={name: sorted(answer) for name, answer in answers.items()},
        threshold="label, or a reason, with the nearest label where it is unsure",
    )


def _fields(reply: Reply) -> dict[str, Any]:
    try:
        answer = json.loads(reply.body)
    except ValueError:
        return {}
    return answer if reply.status == 200 and isinstance(answer, dict) else {}


def _is_bare(answer: dict[str, Any]) -> bool:
    if answer.get("label") is None:
        wanted = {"label", "reason"} | ({"nearest"} if answer.get("reason") == "unsure" else set())
        return answer.keys() == wanted and isinstance(answer["reason"], str)
    return answer.keys() == {"label"} and type(answer["label"]) is int


@CHECKS.register("web.model-digest")
class ModelDigest(_web.WebCheck):
    """The running app serves the model on record: its weights, its ONNX file, its classes."""

    needs = ("url", "served_digest")

    def examine(self, target: Target) -> Outcome:
        told = _fields(ask(str(target.url), "GET", "/version"))
        identity, wanted = told.get("identity"), target.served_digest
        inputs = {"/version": str(told.get("digest")), "identity": str(identity)}
        passed = identity == wanted
        return Outcome(passed=passed, measured=identity, threshold=wanted, inputs=inputs)

    @contextmanager
    def bad_target(self, folder: Path) -> Iterator[Target]:
        """The app with another model than the one on record."""
        with left_out()() as url:
            yield Target(url=url, served_digest="sha256:" + 64 * "a")


@web_check("web.size-cap", left_out(limits=UNCAPPED))
def size_cap(url: str) -> Outcome:
    """A body of more than 784 bytes is refused before it is processed."""
    must_answer(url)
    huge = {**OCTETS, "Content-Length": str(HUGE)}
    measured: dict[str, int | str] = {
        "784 bytes": ask(url, "POST", "/predict", STROKE).status,
        "785 bytes": ask(url, "POST", "/predict", STROKE + b"\0").status,
        "5 MB in chunks": ask(url, "POST", "/predict", repeat(CHUNK, CHUNKS)).status or "cut",
        "100 MB announced": ask(url, "POST", "/predict", headers=huge).status or "waited for",
    }
    wanted = ((200,), (400, 413), ("cut", 400, 413), (400, 413))
    return Outcome(
        passed=all(
            status in known for status, known in zip(measured.values(), wanted, strict=True)
        ),
        measured=measured,
        threshold="200, then 400 or 413; the chunks may be cut",
    )


@web_check("web.method-not-allowed", left_out("methods"))
def method_not_allowed(url: str) -> Outcome:
    """Only the methods that a path has are answered."""
    must_answer(url)
    asked = [(method, path) for path in ("/predict", "/") for method in OTHERS]
    asked += [("GET", "/predict"), ("POST", "/"), ("POST", "/version")]
    wrong = {}
    for method, path in asked:
        reply = ask(url, method, path, headers={})
        if reply.status != 405 or "allow" not in reply.headers:
            wrong[f"{method} {path}"] = reply.status
    return Outcome(passed=not wrong, measured={"wrong": wrong}, threshold="405 with Allow")


@web_check("web.errors-clean", left_out("refusals"))
def errors_clean(url: str) -> Outcome:
    """Malformed requests are answered with a 4xx that leaks nothing."""
    must_answer(url)
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
    head, _, body = _web.talk(url, b"THIS IS NO HTTP\r\n\r\n").partition(b"\r\n\r\n")
    refused = re.match(rb"HTTP/1\.[01] (4\d\d) ", head)
    problem = {"content-type": "application/problem+json"}
    replies["no HTTP"] = Reply(int(refused[1]) if refused else 0, problem, body)
    wrong = {}
    for name, reply in replies.items():
        if not 400 <= reply.status < 500:
            wrong[name] = f"status {reply.status}"
        elif not reply.headers.get("content-type", "").startswith("application/problem+json"):
            wrong[name] = "no problem document"
        elif match := LEAK.search(reply.text):
            wrong[name] = f"leaks {match.group(0)!r}"
    return Outcome(
        passed=not wrong,
        measured={"asked": len(replies), "wrong": wrong},
        threshold="4xx, application/problem+json, no trace, path, address or exception",
    )


@web_check("web.headers", left_out("headers"))
def headers(url: str) -> Outcome:
    """Every response carries the security headers, and other sites cannot call the app."""
    foreign = {**OCTETS, "Sec-Fetch-Site": "cross-site", "Origin": "http://evil.example"}
    replies = {
        "page": ask(url, "GET", "/"),
        "answer": ask(url, "POST", "/predict", STROKE),
        "no such path": ask(url, "GET", "/no-such-path"),
        "wrong type": ask(url, "POST", "/predict", STROKE, {}),
        "too large": ask(url, "POST", "/predict", STROKE + b"\0"),
        "wrong method": ask(url, "PUT", "/predict"),
        "foreign host": ask(url, "GET", "/", headers={"Host": "evil.example"}),
        "foreign site": ask(url, "POST", "/predict", STROKE, foreign),
    }
    wrong = {name: faults for name, reply in replies.items() if (faults := _faults(reply))}
    for name in ("foreign host", "foreign site"):
        if not 400 <= replies[name].status < 500:
            wrong.setdefault(name, []).append(f"answered with {replies[name].status}")
    measured = {"asked": len(replies), "wrong": wrong}
    return Outcome(passed=not wrong, measured=measured, threshold="none")


def _faults(reply: Reply) -> list[str]:
    if reply.status == 0:
        return ["no response"]
    faults = [name for name, value in REQUIRED.items() if reply.headers.get(name) != value]
    faults += [name for name in ("server", "access-control-allow-origin") if name in reply.headers]
    parts = [part.split() for part in reply.headers.get("content-security-policy", "").split(";")]
    policy = {part[0].lower(): part[1:] for part in parts if part}
    faults += [f"{name} is not 'none'" for name in CLOSED if policy.get(name) != ["'none'"]]
    for name, sources in policy.items():
        faults += [f"{name} allows {source}" for source in sources if source not in SOURCES]
    return faults


@web_check("web.no-inline", left_out(around=other_page))
def no_inline(url: str) -> Outcome:
    """The page runs only its own files: nothing inline, nothing from elsewhere."""
    page = ask(url, "GET", "/")
    reader = _PageReader()
    reader.feed(page.text)
    wrong = reader.faults if page.status == 200 else [f"the page answers {page.status}"]
    inputs = {"/": sha256_bytes(page.body)}
    waiting = reader.files
    while waiting:
        path = waiting.pop()
        if path in inputs:
            continue
        file = ask(url, "GET", path)
        inputs[path] = sha256_bytes(file.body)
        if file.status != 200:
            wrong.append(f"{path} answers {file.status}")
        wrong += [f"{path}: {match}" for match in SINKS.findall(file.text)]
        if "javascript" in file.headers.get("content-type", ""):
            waiting += [urljoin(path, name) for name in IMPORT.findall(file.text)]
    return Outcome(passed=not wrong, measured=wrong, threshold="none", inputs=inputs)


class _PageReader(HTMLParser):
    """Collects a page's faults, and the paths of the files it loads."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[str] = []
        self.files: list[str] = []
        self._in_script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_script = tag == "script"
        if tag == "style":
            self.faults.append("<style>")
        for name, value in dict(attrs).items():
            if name in ("style", "srcdoc") or name.startswith("on"):
                self.faults.append(f"{name} on <{tag}>")
            if name not in ("src", "href", "action", "data", "poster"):
                continue
            place = value or ""
            if re.match(r"\s*(?:[a-z][a-z0-9+.-]*:|//)", place, re.IGNORECASE):
                self.faults.append(f"<{tag}> leads to {place[:60]}")
            elif tag in ("script", "link", "img"):
                self.files.append(urljoin("/", place))

    def handle_data(self, data: str) -> None:
        if self._in_script and data.strip():
            self.faults.append("code in <script>")

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False


@web_check("web.debug-off", left_out("refusals"))
def debug_off(url: str) -> Outcome:
    """The app runs without debugger, console or traces in its errors."""
    replies = {path: ask(url, "GET", path) for path in PATHS}
    wrong: dict[str, object] = {
        path: reply.status
        for path, reply in replies.items()
        if reply.status != 404 or LEAK.search(reply.text)
    }
    if ask(url, "GET", DEBUGGER).body != ask(url, "GET", "/").body:
        wrong[DEBUGGER] = "a file of the debugger"
    crash = ask(url, "POST", "/predict", b"x", {})
    if crash.status >= 500 or LEAK.search(crash.text):
        wrong["an error"] = crash.status
    return Outcome(passed=not wrong, measured={"wrong": wrong}, threshold="404, no traces")
