"""serve: the app where a person draws a digit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from purpleteam.cli.options import Debug, Json, Model, Quiet
from purpleteam.cli.screen import answer, say


def add_to(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command()(serve)


def serve(
    model: Model = "standard",
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")
    ] = 8000,
    expose_confidences: Annotated[
        bool, typer.Option("--expose-confidences", help="Answer with all probabilities too.")
    ] = False,
    allow_remote: Annotated[
        bool,
        typer.Option("--allow-remote", help="Let other machines in: no accounts, no encryption."),
    ] = False,
    allowed_hosts: Annotated[
        list[str] | None,
        typer.Option("--allowed-host", help="A further name of the app; repeatable."),
    ] = None,
    strip: Annotated[
        Path | None,
        typer.Option("--strip", help="A STRIP of this model: triggered images get no label."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Serve a stored model in the hardened drawing app; stop with Ctrl+C."""
    from purpleteam.serve.main import serve as start

    def ready(url: str) -> None:
        if as_json:
            answer({"url": url, "model": model}, [], as_json=True)
        elif not quiet:
            say(f"serving {model} at {url}")

    start(
        model,
        host,
        port,
        expose_confidences,
        on_ready=ready,
        allow_remote=allow_remote,
        allowed_hosts=tuple(allowed_hosts or ()),
        strip=strip,
    )
