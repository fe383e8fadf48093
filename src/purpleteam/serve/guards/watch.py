"""What the operator sees: an id and a log line for each request, and totals; never a drawing."""

from __future__ import annotations

import asyncio
import hmac
import json
import pkgutil
import socket
import time
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module, resources
from typing import TYPE_CHECKING, Any, get_args

from purpleteam.core.errors import MissingExtra
from purpleteam.serve.guards.client import demand
from purpleteam.serve.guards.visit import Refusal
from purpleteam.serve.loglines import LogLines
from purpleteam.serve.tally import Key, Tally

if TYPE_CHECKING:
    from purpleteam.serve.engine import Engine
    from purpleteam.serve.guards.visit import App, Receive, Scope, Send, Visit
    from purpleteam.serve.settings import Settings

STATIC = "/static/{file}"
OTHER = "other"  # a path that is none of the app's
GONE = 0  # the status where the client left, or was cut off, before an answer
STATUSES = (GONE, 200, 304, *range(400, 432), 451, *range(500, 506))
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)  # seconds
BUCKETS = (*map(str, BOUNDS), "+Inf")
MOST_CLIENTS = 4096  # whose hashes are kept at hand
AROUND_METRICS = ("headers", "refusals", "client", "hosts")  # the guards of that port


@dataclass(frozen=True, kw_only=True)
class Watching:
    """What is told of requests, and where."""

    log: str = "off"
    """Where a line of JSON for each request goes: off, - for standard error, or a file."""
    answers: bool = False
    """Also tell which label or reason was answered: where few ask, that says who drew what."""
    metrics_port: int = 0
    """The port of /metrics for Prometheus; 0: none."""
    metrics_host: str = "127.0.0.1"
    """Where that port is: anybody reads there, but with `keys` only a key of scope metrics."""
    table: int | None = None
    """The number of an open file, from `tally.new_file`, that workers of one machine share."""

    def __post_init__(self) -> None:
        if not 0 <= self.metrics_port <= 65535:
            raise ValueError(f"metrics_port must be from 0 to 65535, not {self.metrics_port}")


