"""The routes of the app: the page, its files, /predict, /livez, /readyz and /version."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import asdict
from importlib import metadata, resources
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from purpleteam.core.digest import sha256_bytes
from purpleteam.serve.engine import IMAGE_BYTES, Engine
from purpleteam.serve.guard import LOOPBACK_HOSTS, Guard, Limits, problem

NEVER_KEPT = {"cache-control": "no-store"}
ASSETS = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/static/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/static/canvas.js": ("canvas.js", "text/javascript; charset=utf-8"),
    "/static/drawing.js": ("drawing.js", "text/javascript; charset=utf-8"),
    "/static/style.css": ("style.css", "text/css; charset=utf-8"),
    "/static/icon.svg": ("icon.svg", "image/svg+xml"),
}
"""Every file that is served, by path; there is no folder to wander in."""


def read_assets() -> dict[str, bytes]:
    """Read the files of the page, once at the start, by the path at which they are served."""
    folder = resources.files("purpleteam.serve") / "static"
    return {path: (folder / name).read_bytes() for path, (name, _) in ASSETS.items()}


def build_app(
    engine: Engine,
    *,
    expose_confidences: bool = False,
    allowed_hosts: Collection[str] = LOOPBACK_HOSTS,
    limits: Limits = Limits(),  # noqa: B008 - frozen
) -> Starlette:
    """Return the app around one engine, guarded.

    Args:
        engine: the model that answers.
        expose_confidences: also answer with the probability of each class. That helps an
            attacker; answers without them still leak labels, from which a copy can be trained.
        allowed_hosts: names and addresses, without port, that a request's Host may have.
        limits: what a client may send, and how long it may take; `wire` keeps those of them that
            are none of an app's business.
    """
    facts = {
        "version": metadata.version("purpleteam"),
        "model": engine.card.name,
        "digest": engine.card.digest,
        "onnx_digest": engine.card.onnx_digest,
        "classes": list(engine.card.classes),
        "confidences": expose_confidences,
        "strip": engine.strip is not None,
        "limits": asdict(limits),
    }

    async def predict(request: Request) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/octet-stream" or "content-encoding" in request.headers:
            return _problem(415, "Send the image as application/octet-stream, not encoded.")
        pixels = await request.body()
        if len(pixels) != IMAGE_BYTES:
            return _problem(400, f"An image is exactly {IMAGE_BYTES} bytes: 28x28 grey pixels.")
        answer = engine.classify(pixels)
        fields: dict[str, Any] = {"label": answer.label}
        if answer.reason is not None:
            fields["reason"] = answer.reason
        if expose_confidences and answer.confidences:
            fields["confidences"] = [round(share, 6) for share in answer.confidences]
        return JSONResponse(fields, headers=NEVER_KEPT)

    async def livez(_request: Request) -> Response:
        return JSONResponse({"status": "alive"}, headers=NEVER_KEPT)

    async def readyz(_request: Request) -> Response:
        if engine.healthy():
            return JSONResponse({"status": "ready"}, headers=NEVER_KEPT)
        return _problem(503, "The model does not answer as it did at the start.")

    async def version(_request: Request) -> Response:
        return JSONResponse(facts, headers=NEVER_KEPT)

    endpoints = {path: _file(content, ASSETS[path][1]) for path, content in read_assets().items()}
    endpoints |= {"/livez": livez, "/readyz": readyz, "/version": version}
    app = Starlette(
        routes=[
            Route("/predict", predict, methods=["POST"]),
            *(Route(path, endpoint, methods=["GET"]) for path, endpoint in endpoints.items()),
        ],
        middleware=[Middleware(Guard, allowed_hosts=allowed_hosts, limits=limits)],
        exception_handlers={HTTPException: _http_problem},
    )
    app.router.redirect_slashes = False
    return app


def _file(content: bytes, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    tag = f'"{sha256_bytes(content).removeprefix("sha256:")}"'
    headers = {"etag": tag, "cache-control": "no-cache"}

    async def file(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=media_type, headers=headers)

    return file


async def _http_problem(_request: Request, error: Exception) -> Response:
    status: int = getattr(error, "status_code", 500)
    details = {404: "There is nothing here.", 405: "The method is not allowed here."}
    headers: Mapping[str, str] | None = getattr(error, "headers", None)
    return _problem(status, details.get(status, "The request was refused."), headers)


def _problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    headers = NEVER_KEPT | dict(headers or {})
    return Response(problem(status, detail), status, headers, "application/problem+json")
