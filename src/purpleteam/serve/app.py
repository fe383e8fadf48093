"""The routes of the app: the page, predictions, health, and what the app says of itself."""

import asyncio
import json
from dataclasses import asdict
from functools import lru_cache
from importlib import metadata, resources
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router

from purpleteam.core.digest import sha256_bytes
from purpleteam.serve.engine import IMAGE_BYTES, TOGETHER, Answer, Engine
from purpleteam.serve.feedback import Wrong
from purpleteam.serve.guards import guarded
from purpleteam.serve.guards.visit import App, Receive, Refusal, Scope, Send, Visit
from purpleteam.serve.settings import Limits, Settings

ASSETS = {  # every file that is served, by path; there is no folder to wander in
    "/": ("index.html", "text/html; charset=utf-8"),
    **{
        f"/static/{name}.js": (f"{name}.js", "text/javascript; charset=utf-8")
        for name in ("answer", "app", "ask", "canvas", "drawing", "numerals", "samples", "wrong")
    },
    "/static/style.css": ("style.css", "text/css; charset=utf-8"),
    "/static/icon.svg": ("icon.svg", "image/svg+xml"),
}
OPENAPI, ROBOTS = "/openapi.json", "/robots.txt"
SECURITY = "/.well-known/security.txt"
NOWHERE = b"User-agent: *\nDisallow: /\n"  # RFC 9309
NO_STORE = {"cache-control": "no-store"}
JSON = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))
GATHER_SECONDS = 0.002  # that an image waits for others where several came at once
ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)
ROUTER = {404: "There is nothing here.", 405: "The method is not allowed here."}


def read_assets() -> dict[str, bytes]:
    """Read the files of the page, once at the start, by the path at which they are served."""
    folder = resources.files("purpleteam.serve") / "static"
    return {path: (folder / name).read_bytes() for path, (name, _) in ASSETS.items()}


def build_app(engine: Engine, settings: Settings) -> App:
    """Return the app around an engine, guarded.

    Confidences help an attacker; answers without them still leak labels, from which a copy can be
    trained.
    """
    routes = routes_of(engine, settings)
    if "methods" in settings.without:
        for route in routes:
            route.methods = None  # any
    router, predict = Router(routes, redirect_slashes=False), routes[0].app

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/predict" and scope["method"] == "POST":
            await predict(scope, receive, send)  # what is asked most, and what costs
            return
        scope["app"] = router  # so that it raises what it finds no route for
        try:
            await router(scope, receive, send)
        except HTTPException as error:
            headers = {name.lower(): value for name, value in (error.headers or {}).items()}
            raise Refusal(error.status_code, ROUTER[error.status_code], **headers) from None

    return guarded(app, settings, engine)


def routes_of(engine: Engine, settings: Settings) -> list[Route]:
    """Return all routes; `static/openapi.json` describes them."""
    facts = {
        "version": metadata.version("purpleteam"),
        "model": engine.card.name,
        "digest": engine.card.digest,
        "onnx_digest": engine.card.onnx_digest,
        "identity": engine.card.identity,
        "classes": list(engine.card.classes),
        "confidences": settings.expose_confidences,
        "strip": engine.strip is not None,
        "refusal": engine.card.refusal or "rules",
        "limits": asdict(settings.limits),
    }
    wrong = Wrong(engine.card, settings.feedback)
    facts["feedback"] = {"keeps": wrong.keeps}

    async def feedback(request: Request) -> Response:
        said = wrong.take(request.scope["visit"], request.scope["query_string"])
        return JSONResponse(said, headers=NO_STORE)

    async def live(_request: Request) -> Response:
        return JSONResponse({"status": "alive"}, headers=NO_STORE)

    async def ready(_request: Request) -> Response:
        if engine.leaving:
            raise Refusal(503, "The server is about to end.")
        if engine.healthy():
            return JSONResponse({"status": "ready"}, headers=NO_STORE)
        raise Refusal(503, "The model does not answer as it did at the start.")

    async def version(_request: Request) -> Response:
        confined = engine.confinement is not None and engine.confinement.holds
        return JSONResponse({**facts, "sandbox": confined}, headers=NO_STORE)

    async def security(_request: Request) -> Response:
        text = settings.disclosure.text()
        if text is None:
            raise Refusal(404, ROUTER[404])
        return Response(text, media_type="text/plain; charset=utf-8", headers=NO_STORE)

    description = resources.files("purpleteam.serve") / "static" / "openapi.json"
    predict = Predict(engine, expose_confidences=settings.expose_confidences)
    return [
        Route("/predict", predict, methods=["POST"]),  # the first that the router tries
        Route("/predict/batch", PredictBatch(predict, settings.limits), methods=["POST"]),
        Route("/feedback", feedback, methods=["POST"]),
        *(_file(path, content, ASSETS[path][1]) for path, content in read_assets().items()),
        Route("/livez", live),
        Route("/readyz", ready),
        Route("/version", version),
        _file(OPENAPI, description.read_bytes(), "application/json"),
        _file(ROBOTS, NOWHERE, "text/plain; charset=utf-8"),
        Route(SECURITY, security),
    ]


