"""The hostile set, in short: the app neither grows nor falls, and a polite client is served."""

from __future__ import annotations

import signal
import socket
import sys
import time
from pathlib import Path

import pytest
from hostile import ASSET, ATTACKS, HEAD, POST, ask_politely, run, served

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs 127.0.0.0/8 and /proc")

MOST_GROWTH = 8.0
"""MB, under the whole set."""
FLOODS = ["header lines", "trailers", "pipelined pages"]


def test_the_app_outlives_the_whole_set_and_serves_the_polite(model: Path) -> None:
    found = run(str(model), list(ATTACKS), seconds=0.4)
    assert [row["attack"] for row in found["rows"]] == ["quiet", *ATTACKS, "quiet again"]
    assert {row["attack"]: row["failed"] for row in found["rows"] if row["failed"]} == {}
    assert max(row["growth_mb"] for row in found["rows"]) <= MOST_GROWTH
    assert (found["exit_code"], found["log"]) == (0, [])


def test_it_does_so_with_little_memory_left(model: Path) -> None:
    found = run(str(model), FLOODS, seconds=0.5, limit=64)
    assert {row["attack"]: row["failed"] for row in found["rows"] if row["failed"]} == {}
    assert (found["exit_code"], found["log"]) == (0, [])


def test_it_ends_in_time_whoever_holds_on(model: Path) -> None:
    rude = [b"", b"\r\n", HEAD, POST + b"Content-Length: 784\r\n\r\na", ASSET * 8]
    plugs = []
    with served(str(model)) as (port, process):
        for start in rude * 4:
            plugs.append(socket.create_connection(("127.0.0.1", port)))
            plugs[-1].sendall(start)
        assert ask_politely(port, 10, most=1)["failed"] == []
        before = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "") and time.monotonic() - before < 15
    for plug in plugs:
        plug.close()
