"""What serving costs beside others, in one run on one machine: results/serve.json.

    python benchmarks/serve.py [--peers PYTHON] [--only cost start flood]

Five minutes; needs Linux. Costs are processor time of the whole process tree for a prediction, over
connections that stay open; every turn asks all servers, one after the other,
on 16 connections:

    floor     a bare ASGI application that runs the same ONNX file and does nothing else
    guarded   `purple serve` as it comes, its rate limit out of reach, with audit and access log
    unaudited the same without audit log, whose records are on the disk before an answer is given
    flask     a naive app as tutorials have it: Flask, Pillow, a 280x280 PNG, torch on one thread
    gradio    the same under gr.Interface, asked by its HTTP API: a question, then its event

The last two are asked where `--peers` names a Python that has flask, waitress, gradio and Pillow.
Then the time from start to ready, the memory of the tree, and a polite client's times while another
floods at ten times the limit, with its logs in memory: a disk may stall for 80 ms at any time.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import io
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from purpleteam.core.machine import machine, versions
from purpleteam.data.folders import load_dataset
from purpleteam.data.sources.mnist import find_mnist

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "serve"))

from hostile import OFTEN, POST, STROKE, percentile  # noqa: E402

FLOOR = """
import socket
import numpy as np
import onnxruntime
import uvicorn
from purpleteam.core.cards import find_stored
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
content = find_stored("standard").onnx.read_bytes()
session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
name = session.get_inputs()[0].name
async def app(scope, receive, send):
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    image = (np.frombuffer(body, np.uint8).astype(np.float32) / 255).reshape(1, 1, 28, 28)
    content = b'{"label":%d}' % session.run(None, {name: image})[0].argmax()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})
listener = socket.create_server(("127.0.0.1", 0), backlog=256)
print(listener.getsockname()[1], flush=True)
config = uvicorn.Config(app, lifespan="off", access_log=False, log_level="error")
uvicorn.Server(config).run(sockets=[listener])
"""
FLASK = """
import socket
import numpy as np
import torch
from flask import Flask, jsonify, request
from PIL import Image
from waitress import serve
from purpleteam.models.loading import load
torch.set_num_threads(1)
model = load("standard").module.eval()
app = Flask(__name__)
@app.post("/predict")
def predict():
    image = Image.open(request.files["image"].stream).convert("L").resize((28, 28))
    batch = torch.from_numpy(np.asarray(image, np.float32) / 255).view(1, 1, 28, 28)
    with torch.no_grad():
        probabilities = model(batch).softmax(1)[0]
    label = int(probabilities.argmax())
    return jsonify(label=label, confidence=float(probabilities[label]))
listener = socket.create_server(("127.0.0.1", 0), backlog=256)
print(listener.getsockname()[1], flush=True)
serve(app, sockets=[listener], threads=1)
"""
GRADIO = """
import socket
import gradio as gr
import numpy as np
import torch
from purpleteam.models.loading import load
torch.set_num_threads(1)
model = load("standard").module.eval()
def predict(image):
    pixels = np.asarray(image.resize((28, 28)), np.float32) / 255
    with torch.no_grad():
        probabilities = model(torch.from_numpy(pixels).view(1, 1, 28, 28)).softmax(1)[0]
    return {str(label): float(share) for label, share in enumerate(probabilities)}
