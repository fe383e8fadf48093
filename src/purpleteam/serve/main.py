"""Start the app: `serve` for the command line, `running_app` for tests, checks and the pipeline."""

from __future__ import annotations

import ipaddress
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from purpleteam.core.errors import MissingExtra, PurpleError, UsageError
from purpleteam.serve import counts, tally
from purpleteam.serve.sandbox import confined
from purpleteam.serve.settings import Settings
from purpleteam.serve.supervisor import Supervisor
from purpleteam.serve.systemd import notify
from purpleteam.serve.tls import Tls, context_of

if TYPE_CHECKING:  # a parent of workers loads no model and no server
    import uvicorn

    from purpleteam.serve.audit.writer import Writer
    from purpleteam.serve.engine import Engine
    from purpleteam.serve.guards.visit import App

LOGGER = "purpleteam.serve"
START_SECONDS = 30.0
KERNEL_BYTES = 65_536  # of what a connection sends, and of what it gets; connections inherit it


def serve(
    reference: str = "standard",
    settings: Settings = Settings(),  # noqa: B008 - frozen
    on_ready: Callable[[str], None] = lambda _address: None,
    tell: Callable[[str], None] = lambda _line: None,
) -> None:
    """Serve a stored model until interrupted or terminated; requests under way are finished.

    It confines this process for good: see `purpleteam.serve.sandbox`, and `Settings.sandbox`.

    Args:
        reference: a zoo name or the path of a stored model.
        settings: how; everything but loopback has to be allowed there.
        on_ready: called with the address once it is served there.
        tell: called with a line of what is confined, where something is not as it should be, and
            where a worker ends or is replaced.
    """
    notify()  # opens the way to systemd
    _say_warnings()
    with listen(settings.host, settings.port, settings.lets_others_in) as listener:
        address = _address(listener, settings.tls)
        if settings.rate.redis is not None and (why := counts.away(settings.rate.redis)):
            tell(f"WARNING: {why}; each machine limits by itself until it does")

        def ready() -> None:
            notify("READY=1")
            on_ready(address)

        if settings.workers.count:
            # All workers count in these, which outlive each of them.
            table, totals = counts.new_file(), tally.new_file()
            shared = replace(
                settings,
                rate=replace(settings.rate, table=table),
                watch=replace(settings.watch, table=totals),
            )
            with _audit_writer(settings) as writer:
                files = [table, totals]
                if writer is not None:
                    files.append(writer.fileno())
                    shared = replace(shared, audit=replace(shared.audit, writer=writer.fileno()))
                order = {"reference": reference, "settings": asdict(shared)}
                how: dict[str, Any] = {"tell": tell, "replaces": "restart" not in settings.without}
                how |= {"files": files, "writer": writer}
                Supervisor(settings.workers, order, listener, **how).run(ready)
        else:
            with _quiet_end():
                worker_main(reference, settings, listener, ready, tell)


@contextmanager
def _audit_writer(settings: Settings) -> Iterator[Writer | None]:
    """Start the process that writes the audit log for all workers, where there is to be one."""
    asked = settings.audit
    if asked.file is None or "audit" in settings.without:
        yield None
        return
    from purpleteam.serve.audit.writer import Writer

    with closing(Writer(asked.file, asked.checkpoint_seconds, process=True)) as writer:
        yield writer


def worker_main(
    reference: str,
    settings: Settings,
    listener: socket.socket,
    ready: Callable[[], None] = lambda: None,
    tell: Callable[[str], None] = lambda _line: None,
    beat: Callable[[int], None] | None = None,
) -> None:
    """Serve in this process, the only one or a worker of several, until SIGTERM or SIGINT.

    In this order:

    1. load: the model and what was fitted to it;
    2. open: the guards are built, with the files and connections that they need;
    3. confine: nothing else can be opened from here on;
    4. serve: `ready` is called, then connections are accepted.

    Args:
        reference: as for `serve`.
        settings: as for `serve`; those of listening and of workers have been followed already.
        listener: a socket that listens.
        ready: called when all is loaded, open and confined.
        tell: as for `serve`.
        beat: called from the event loop with the number of requests so far: once connections are
            accepted, and then twice a second.
    """
    from purpleteam.serve.engine import Engine

    _say_warnings()
    signer = None if "signature" in settings.without else settings.require_signature
    engine = Engine.load(reference, settings.strip, settings.digest, settings.squeeze, signer)
    if engine.held is None or not engine.held.whole:
        tell(f"WARNING: {engine.held or 'the weights of the ONNX file cannot be compared'}")
    server = _server(engine, settings, beat)
    server.config.load()
    server.config.get_loop_factory()  # imports it
    engine.confinement = confined(settings, tell)
    ready()
    server.run(sockets=[listener])


