"""The hostile set: what rude clients do to the app, measured beside a polite one.

    python tests/serve/hostile.py [--seconds 4] [--only idle] [--out results/hostile.json]

Starts the app of `purple serve` in a process of its own, then one attack after the other, each
from loopback addresses of its own, for so many seconds and so many bytes at most. While it runs, a
polite client on 127.0.0.1 (a third process) asks for a prediction a few times a second, each on a
new connection. Nothing leaves 127.0.0.0/8.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

BLOCK = 65_536
MOST_BYTES = 400_000_000
PAUSE = 0.05
"""Seconds before a client that was cut off comes back."""
CLOSED = (7, 8)
"""TCP_CLOSE and TCP_CLOSE_WAIT, as Linux counts the states of a connection."""
STROKE = bytes(28 * 4) + (bytes(13) + b"\xff\xff" + bytes(13)) * 20 + bytes(28 * 4)
OCTETS = {"Content-Type": "application/octet-stream"}
HEAD = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"
POST = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/octet-stream\r\n"
ASSET = b"GET /static/app.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
Sends = Callable[[], AsyncIterator[bytes]]

OFTEN = [f"--set=rate.{name}=1000000" for name in ("at_once", "per_second", "per_day")]
"""The polite client is no person: it asks 80 times a second."""


async def fast(start: bytes, block: bytes) -> AsyncIterator[bytes]:
    """Send a start, then the same block without end."""
    yield start
    while True:
        yield block


async def slow(start: bytes, piece: bytes, seconds: float) -> AsyncIterator[bytes]:
    """Send a start, then a small piece now and again, without end."""
    yield start
    while True:
        await asyncio.sleep(seconds)
        yield piece


LINES = b"".join(b"X-%05d: %s\r\n" % (number, b"a" * 50) for number in range(BLOCK // 61))


@dataclass(frozen=True)
class Attack:
    """What each of so many clients sends; none of them ever reads."""

    sends: Sends
    clients: int = 10
    addresses: int = 1


ATTACKS = {
    "header lines": Attack(lambda: fast(HEAD, LINES)),
    "one header line": Attack(lambda: fast(HEAD + b"X: ", b"a" * BLOCK)),
    "request line": Attack(lambda: fast(b"GET /", b"a" * BLOCK)),
    "trailers": Attack(lambda: fast(POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", LINES)),
    "chunk extension": Attack(
        lambda: fast(POST + b"Transfer-Encoding: chunked\r\n\r\n1;", b"a" * BLOCK)
    ),
    "body": Attack(lambda: fast(POST + b"Content-Length: 784\r\n\r\n", bytes(BLOCK))),
    "pipelined pages": Attack(lambda: fast(b"", ASSET * (BLOCK // len(ASSET)))),
    "pipelined bad requests": Attack(lambda: fast(b"", b"GET / HTTP/1.1\r\n\r\n" * 3640)),
    "never reading": Attack(lambda: slow(ASSET * 8, ASSET, 0.5), clients=200),
    "idle": Attack(lambda: slow(b"", b"", 3600), clients=200),
    "empty lines": Attack(lambda: slow(b"\r\n", b"\r\n", 0.5), clients=200),
    "slow heads": Attack(lambda: slow(HEAD, b"X: a\r\n", 0.5), clients=200),
    "slow bodies": Attack(
        lambda: slow(POST + b"Content-Length: 784\r\n\r\n", b"a", 0.5), clients=200
    ),
    "many addresses": Attack(lambda: slow(HEAD, b"X: a\r\n", 0.5), clients=400, addresses=200),
}


@dataclass
class Tally:
    """What an attack did."""

    sent: int = 0
    cut: int = 0
    open: int = 0
    held: list[int] = field(default_factory=list)
    """Connections that were open, from time to time."""


async def rude(attack: Attack, number: int, port: int, until: float, tally: Tally) -> None:
    """One client: connects, sends, never reads; comes back when it is cut off."""
    loop = asyncio.get_running_loop()
    address = f"127.{1 + number % attack.addresses // 250}.{1 + number % attack.addresses % 250}.2"
    while time.monotonic() < until and tally.sent < MOST_BYTES:
        with socket.socket() as plug, suppress(OSError, TimeoutError):
            plug.setblocking(False)
            plug.bind((address, 0))
            async with asyncio.timeout(until - time.monotonic()):
                await loop.sock_connect(plug, ("127.0.0.1", port))
                tally.open += 1
                try:
                    gone = asyncio.create_task(ended(plug))
                    talk = asyncio.create_task(pour(plug, attack.sends(), tally))
                    await asyncio.wait({gone, talk}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    gone.cancel()
                    talk.cancel()
                    await asyncio.gather(gone, talk, return_exceptions=True)
                    tally.open -= 1
            tally.cut += 1
        await asyncio.sleep(PAUSE)


async def pour(plug: socket.socket, sends: AsyncIterator[bytes], tally: Tally) -> None:
    """Send it all, until the other side refuses to take it."""
    loop = asyncio.get_running_loop()
    async for part in sends:
        await loop.sock_sendall(plug, part)
        tally.sent += len(part)
        if tally.sent > MOST_BYTES:
            return


async def ended(plug: socket.socket) -> None:
    """Return when the other side has closed: seen without reading what it sent."""
    while plug.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] not in CLOSED:
        await asyncio.sleep(PAUSE)


def ask_politely(port: int, seconds: float, most: int = 100_000) -> dict[str, Any]:
    """Ask for predictions, each on a new connection; say how long each took, and what failed."""
    until, took, failed = time.monotonic() + seconds, [], []
    while time.monotonic() < until and len(took) + len(failed) < most:
        before = time.perf_counter()
        asking = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            asking.request("POST", "/predict", STROKE, OCTETS)
            reply = asking.getresponse()
            body = reply.read()
            if reply.status == 200 and b"label" in body:
                took.append(time.perf_counter() - before)
            else:
                failed.append(str(reply.status))
        except (OSError, http.client.HTTPException) as error:
            failed.append(type(error).__name__)
        finally:
            asking.close()
        time.sleep(random.uniform(0.005, 0.02))  # noqa: S311
    return {"took": took, "failed": failed}


@contextmanager
def served(model: str, limit: int | None = None) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Run `purple serve` on a free port, in so much address space (MB) beyond its start."""
    program = "from purpleteam.cli import main; main()"
    # A process in the sandbox may be another's, whose bounds are not ours to set.
    sandbox = f"sandbox={str(limit is None).lower()}"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "serve", "--model", model, "--port", "0", "--json", *OFTEN,
         "--set", sandbox],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        port = urlsplit(json.loads(process.stdout.readline())["url"]).port
        if limit is not None:
            import resource

            pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[0])
            most = pages * os.sysconf("SC_PAGE_SIZE") + limit * 1_000_000
            resource.prlimit(process.pid, resource.RLIMIT_AS, (most, most))
        yield port, process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
        process.stdout.close()
        process.stderr.close()


