"""Checks of what goes out: headers on every response, no inline code, no debugger."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from urllib.parse import urljoin

from purpleteam.core.checks import Outcome
from purpleteam.core.digest import sha256_bytes
from purpleteam.serve.checks._web import OCTETS, STROKE, Reply, ask, web_check
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
PATHS = ("/console", "/debug", "/_debug_toolbar", "/docs", "/openapi.json", "/metrics")
DEBUGGER = "/?__debugger__=yes&cmd=resource&f=debugger.js"
SINKS = re.compile(
    r"\beval\s*\(|new Function|\.innerHTML|\.outerHTML|insertAdjacentHTML|document\.write"
    r"|@import|url\(\s*['\"]?(?:https?:)?//"
)
"""Ways in which a script or a style sheet brings in code or calls other hosts."""
IMPORT = re.compile(r"""(?:from|import)\s*\(?\s*["']([^"']+)["']""")


@web_check("web.headers")
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


@web_check("web.no-inline")
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


@web_check("web.debug-off")
def debug_off(url: str) -> Outcome:
    """The app runs without debugger, console or traces in its errors."""
    wrong: dict[str, object] = {}
    for path in PATHS:
        reply = ask(url, "GET", path)
        if reply.status != 404 or LEAK.search(reply.text):
            wrong[path] = reply.status
    if ask(url, "GET", DEBUGGER).body != ask(url, "GET", "/").body:
        wrong[DEBUGGER] = "a file of the debugger"
    crash = ask(url, "POST", "/predict", b"x", {})
    if crash.status >= 500 or LEAK.search(crash.text):
        wrong["an error"] = crash.status
    return Outcome(passed=not wrong, measured={"wrong": wrong}, threshold="404, no traces")
