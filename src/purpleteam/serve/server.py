"""uvicorn's server with a sign of life, and an end that is announced before it begins."""

from __future__ import annotations

import signal
from collections.abc import Callable
from ssl import SSLContext
from time import monotonic
from types import FrameType
from typing import Literal

import uvicorn

from purpleteam.serve.engine import Engine
from purpleteam.serve.guards.visit import App
from purpleteam.serve.settings import Settings
from purpleteam.serve.wire import bounded

BEAT_TICKS = 5  # ticks of uvicorn's, which come ten times a second, between two signs of life


def bounded_config(
    app: App,
    settings: Settings,
    tls: SSLContext | None = None,
    lifespan: Literal["on", "off"] = "off",
) -> uvicorn.Config:
    """Return how an app is served: by our bounded protocol, silently, believing no proxy."""
    return uvicorn.Config(
        app,
        http=bounded(settings.limits, tls, deadlines="deadlines" not in settings.without),
        ws="none",
        lifespan=lifespan,
        interface="asgi3",
        log_config=None,
        access_log=False,
        log_level="error",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=settings.workers.drain_seconds,
    )


class Server(uvicorn.Server):
    """Serves until SIGTERM or SIGINT, then answers what is under way.

    From then on /readyz says 503. After SIGTERM all else is answered as before for
    `notice_seconds`, so that a balancer can look away before the doors close; SIGINT, or a second
    SIGTERM, closes them at once.

    Args:
        config: with the app of this engine.
        engine: is told that the end has begun.
        notice_seconds: from SIGTERM until no connection is accepted any more.
        beat: called with the number of requests so far, at the start and then twice a second.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        engine: Engine,
        notice_seconds: float = 0.0,
        beat: Callable[[int], None] | None = None,
    ) -> None:
        super().__init__(config)
        self.engine, self.notice_seconds, self.beat = engine, notice_seconds, beat
        self._closes_at = 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        first, self.engine.leaving = not self.engine.leaving, True
        super().handle_exit(sig, frame)
        if first and sig == signal.SIGTERM and self.notice_seconds:
            self.should_exit, self._closes_at = False, monotonic() + self.notice_seconds

    async def on_tick(self, counter: int) -> bool:
        if self.beat is not None and counter % BEAT_TICKS == 0:
            self.beat(self.server_state.total_requests)
        if 0 < self._closes_at <= monotonic():
            self.should_exit = True
        return await super().on_tick(counter)
