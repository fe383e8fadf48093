"""Nothing is uploaded: no verb reaches for another machine, or writes where it was not asked to."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from watching import STRACE, Watched, terminate


@pytest.fixture
def purple(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def test_evaluate_asks_nobody_and_writes_its_run_alone(purple: Watched) -> None:
    purple.ended(purple.start("evaluate", "--limit", "20", "--json"))
    assert (purple.reached(), purple.wrote(purple.here / "runs")) == ([], [])
    assert [path.name for path in purple.here.iterdir()] == ["runs"]
    assert list(purple.home.iterdir()) == []


def test_scan_asks_nobody_and_writes_its_run_alone(purple: Watched) -> None:
    (purple.here / "one.py").write_text("print(1)\n")
    purple.ended(purple.start("scan", "one.py", "--json"))
    assert (purple.reached(), purple.wrote(purple.here / "runs")) == ([], [])
    assert list(purple.home.iterdir()) == []


def test_export_asks_nobody_and_writes_its_three_files(purple: Watched) -> None:
    purple.ended(purple.start("export", "--out", "mine", "--json"))
    asked = {f"mine{suffix}" for suffix in (".safetensors", ".onnx", ".json")}
    assert purple.reached() == []
    assert {path.name for path in purple.here.iterdir()} == asked
    assert list(purple.home.iterdir()) == [] and purple.wrote(purple.here) == []


def test_serve_answers_its_client_asks_nobody_and_writes_nothing(purple: Watched) -> None:
    process = purple.start("serve", "--port", "0", "--json")
    address = urlsplit(json.loads(process.stdout.readline())["url"])
    asking = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    asking.request("POST", "/predict", bytes(784), {"Content-Type": "application/octet-stream"})
    assert json.loads(asking.getresponse().read()) == {"label": None, "reason": "empty"}
    asking.close()
    terminate(process)
    purple.ended(process)
    assert (purple.reached(), purple.wrote()) == ([], [])
    assert list(purple.home.iterdir()) == list(purple.here.iterdir()) == []


CARELESS = """
import ctypes, os, socket, struct
from pathlib import Path
Path.home().joinpath("deviceid").write_text("1")
libc = ctypes.CDLL(None)
address = struct.pack("!2sHI8x", struct.pack("=H", socket.AF_INET), 53, 0xC0000201)
libc.connect(libc.socket(socket.AF_INET, socket.SOCK_DGRAM, 0), address, len(address))
def build():
    raise SystemExit("careless")
"""
"""Somebody else's model: it names an address for documentation (RFC 5737) and sends nothing."""


@pytest.mark.skipif(STRACE is None, reason="needs strace: Python does not see native calls")
def test_a_model_that_does_both_natively_is_seen(purple: Watched) -> None:
    (purple.here / "careless.py").write_text(CARELESS)
    process = purple.start("evaluate", "--model", "careless:build")
    process.communicate(timeout=600)
    assert len(purple.reached()) == 1 and "192.0.2.1" in purple.reached()[0]
    assert purple.wrote(purple.here / "runs") == [str(purple.home / "deviceid")]