class Watch:
    """Give each request an id, told as X-Request-Id, and write down how it ended.

    A line holds no address, body, query or header. The client is a keyed hash, whose secret is
    made anew each day and kept in memory alone: two days cannot be linked, and nobody can try all
    addresses afterwards.
    """

    def __init__(self, app: App, settings: Settings, engine: Engine) -> None:
        asked = settings.watch
        self.app, self.settings, self.engine = app, settings, engine
        description = resources.files("purpleteam.serve") / "static" / "openapi.json"
        self.routes = frozenset(json.loads(description.read_bytes())["paths"])
        self.tally = Tally(_keys(self.routes, engine), asked.table)
        self.lines = None if asked.log == "off" else LogLines(asked.log)
        places = self.tally.places
        self._requests = {
            (route, status): (
                places["requests", route, str(status)],
                places["seconds", route, BUCKETS[0]],
            )
            for route in (*self.routes, OTHER)
            for status in STATUSES
        }
        self._second, self._stamp = 0, ""
        self._secret, self._clients = b"", dict[str, str]()
        self._listener: socket.socket | None = None
        self._server: asyncio.Server | None = None
        if asked.metrics_port:
            self._exposition = _exposition()
            self._protocol = self._protocols()

    async def open(self) -> None:
        """Begin to write lines, and answer on the port of the metrics, beside the app."""
        if self.lines is not None:
            self.lines.start()
        if self._listener is not None:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(self._protocol, sock=self._listener)

    def _protocols(self) -> Callable[[], asyncio.Protocol]:
        """Listen for those who ask for metrics; return what speaks with one of them."""
        from uvicorn.server import ServerState

        from purpleteam.serve.guards import GUARDS, guarded
        from purpleteam.serve.main import listen
        from purpleteam.serve.server import bounded_config

        asked = self.settings.watch
        shared = self.settings.workers.count > 0
        self._listener = listen(asked.metrics_host, asked.metrics_port, True, shared=shared)
        others = tuple(name for name in GUARDS if name not in AROUND_METRICS)
        app = guarded(self._metrics, replace(self.settings, without=others), self.engine)
        config = bounded_config(app, self.settings)
        config.load()
        protocol: Any = config.http_protocol_class
        return partial(protocol, config=config, server_state=ServerState(), app_state={})

    async def close(self) -> None:
        """Write the last lines, and end the port of the metrics."""
        if self.lines is not None:
            self.lines.close()
        if self._server is not None:
            self._server.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        visit: Visit = scope["visit"]
        began = time.perf_counter()
        visit.headers_out[b"x-request-id"] = visit.id.encode()
        try:
            await self.app(scope, receive, send)
        finally:
            seconds = time.perf_counter() - began
            path = scope["path"]
            route = STATIC if path.startswith("/static/") else path
            route = route if route in self.routes else OTHER
            self._count(route, visit.status, seconds, visit.told)
            if self.lines is not None:
                self.lines.add(self._line(scope["method"], route, seconds, visit))

    def _count(self, route: str, status: int, seconds: float, told: dict[str, Any]) -> None:
        add, cells = self.tally.add, self.tally.cells
        request, first_bucket = self._requests.get((route, status), self._requests[OTHER, GONE])
        cells[request] += 1
        cells[first_bucket + bisect_left(BOUNDS, seconds)] += 1
        cells[first_bucket + len(BUCKETS)] += seconds
        if "refused" in told:
            add(("refusals", told["refused"]))
        if "said" in told:
            add(("wrong", told["said"]))
        if "label" in told:
            labels: Any = told["label"]
            reasons: Any = told.get("reason")
            if not isinstance(labels, list):  # a batch tells lists
                labels, reasons = (labels,), (reasons,)
            for label, reason in zip(labels, reasons, strict=True):
                add(("answers", reason if label is None else "a label"))
                if label is not None and self.settings.watch.answers:
                    add(("labels", str(label)))

    def _line(self, method: str, route: str, seconds: float, visit: Visit) -> str:
        now = time.time()
        if int(now) != self._second:
            self._second = int(now)
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        client = self._client(visit.address)
        line = (
            f'{{"time": "{self._stamp}.{int(now % 1 * 1000):03d}Z", "id": "{visit.id}", '
            f'"method": "{method}", "route": "{route}", "status": {visit.status}, '
            f'"ms": {seconds * 1000:.3f}, "bytes": {visit.size}, "client": "{client}"'
        )
        if visit.key is not None:
            line += f', "key": {json.dumps(visit.key)}'
        if "refused" in visit.told:
            line += f', "refused": "{visit.told["refused"]}"'
        if self.settings.watch.answers:
            shown = {name: visit.told[name] for name in ("label", "reason") if name in visit.told}
            line += "".join(f', "{name}": {json.dumps(said)}' for name, said in shown.items())
        return line + "}"

    def _client(self, address: str) -> str:
        """Return what stands for an address today."""
        secret = self.tally.secret()
        if secret != self._secret or len(self._clients) >= MOST_CLIENTS:
            self._secret, self._clients = secret, {}
        if address not in self._clients:
            keyed = hmac.digest(secret, address.encode(), "sha256")
            self._clients[address] = keyed.hex()[:12]
        return self._clients[address]

    async def _metrics(self, scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["path"] != "/metrics":
            raise Refusal(404, "There is nothing here but /metrics.")
        if scope["method"] not in ("GET", "HEAD"):
            raise Refusal(405, "The method is not allowed here.", allow="GET, HEAD")
        if self.settings.keys is not None:
            demand(scope["visit"], "metrics")
        content, kind = self._exposition.text(self.tally.totals(), self.engine.card)
        headers = [
            (b"content-type", kind.encode()),
            (b"content-length", b"%d" % len(content)),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})


def _keys(routes: frozenset[str], engine: Engine) -> list[Key]:
    """Return all that is counted: what a total is of, then its labels."""
    from purpleteam.serve import guards
    from purpleteam.serve.engine import Reason
    from purpleteam.serve.feedback import NONE

    names = [*sorted(routes), OTHER]
    keys: list[Key] = [("requests", route, str(status)) for route in names for status in STATUSES]
    keys += [("seconds", route, bucket) for route in names for bucket in (*BUCKETS, "sum")]
    modules = [module.name for module in pkgutil.iter_modules(guards.__path__)]
    keys += [("refusals", name) for name in [*modules, "app"]]
    keys += [("answers", name) for name in ["a label", *get_args(Reason)]]
    labels = [str(label) for label in range(len(engine.card.classes))]
    keys += [("wrong", said) for said in [*labels, NONE]]
    return keys + [("labels", label) for label in labels]


def _exposition() -> Any:
    """Return what writes metrics; its library is asked for where there is a port for them."""
    try:
        return import_module("purpleteam.serve.exposition")
    except ImportError:
        raise MissingExtra("prometheus_client", "serve") from None
