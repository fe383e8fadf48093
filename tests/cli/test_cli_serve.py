"""`purple serve` as a process: it says where it is, reads a digit, and ends when it is told."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from purpleteam.data.folders import load_dataset


@contextmanager
def serving(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start the app on a free port; yield the process and its first line on standard output."""
    code = "from purpleteam.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", "--port", "0", *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            out = process.stdout if "--json" in options else process.stderr
            yield process, out.readline() if out else ""
        finally:
            process.kill()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_reads_a_digit_and_ends_with_0_when_it_is_told(how: signal.Signals) -> None:
    test = load_dataset("digits").test
    with serving("--json") as (process, line):
        found = json.loads(line)
        address = urlsplit(found["url"])
        connection = http.client.HTTPConnection(
            str(address.hostname), address.port or 0, timeout=20
        )
        head = {"Content-Type": "application/octet-stream"}
        connection.request("POST", "/predict", test.images[0].tobytes(), head)
        label = json.loads(connection.getresponse().read())["label"]
        connection.close()
        process.send_signal(how)
        assert process.wait(20) == 0
        assert process.communicate()[1] == ""
    assert label == int(test.labels[0]) and found["model"] == "standard"


def test_people_are_told_the_address() -> None:
    with serving("--expose-confidences") as (process, sandbox):
        line = process.stderr.readline()
        assert sandbox.startswith("sandbox: reading, writing, executing and connecting are denied")
        assert line.startswith("serving standard at http://127.0.0.1:")


def test_a_port_that_is_taken_is_refused_in_one_line() -> None:
    with serving("--json") as (_, line):
        port = str(urlsplit(json.loads(line)["url"]).port)
        code = "from purpleteam.cli import main; main()"
        ended = subprocess.run(
            [sys.executable, "-c", code, "serve", "--port", port],
            capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip
    assert ended.returncode == 2 and port in ended.stderr and ended.stderr.count("\n") == 1