with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]
image = gr.Image(type="pil", image_mode="L")
app = gr.Interface(predict, image, gr.Label(), analytics_enabled=False)
app.launch(server_port=port, quiet=True, prevent_thread_lock=True)
print(port, flush=True)
app.block_thread()
"""
CONNECTIONS = 16
EDGE = "----edge"
GRADIO_PATH = "/gradio_api/call/predict"
OCTETS = "application/octet-stream"
FLOODS = 10  # one after another, with quiet before each
LIMIT = 10.0  # predictions a second that are allowed; the flood is ten times as fast


def digits() -> list[bytes]:
    """Return digits, 784 bytes each: no two questions are the same, where MNIST is there."""
    name = "digits" if find_mnist() is None else "mnist"
    return [image.tobytes() for image in load_dataset(name).test.images]


class Server(NamedTuple):
    """How a server is started, and what it is asked."""

    command: list[str]
    said: Callable[[str], int]  # makes a port of its first line
    bodies: list[bytes]
    kind: str  # of them
    predictions: int
    path: str = "/predict"
    events: bool = False  # the answer is an id; what was asked for comes to who asks for that


def png(pixels: bytes) -> bytes:
    """Return a digit as a 280x280 PNG, as a canvas sends it."""
    from PIL import Image

    content = io.BytesIO()
    Image.frombytes("L", (28, 28), pixels).resize((280, 280)).save(content, "PNG")
    return content.getvalue()


def form(pixels: bytes) -> bytes:
    """Return a form that holds a digit."""
    head = f'--{EDGE}\r\nContent-Disposition: form-data; name="image"; filename="digit.png"\r\n'
    head += "Content-Type: image/png\r\n\r\n"
    return head.encode() + png(pixels) + f"\r\n--{EDGE}--\r\n".encode()


def data_url(pixels: bytes) -> bytes:
    """Return the JSON by which Gradio is asked about a digit."""
    url = f"data:image/png;base64,{base64.b64encode(png(pixels)).decode()}"
    return json.dumps({"data": [{"url": url}]}).encode()


def tree(pid: int) -> list[int]:
    """Return a process and all that came of it."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    found = [pid]
    for child in children.read_text().split() if children.exists() else ():
        found += tree(int(child))
    return found


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process and its children have used."""
    total = 0.0
    for member in tree(pid):
        fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        total += sum(map(int, fields[11:15]))
    return total / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> float:
    """Return the memory of a process and its children in MB, what they share counted once."""
    rows = [Path(f"/proc/{member}/smaps_rollup").read_text() for member in tree(pid)]
    return sum(int(text.partition("\nPss:")[2].split()[0]) for text in rows) / 1000


@contextmanager
def started(command: list[str], said: Callable[[str], int]) -> Iterator[tuple[int, int]]:
    """Run a server that says its port in its first line; yield its process and its port."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
        env=environment,
    ) as process:  # fmt: skip
        try:
            yield process.pid, said(process.stdout.readline())
        finally:
            process.terminate()


def guarded(folder: Path, *options: str, audited: bool = True) -> list[str]:
    """Return the command of the app with all its guards, its files in a folder."""
    program = "from purpleteam.cli import main; main()"
    files = [f"--set=watch.log={folder / 'access.log'}"]
    files += [f"--set=audit.file={folder / 'audit.log'}"] * audited
    return [sys.executable, "-c", program, "serve", "--port=0", "--json", *files, *options]


def port_of(line: str) -> int:
    """Return the port in the line that `purple serve --json` says."""
    return int(json.loads(line)["url"].rpartition(":")[2])


