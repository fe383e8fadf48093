"""The routes of the app: the page, its files, /predict, /livez, /readyz and /version."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import asdict, dataclass
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

Endpoint = Callable[[Request], Awaitable[Response]]

ASSETS = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/static/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/static/canvas.js": ("canvas.js", "text/javascript; charset=utf-8"),
    "/static/drawing.js": ("drawing.js", "text/javascript; charset=utf-8"),
    "/static/style.css": ("style.css", "text/css; charset=utf-8"),
    "/static/icon.svg": ("icon.svg", "image/svg+xml"),
}
"""Every file that is served, by path; there is no folder to wander in."""


@dataclass(frozen=True, kw_only=True)
class Asset:
    """A file of the page, read once at the start."""

    content: bytes
    media_type: str


def read_assets() -> dict[str, Asset]:
    """Read the files of the page, by the path at which they are served."""
    folder = resources.files("purpleteam.serve") / "static"
    return {
        path: Asset(content=(folder / name).read_bytes(), media_type=media_type)
        for path, (name, media_type) in ASSETS.items()
    }


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
        "model": engine.name,
        "digest": engine.digest,
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
        return _json(fields)

    async def livez(_request: Request) -> Response:
        return _json({"status": "alive"})

    async def readyz(_request: Request) -> Response:
        if engine.healthy():
            return _json({"status": "ready"})
        return _problem(503, "The model does not answer as it did at the start.")

    async def version(_request: Request) -> Response:
        return _json(facts)

    routes = [Route(path, _file(asset), methods=["GET"]) for path, asset in read_assets().items()]
    routes.append(Route("/predict", predict, methods=["POST"]))
    for path, endpoint in (("/livez", livez), ("/readyz", readyz), ("/version", version)):
        routes.append(Route(path, endpoint, methods=["GET"]))
    guard = Middleware(Guard, allowed_hosts=allowed_hosts, limits=limits)
    app = Starlette(
        routes=routes, middleware=[guard], exception_handlers={HTTPException: _http_problem}
    )
    app.router.redirect_slashes = False
    return app


def _file(asset: Asset) -> Endpoint:
    tag = f'"{sha256_bytes(asset.content).removeprefix("sha256:")}"'
    headers = {"etag": tag, "cache-control": "no-cache"}

    async def file(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(asset.content, media_type=asset.media_type, headers=headers)

    return file


async def _http_problem(_request: Request, error: Exception) -> Response:
    status: int = getattr(error, "status_code", 500)
    details = {404: "There is nothing here.", 405: "The method is not allowed here."}
    headers: Mapping[str, str] | None = getattr(error, "headers", None)
    return _problem(status, details.get(status, "The request was refused."), headers)


def _json(answer: Mapping[str, Any]) -> Response:
    return JSONResponse(answer, headers={"cache-control": "no-store"})


def _problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    return Response(
        problem(status, detail),
        status_code=status,
        media_type="application/problem+json",
        headers={"cache-control": "no-store", **(headers or {})},
    )
