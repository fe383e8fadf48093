"""What a client of the app may send, and how long it may take: one place for every bound."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds on one client and on all together; counts, bytes and seconds."""

    body_bytes: int = 784
    """Most bytes of a body: an image of 28x28 grey pixels."""
    body_seconds: float = 5.0
    """Time from the end of a head to the end of its body."""
    head_bytes: int = 16_384
    """Most bytes of a request that are not its body: head, trailers, sizes of chunks."""
    fields: int = 100
    """Most header fields of a request, trailers included."""
    waiting_bytes: int = 4096
    """Most bytes that are kept of what comes after a request that is not answered yet."""
    waiting_requests: int = 8
    """Most requests that are kept of what comes after a request that is not answered yet."""
    head_seconds: float = 5.0
    """Time from the connection, or from the last answer, to the end of the next head."""
    answer_seconds: float = 10.0
    """Time from the end of a head to the end of its answer, as fast as the client takes it."""
    connections: int = 128
    """Most connections; one more takes the place of the one that waits longest."""
    connections_each: int = 64
    """Most connections of one address; one more takes the place of its one that waits longest."""
    at_work_seconds: float = 1.0
    """For so long a request under way keeps its place, however many come."""