def microseconds(server: Server) -> float:
    """Return the processor time of one prediction, in microseconds."""
    headers = {"Content-Type": server.kind, "User-Agent": "benchmark"}
    bodies, path = server.bodies, server.path
    with started(server.command, server.said) as (pid, port):
        clients = [http.client.HTTPConnection("127.0.0.1", port) for _ in range(CONNECTIONS)]

        def ask(number: int) -> int:
            for turn in range(number // CONNECTIONS):
                for place, client in enumerate(clients, turn * CONNECTIONS):
                    client.request("POST", path, bodies[place % len(bodies)], headers)
                replies = [answer(client) for client in clients]
                if server.events:
                    for client, reply in zip(clients, replies, strict=True):
                        client.request("GET", f"{path}/{json.loads(reply)['event_id']}")
                    if not all(answer(client).startswith(b"event: complete") for client in clients):
                        raise SystemExit(f"{path}: a prediction failed")
            return number // CONNECTIONS * CONNECTIONS

        ask(40)
        before = processor_seconds(pid)
        asked = ask(server.predictions)
        took = processor_seconds(pid) - before
        for client in clients:
            client.close()
    return round(1e6 * took / asked, 1)


def answer(client: http.client.HTTPConnection) -> bytes:
    """Return what a server answers, which is to be 200."""
    reply = client.getresponse()
    content = reply.read()
    if reply.status != 200:
        raise SystemExit(f"status {reply.status}: {content[:200]!r}")
    return content


def costs(peers: str | None, turns: int, predictions: int, folder: Path) -> dict[str, Any]:
    """Return the microseconds of each server in every turn, and the ratios of their medians."""
    images = digits()
    ours, unaudited = guarded(folder, *OFTEN), guarded(folder, *OFTEN, audited=False)
    servers = {
        "floor": Server([sys.executable, "-c", FLOOR], int, images, OCTETS, predictions),
        "guarded": Server(ours, port_of, images, OCTETS, predictions),
        "unaudited": Server(unaudited, port_of, images, OCTETS, predictions),
    }
    if peers is not None:
        forms = [form(pixels) for pixels in images]
        kind = f"multipart/form-data; boundary={EDGE}"
        servers["flask"] = Server([peers, "-c", FLASK], int, forms, kind, predictions // 8)
        asked, fewer = list(map(data_url, images)), predictions // 32
        servers["gradio"] = Server(
            [peers, "-c", GRADIO], int, asked, "application/json", fewer, GRADIO_PATH, events=True
        )
    found: dict[str, list[float]] = {name: [] for name in servers}
    for turn in range(turns):
        for name, server in servers.items():
            found[name].append(microseconds(server))
            print(f"turn {turn + 1}: {name} {found[name][-1]} CPU-us a prediction", flush=True)
    medians = {name: statistics.median(values) for name, values in found.items()}
    ratios = {f"guarded / {name}": medians["guarded"] / medians[name] for name in medians}
    return {"cpu_microseconds": found, "predictions": predictions, "ratios": ratios}


def start(times: int, folder: Path) -> dict[str, Any]:
    """Return how long the app takes from its start to the answer of /readyz, and its memory."""
    seconds, memory = [], []
    for _ in range(times):
        began = time.perf_counter()
        with started(guarded(folder), port_of) as (pid, port):
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            client.request("GET", "/readyz")
            ready = client.getresponse().status == 200
            seconds.append(round(time.perf_counter() - began, 3) if ready else float("nan"))
            memory.append(round(resident(pid), 1))
    return {"seconds_to_ready": seconds, "resident_mb": memory}


def flood(seconds: float, folder: Path) -> dict[str, Any]:
    """Return a polite client's times, quiet and while another asks ten times what is allowed."""
    request = POST + b"Content-Length: 784\r\n\r\n" + STROKE

    def polite(port: int, seconds: float) -> list[float]:
        took, until = [], time.monotonic() + seconds
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        while time.monotonic() < until:
            began = time.perf_counter()
            client.request("POST", "/predict", STROKE, {"Content-Type": OCTETS})
            reply = client.getresponse()
            reply.read()
            took.append(time.perf_counter() - began if reply.status == 200 else float("inf"))
            time.sleep(1.2 / LIMIT)  # below what it may
        return took

    def rude(port: int, until: float, statuses: list[bytes]) -> None:
        began, sent = time.monotonic(), 0
        with socket.create_connection(("127.0.0.1", port), source_address=("127.0.0.9", 0)) as plug:
            while time.monotonic() < until:
                plug.sendall(request)
                statuses.append(plug.recv(65536)[9:12])
                sent += 1
                time.sleep(max(0.0, began + sent / (10 * LIMIT) - time.monotonic()))

    with started(guarded(folder, f"--set=rate.per_second={LIMIT}"), port_of) as (_, port):
        polite(port, 3.0)  # the first answers of an app are slower
        quiet, beside, statuses = list[float](), list[float](), list[bytes]()
        for _ in range(FLOODS):  # in turn, so that a machine that stalls does so for both
            quiet += polite(port, seconds / FLOODS)
            until = time.monotonic() + seconds / FLOODS
            thread = threading.Thread(target=rude, args=(port, until, statuses))
            thread.start()
            beside += polite(port, seconds / FLOODS)
            thread.join()
    p99 = [round(1000 * percentile(times, 0.99), 2) for times in (quiet, beside)]
    return {
        "quiet_p99_ms": p99[0],
        "flooded_p99_ms": p99[1],
        "ratio": p99[1] / p99[0],
        "n": [len(quiet), len(beside)],
        "flood": {"sent": len(statuses), "refused": statuses.count(b"429")},
    }


def main() -> None:
    """Measure what is asked for, and write it over what an earlier run measured of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parts = ("cost", "start", "flood")
    parser.add_argument("--peers", help="a Python with flask, waitress, gradio and Pillow")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--predictions", type=int, default=8000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=40.0, help="of the flood")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "serve.json")
    asked = parser.parse_args()
    content: dict[str, Any] = json.loads(asked.out.read_text()) if asked.out.exists() else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "cost" in asked.only:
            content["cost"] = costs(asked.peers, asked.turns, asked.predictions, folder)
        if "start" in asked.only:
            content["start"] = start(2 * asked.turns, folder)
        if "flood" in asked.only:
            memory = Path("/dev/shm")  # noqa: S108
            with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as other:
                content["flood"] = flood(asked.seconds, Path(other))
    content |= {"load": round(os.getloadavg()[1], 1), "versions": versions(), "machine": machine()}
    asked.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: content[name] for name in asked.only}, indent=1))


if __name__ == "__main__":
    main()
