"""What is answered: the page, its files, /predict, /livez, /readyz and /version."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict
from importlib import metadata, resources
from typing import Any

from purpleteam.core.digest import sha256_bytes
from purpleteam.serve.engine import IMAGE_BYTES, Engine
from purpleteam.serve.guard import LOOPBACK_HOSTS, Answer, Guard, Limits, Refusal, Reply

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
) -> Guard:
    """Return the ASGI app around one engine, guarded.

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

    def predict(headers: Mapping[str, str], pixels: bytes) -> Reply:
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/octet-stream" or "content-encoding" in headers:
            raise Refusal(415, "Send the image as application/octet-stream, not encoded.")
        if len(pixels) != IMAGE_BYTES:
            raise Refusal(400, f"An image is exactly {IMAGE_BYTES} bytes: 28x28 grey pixels.")
        answer = engine.classify(pixels)
        fields: dict[str, Any] = {"label": answer.label}
        if answer.reason is not None:
            fields["reason"] = answer.reason
        if expose_confidences and answer.confidences:
            fields["confidences"] = [round(share, 6) for share in answer.confidences]
        return _json(fields)

    def ready(_headers: Mapping[str, str], _body: bytes) -> Reply:
        if engine.healthy():
            return _json({"status": "ready"})
        raise Refusal(503, "The model does not answer as it did at the start.")

    return Guard(
        {
            **{("GET", path): _file(path, content) for path, content in read_assets().items()},
            ("GET", "/livez"): lambda _headers, _body: _json({"status": "alive"}),
            ("GET", "/readyz"): ready,
            ("GET", "/version"): lambda _headers, _body: _json(facts),
            ("POST", "/predict"): predict,
        },
        allowed_hosts,
        limits,
    )


def _json(answer: Mapping[str, Any]) -> Reply:
    content = json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()
    return Reply(200, content, {"content-type": "application/json", "cache-control": "no-store"})


def _file(path: str, content: bytes) -> Answer:
    tag = f'"{sha256_bytes(content).removeprefix("sha256:")}"'
    headers = {"etag": tag, "cache-control": "no-cache"}
    whole = Reply(200, content, {"content-type": ASSETS[path][1], **headers})

    def file(asked: Mapping[str, str], _body: bytes) -> Reply:
        return Reply(304, b"", headers) if asked.get("if-none-match") == tag else whole

    return file
