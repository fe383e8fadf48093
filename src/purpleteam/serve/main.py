"""Start the app: `serve` for the command line, `running_app` for tests, checks and the pipeline."""

from __future__ import annotations

import ipaddress
import signal
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from purpleteam.core.errors import MissingExtra, PurpleError, UsageError
from purpleteam.serve.engine import Engine
from purpleteam.serve.guard import ANY_ADDRESS, LOOPBACK_HOSTS, Limits

if TYPE_CHECKING:
    import uvicorn

DRAIN_SECONDS = 10
START_SECONDS = 30.0
KERNEL_BYTES = 65_536  # of what a connection sends, and of what it gets; connections inherit it


def serve(
    reference: str = "standard",
    host: str = "127.0.0.1",
    port: int = 8000,
    expose_confidences: bool = False,
    on_ready: Callable[[str], None] | None = None,
    *,
    allow_remote: bool = False,
    allowed_hosts: Collection[str] = (),
    strip: Path | None = None,
) -> None:
    """Serve a stored model until interrupted or terminated; requests under way are finished.

    Args:
        reference: a zoo name or the path of a stored model.
        host: the address to listen on; anything but loopback needs `allow_remote`.
        port: 0 picks a free one.
        expose_confidences: also answer with the probability of each class.
        on_ready: called with the address once the socket is open and the model is loaded.
        allow_remote: let other machines in. There is no user account and no encryption.
        allowed_hosts: further names under which clients may reach the app.
        strip: a file of a STRIP fitted to this model; what it flags gets no label.
    """
    engine = Engine.load(reference, strip)
    listener = listen(host, port, allow_remote)
    with listener, _quiet_end():
        hosts = [*LOOPBACK_HOSTS, *(name.lower() for name in (host, *allowed_hosts))]
        if host in ("0.0.0.0", "::"):  # noqa: S104  # nosec B104 - needs --allow-remote
            hosts.append(ANY_ADDRESS)
        server = _server(engine, expose_confidences=expose_confidences, allowed_hosts=hosts)
        if on_ready is not None:
            on_ready(_address(listener))
        server.run(sockets=[listener])


@contextmanager
def running_app(model: str | Engine = "standard", **settings: Any) -> Iterator[str]:
    """Serve a model on a free loopback port in a thread; yield the address, then stop.

    Args:
        model: a zoo name, the path of a stored model, or a loaded engine.
        settings: further arguments of `build_app`: `expose_confidences`, `allowed_hosts`, `limits`.
    """
    engine = model if isinstance(model, Engine) else Engine.load(model)
    with listen("127.0.0.1", 0, False) as listener:
        server = _server(engine, **settings)
        server.config.timeout_graceful_shutdown = 1
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            deadline = time.monotonic() + START_SECONDS
            while not server.started:
                if not thread.is_alive() or time.monotonic() > deadline:
                    raise PurpleError("the app did not start")
                time.sleep(0.005)
            yield _address(listener)
        finally:
            server.should_exit = True
            thread.join(timeout=START_SECONDS)


def _server(engine: Engine, limits: Limits = Limits(), **settings: Any) -> uvicorn.Server:  # noqa: B008
    try:
        import uvicorn

        from purpleteam.serve.app import build_app
        from purpleteam.serve.wire import bounded
    except ImportError:
        raise MissingExtra("starlette and uvicorn with httptools", "serve") from None
    config = uvicorn.Config(
        build_app(engine, limits=limits, **settings),
        http=bounded(limits),
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        log_level="error",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    return uvicorn.Server(config)


def listen(host: str, port: int, allow_remote: bool) -> socket.socket:
    """Return a socket that listens there; other machines are let in only where it is allowed."""
    if not 0 <= port <= 65535:
        raise UsageError(f"port must be from 0 to 65535, not {port}")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise UsageError(f"host {host!r} is no address of this machine") from None
    if not allow_remote and not ipaddress.ip_address(str(address[0])).is_loopback:
        remedy = "serve on 127.0.0.1, or allow it: --allow-remote"
        raise UsageError(f"host {host!r} lets other machines in; {remedy}")
    try:
        listener = socket.create_server((str(address[0]), port), family=family, backlog=256)
    except OSError as error:
        reason = error.strerror or "refused"
        raise UsageError(f"cannot listen on {host!r} port {port}: {reason.lower()}") from None
    for buffer in (socket.SO_SNDBUF, socket.SO_RCVBUF):  # else the kernel keeps megabytes for each
        listener.setsockopt(socket.SOL_SOCKET, buffer, KERNEL_BYTES)
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def _quiet_end() -> Iterator[None]:
    """Make Ctrl-C and SIGTERM an ordinary end; the server drains first and raises them again."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with suppress(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)
