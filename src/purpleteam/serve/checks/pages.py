"""Checks of what goes out: headers on every response, no inline code, no debugger."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from urllib.parse import urljoin

from purpleteam.core.checks import CHECKS, Outcome, Target
from purpleteam.core.digest import sha256_bytes
from purpleteam.serve.checks._web import OCTETS, STROKE, Reply, WebCheck, address, ask
from purpleteam.serve.checks.requests import LEAK

REQUIRED = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
CLOSED = ("default-src", "base-uri", "form-action", "frame-ancestors")
"""Directives of the content security policy that must be 'none'."""
SOURCES = {"'none'", "'self'", "'script'"}
"""All that any directive may allow: no inline code, no eval, no wildcard, no other host."""
DEBUGGER = "/?__debugger__=yes&cmd=resource&f=debugger.js"
SINKS = re.compile(
    r"\beval\s*\(|new Function|\.innerHTML|\.outerHTML|insertAdjacentHTML|document\.write"
    r"|@import|url\(\s*['\"]?(?:https?:)?//"
)
"""Ways in which a script or a style sheet brings in code or calls other hosts."""


@CHECKS.register("web.headers")
class Headers(WebCheck):
    """Every response, errors too, is hardened; foreign hosts and sites are refused."""

    id = "web.headers"
    proves = "Every response carries the security headers, and other sites cannot call the app."

    def examine(self, target: Target) -> Outcome:
        url = address(target)
        foreign_host = {"Host": "evil.example"}
        foreign_site = {**OCTETS, "Sec-Fetch-Site": "cross-site", "Origin": "http://evil.example"}
        replies = {
            "page": ask(url, "GET", "/"),
            "answer": ask(url, "POST", "/predict", body=STROKE, headers=OCTETS),
            "no such path": ask(url, "GET", "/no-such-path"),
            "wrong type": ask(url, "POST", "/predict", body=STROKE),
            "too large": ask(url, "POST", "/predict", body=STROKE + b"\0", headers=OCTETS),
            "wrong method": ask(url, "PUT", "/predict"),
            "foreign host": ask(url, "GET", "/", headers=foreign_host),
            "foreign site": ask(url, "POST", "/predict", body=STROKE, headers=foreign_site),
        }
        wrong = {name: faults for name, reply in replies.items() if (faults := _faults(reply))}
        for name in ("foreign host", "foreign site"):
            if not 400 <= replies[name].status < 500:
                wrong.setdefault(name, []).append(f"answered with {replies[name].status}")
        return Outcome(
            passed=not wrong, measured={"asked": len(replies), "wrong": wrong}, threshold="none"
        )


@CHECKS.register("web.no-inline")
class NoInline(WebCheck):
    """The page and its files hold no inline code and no address of another host."""

    id = "web.no-inline"
    proves = "The page runs only its own files: nothing inline, nothing from elsewhere."

    def examine(self, target: Target) -> Outcome:
        url = address(target)
        page = ask(url, "GET", "/")
        reader = _PageReader()
        reader.feed(page.text)
        wrong = list(reader.faults) if page.status == 200 else [f"the page answers {page.status}"]
        inputs = {"/": sha256_bytes(page.body)}
        waiting = list(reader.files)
        while waiting:
            path = waiting.pop()
            if path in inputs:
                continue
            file = ask(url, "GET", path)
            inputs[path] = sha256_bytes(file.body)
            if file.status != 200:
                wrong.append(f"{path} answers {file.status}")
            wrong += [f"{path}: {match}" for match in SINKS.findall(file.text)]
            waiting += [urljoin(path, name) for name in _imports(file)]
        return Outcome(passed=not wrong, measured=wrong, threshold="none", inputs=inputs)


@CHECKS.register("web.debug-off")
class DebugOff(WebCheck):
    """No console, no interactive documentation, and errors without a trace."""

    id = "web.debug-off"
    proves = "The app runs without debugger, console or traces in its errors."

    def examine(self, target: Target) -> Outcome:
        url = address(target)
        paths = ("/console", "/debug", "/_debug_toolbar", "/docs", "/openapi.json", "/metrics")
        wrong: dict[str, object] = {}
        for path in paths:
            reply = ask(url, "GET", path)
            if reply.status != 404 or LEAK.search(reply.text):
                wrong[path] = reply.status
        if ask(url, "GET", DEBUGGER).body != ask(url, "GET", "/").body:
            wrong[DEBUGGER] = "a file of the debugger"
        crash = ask(url, "POST", "/predict", body=b"x")
        if crash.status >= 500 or LEAK.search(crash.text):
            wrong["an error"] = crash.status
        return Outcome(passed=not wrong, measured={"wrong": wrong}, threshold="404, no traces")


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


def _imports(file: Reply) -> list[str]:
    if "javascript" not in file.headers.get("content-type", ""):
        return []
    return re.findall(r"""(?:from|import)\s*\(?\s*["']([^"']+)["']""", file.text)


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
