"""What a prediction costs the app, and what the hostile set does to it: results/hostile.json.

    python benchmarks/hostile.py            two minutes; needs Linux

The same app runs under uvicorn's two protocols as they come and under ours, each in a process of
its own, one after the other in every turn; what counts is the processor time of that process for
a prediction, over connections that stay open. Then tests/serve/hostile.py has the app of
`purple serve`.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from purpleteam.core.machine import machine, versions

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "serve"))

from hostile import ATTACKS, POST, STROKE, ask_politely, run  # noqa: E402

PROTOCOLS = {
    "bounded": "bounded(Limits())",
    "httptools": "HttpToolsProtocol",
    "h11": "H11Protocol",
}
PROGRAM = """
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from purpleteam.serve.engine import Engine
from purpleteam.serve.main import _server, listen
from purpleteam.serve.guards.rate import RateLimit
from purpleteam.serve.settings import Limits, Settings
from purpleteam.serve.wire import bounded
OFTEN = RateLimit(at_once=10**6, per_second=10**6, per_day=10**9)
server = _server(Engine.load("standard"), Settings(rate=OFTEN))
server.config.http = {protocol}
with listen("127.0.0.1", 0, False) as listener:
    print(listener.getsockname()[1], flush=True)
    server.run(sockets=[listener])
"""
REQUEST = POST + b"Content-Length: 784\r\nAccept: */*\r\nUser-Agent: benchmark\r\n\r\n" + STROKE
CONNECTIONS = 4


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def microseconds(protocol: str, predictions: int) -> float:
    """Return the processor time of one prediction under one protocol, in microseconds."""
    program = PROGRAM.format(protocol=PROTOCOLS[protocol])
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        port = int(process.stdout.readline())
        ask_politely(port, 30, most=50)
        with ExitStack() as stack:
            plugs = [
                stack.enter_context(socket.create_connection(("127.0.0.1", port)))
                for _ in range(CONNECTIONS)
            ]
            before = processor_seconds(process.pid)
            for _ in range(predictions // CONNECTIONS):
                for plug in plugs:
                    plug.sendall(REQUEST)
                for plug in plugs:
                    answer = b""
                    while not answer.endswith(b"}") and (part := plug.recv(65536)):
                        answer += part
            took = processor_seconds(process.pid) - before
            process.terminate()
    return 1e6 * took / predictions


def main() -> None:
    """Measure the costs, run the set, and write both."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--predictions", type=int, default=8000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each attack")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "hostile.json")
    asked = parser.parse_args()
    costs: dict[str, list[float]] = {name: [] for name in PROTOCOLS}
    for _ in range(asked.turns):
        for name, found in costs.items():
            found.append(round(microseconds(name, asked.predictions), 1))
    content = {
        "cpu_microseconds": costs,
        "predictions": asked.predictions,
        **run("standard", list(ATTACKS), asked.seconds),
        "seconds_each": asked.seconds,
        "load": round(os.getloadavg()[1], 1),
        "versions": versions(),
        "machine": machine(),
    }
    asked.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    for name, found in costs.items():
        print(f"{name:10} {min(found):6.1f} CPU-us a prediction, least of {found}")
    for row in content["rows"]:
        print(row)


if __name__ == "__main__":
    main()