@contextmanager
def running_app(
    model: str | Engine = "standard",
    around: Callable[[App], App] = lambda app: app,
    **settings: Any,
) -> Iterator[str]:
    """Serve a model on a free loopback port in a thread; yield the address, then stop.

    Args:
        model: a zoo name, the path of a stored model, or a loaded engine.
        around: puts something of ASGI in front of the guarded app.
        settings: fields of `Settings`, such as `expose_confidences`, `limits`, `without`.
    """
    from purpleteam.serve.engine import Engine

    asked = Settings(port=0, **settings)
    engine = model
    if not isinstance(engine, Engine):
        signer = asked.require_signature
        engine = Engine.load(engine, asked.strip, asked.digest, asked.squeeze, signer)
    with listen(asked.host, asked.port, asked.lets_others_in) as listener:
        server = _server(engine, asked, around=around)
        server.config.timeout_graceful_shutdown = 1
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            deadline = time.monotonic() + START_SECONDS
            while not server.started:
                if not thread.is_alive() or time.monotonic() > deadline:
                    raise PurpleError("the app did not start")
                time.sleep(0.005)
            yield _address(listener, asked.tls)
        finally:
            server.should_exit = True
            thread.join(timeout=START_SECONDS)


def _server(
    engine: Engine,
    settings: Settings,
    beat: Callable[[int], None] | None = None,
    around: Callable[[App], App] = lambda app: app,
) -> uvicorn.Server:
    try:
        from purpleteam.serve.app import build_app
        from purpleteam.serve.server import Server, bounded_config
    except ImportError:
        raise MissingExtra("starlette and uvicorn with httptools", "serve") from None
    tls = None
    if settings.tls.certificate and settings.tls.key:
        tls = context_of(settings.tls.certificate, settings.tls.key)
    config = bounded_config(around(build_app(engine, settings)), settings, tls, lifespan="on")
    # An app that a run, a check or a notebook starts is silent, unless logging is set up: neither
    # warnings nor what uvicorn says of crashes, which a guard tells, go to standard error.
    for name in (LOGGER, "uvicorn.error"):
        logging.getLogger(name).addHandler(logging.NullHandler())
    return Server(config, engine, settings.workers.notice_seconds, beat)


def _say_warnings() -> None:
    """Say on standard error what whoever operates the app has to know."""
    logger = logging.getLogger(LOGGER)
    if not logger.hasHandlers():
        logger.addHandler(logging.StreamHandler())


def listen(host: str, port: int, allow_remote: bool, *, shared: bool = False) -> socket.socket:
    """Return a socket that listens there; other machines are let in only where it is allowed.

    Where it is `shared`, each worker may have one of its own on the same port.
    """
    if not 0 <= port <= 65535:
        raise UsageError(f"port must be from 0 to 65535, not {port}")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise UsageError(f"host {host!r} is no address of this machine") from None
    if not allow_remote and not ipaddress.ip_address(str(address[0])).is_loopback:
        remedy = "ask for keys: --keys FILE, or allow anybody: --allow-remote"
        raise UsageError(f"host {host!r} lets other machines in; {remedy}")
    try:
        listener = socket.create_server(
            (str(address[0]), port), family=family, backlog=256, reuse_port=shared
        )
    except OSError as error:
        reason = error.strerror or "refused"
        raise UsageError(f"cannot listen on {host!r} port {port}: {reason.lower()}") from None
    for buffer in (socket.SO_SNDBUF, socket.SO_RCVBUF):  # else the kernel keeps megabytes for each
        listener.setsockopt(socket.SOL_SOCKET, buffer, KERNEL_BYTES)
    return listener


def _address(listener: socket.socket, tls: Tls) -> str:
    host, port = listener.getsockname()[:2]
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return f"https://{place}" if tls.certificate else f"http://{place}"


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