def resident(pid: int) -> float:
    """Return the resident memory of a process, in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def beside(
    attack: Attack | None, port: int, pid: int, seconds: float
) -> tuple[Tally, list[float], dict[str, Any]]:
    """Run one attack, or none, beside a polite client; return what it did, memory, and answers."""
    tally, memory = Tally(), [resident(pid)]
    until = time.monotonic() + seconds
    rudes = [
        asyncio.create_task(rude(attack, number, port, until, tally))
        for number in range(attack.clients if attack else 0)
    ]
    asking = await asyncio.create_subprocess_exec(
        sys.executable, str(Path(__file__)), "--polite", str(port), "--seconds", str(seconds),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    while time.monotonic() < until:
        await asyncio.sleep(PAUSE)
        memory.append(resident(pid))
        tally.held.append(tally.open)
    await asyncio.gather(*rudes, return_exceptions=True)
    out, _ = await asking.communicate()
    return tally, memory, json.loads(out)


def percentile(values: list[float], share: float) -> float:
    """Return the value below which a share of the values lie; NaN of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def run(model: str, names: list[str], seconds: float, limit: int | None = None) -> dict[str, Any]:
    """Run the attacks one after the other on one app; return growth, answers and times."""
    with served(model, limit) as (port, process):
        ask_politely(port, 60, most=100)
        start = resident(process.pid)
        rows = []
        pooled: dict[bool, list[float]] = {True: [], False: []}
        for name in ["quiet", *names, "quiet again"]:
            if process.poll() is not None:
                rows.append({"attack": name, "app": f"died with {process.returncode}"})
                break
            attack = ATTACKS.get(name)
            tally, memory, polite = asyncio.run(beside(attack, port, process.pid, seconds))
            pooled[attack is None] += polite["took"]
            rows.append(
                {
                    "attack": name,
                    "clients": attack.clients if attack else 0,
                    "sent_mb": round(tally.sent / 1e6, 1),
                    "cut": tally.cut,
                    "most_open": max(tally.held, default=0),
                    "growth_mb": round(max(memory) - start, 1),
                    "answers": len(polite["took"]),
                    "failed": polite["failed"][:20],
                    "p50_ms": round(1000 * percentile(polite["took"], 0.5), 2),
                    "p99_ms": round(1000 * percentile(polite["took"], 0.99), 2),
                }
            )
        end = resident(process.pid) if process.poll() is None else None
        process.send_signal(signal.SIGTERM)
        before = time.monotonic()
        _, errors = process.communicate(timeout=60)
    return {
        "rows": rows,
        "p99_ms": {
            "quiet": round(1000 * percentile(pooled[True], 0.99), 2),
            "whole set": round(1000 * percentile(pooled[False], 0.99), 2),
        },
        "resident_mb": round(start, 1),
        "growth_after_mb": None if end is None else round(end - start, 1),
        "stopped_in_seconds": round(time.monotonic() - before, 2),
        "exit_code": process.returncode,
        "log": errors.splitlines()[:20],
    }


def main() -> None:
    """Run the set by hand."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="standard")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--only", action="append", choices=list(ATTACKS))
    parser.add_argument("--limit", type=int, help="address space in MB that the app may still take")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--polite", type=int, metavar="PORT", help="be the polite client")
    asked = parser.parse_args()
    if asked.polite is not None:
        print(json.dumps(ask_politely(asked.polite, asked.seconds)))  # noqa: T201
        return
    found = run(asked.model, asked.only or list(ATTACKS), asked.seconds, asked.limit)
    for row in found["rows"]:
        print("  ".join(f"{key} {value}" for key, value in row.items()))  # noqa: T201
    print({key: value for key, value in found.items() if key != "rows"})  # noqa: T201
    if asked.out is not None:
        asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