class Predict:
    """The route of a prediction, as bare ASGI: it is what the server spends its time on."""

    def __init__(self, engine: Engine, *, expose_confidences: bool) -> None:
        self.engine, self.expose_confidences = engine, expose_confidences
        self._waiting: list[tuple[bytes, asyncio.Future[Answer]]] = []
        self._due: asyncio.Handle
        self._crowded = False  # did several images wait at once?

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        visit: Visit = scope["visit"]
        pixels = octets_of(visit)
        if len(pixels) != IMAGE_BYTES:
            raise Refusal(400, f"An image is exactly {IMAGE_BYTES} bytes: 28x28 grey pixels.")
        answer = await self.answer(pixels)
        visit.told["label"] = answer.label
        if answer.reason is not None:
            visit.told["reason"] = answer.reason
        await send_content(send, content_of(answer))

    def answer(self, pixels: bytes) -> asyncio.Future[Answer]:
        """Look at an image, together with those that are asked about at the same time."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((pixels, answer))
        if len(self._waiting) == 1:
            self._due = loop.call_later(GATHER_SECONDS if self._crowded else 0.0, self._look)
        elif len(self._waiting) == TOGETHER:
            self._look_soon(loop)
        return answer

    def _look_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due.cancel()
        self._due = loop.call_soon(self._look)

    def _look(self) -> None:
        waiting, self._waiting = self._waiting[:TOGETHER], self._waiting[TOGETHER:]
        self._crowded = len(waiting) > 1
        if self._waiting:  # once others have had their turn
            self._look_soon(asyncio.get_running_loop())
        try:
            answers = self.engine.classify_all([pixels for pixels, _ in waiting])
        except Exception as error:
            for _, told in waiting:
                if not told.done():
                    told.set_exception(error)
            return
        for (_, told), answer in zip(waiting, answers, strict=True):
            if not told.done():
                told.set_result(answer if self.expose_confidences else Answer(*answer[:-1]))


class PredictBatch:
    """The route of several images: each is answered as it would be alone."""

    def __init__(self, predict: Predict, limits: Limits) -> None:
        self.predict, self.most = predict, limits.batch_images

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        visit: Visit = scope["visit"]
        pixels = octets_of(visit)
        if not pixels or len(pixels) % IMAGE_BYTES:
            raise Refusal(
                400, f"A batch is 1 to {self.most} images of exactly {IMAGE_BYTES} bytes each."
            )
        answers: list[Answer] = []
        images = [
            pixels[start : start + IMAGE_BYTES] for start in range(0, len(pixels), IMAGE_BYTES)
        ]
        for start in range(0, len(images), TOGETHER):  # others are answered in between
            answers += await asyncio.gather(
                *map(self.predict.answer, images[start : start + TOGETHER])
            )
        visit.told["label"] = [answer.label for answer in answers]
        visit.told["reason"] = [answer.reason for answer in answers]
        await send_content(send, b'{"answers":[' + b",".join(map(content_of, answers)) + b"]}")


def octets_of(visit: Visit) -> bytes:
    """Return the body of a request, which must say that it is plain bytes."""
    kind = visit.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/octet-stream" or "content-encoding" in visit.headers:
        raise Refusal(415, "Send images as application/octet-stream, not encoded.")
    return visit.body or b""


@lru_cache(256)
def content_of(answer: Answer) -> bytes:
    """Return an answer to one image as JSON; without confidences there are few different ones."""
    fields: dict[str, Any] = {"label": answer.label}
    if answer.reason is not None:
        fields["reason"] = answer.reason
    if answer.nearest is not None:
        fields["nearest"] = answer.nearest
    if answer.confidences:
        fields["confidences"] = [round(share, 6) for share in answer.confidences]
    return ENCODER.encode(fields).encode()


async def send_content(send: Send, content: bytes) -> None:
    """Send a JSON document that nobody keeps."""
    length = (b"content-length", b"%d" % len(content))
    await send({"type": "http.response.start", "status": 200, "headers": [*JSON, length]})
    await send({"type": "http.response.body", "body": content})


def _file(path: str, content: bytes, kind: str) -> Route:
    tag = f'"{sha256_bytes(content).removeprefix("sha256:")}"'
    headers = {"etag": tag, "cache-control": "no-cache"}

    async def file(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=kind, headers=headers)

    return Route(path, file)
