"""The app around a tiny model."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from serve_browser import PHONE, opened, watched
from serve_tiny_model import halves, write_linear_model

from purpleteam.core.cards import zoo_names
from purpleteam.serve.engine import Engine
from purpleteam.serve.main import running_app

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_linear_model(tmp_path_factory.mktemp("model"), halves(), (1, 28, 28))


@pytest.fixture(scope="session")
def engine(model: Path) -> Engine:
    return Engine.load(str(model))


@pytest.fixture(scope="session")
def url(engine: Engine) -> Iterator[str]:
    """The app without a limit on how often it is asked: tests are no strangers."""
    with running_app(engine, without=("rate", "abuse")) as address:
        yield address


@pytest.fixture
def upper() -> bytes:
    """A stroke in the upper half: the tiny model says 0."""
    image = np.zeros((28, 28), np.uint8)
    image[5:8, 6:22] = 255
    return image.tobytes()


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url) as asking:
        yield asking


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A headless Chromium; skips, saying so, where there is none.

    Playwright keeps an event loop running as long as it lives, so it must not outlive its module.
    """
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright")
    if not CHROMIUM.exists():
        pytest.skip(f"needs Chromium at {CHROMIUM}")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis of this test's own, at a socket in a folder."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("needs redis-server")
    pytest.importorskip("redis", reason="needs the extra redis")
    folder = tmp_path_factory.mktemp("redis")
    options = ["--port", "0", "--unixsocket", str(folder / "s"), "--save", "", "--appendonly", "no"]
    with subprocess.Popen([program, *options], cwd=folder, stdout=subprocess.PIPE) as process:
        assert process.stdout
        while b"accept" not in process.stdout.readline():
            assert process.poll() is None
        yield f"unix://{folder / 's'}"
        process.terminate()


@pytest.fixture(scope="module")
def standard() -> Iterator[str]:
    if "standard" not in zoo_names():
        pytest.skip("needs the zoo model 'standard'")
    with running_app("standard", without=("rate", "abuse")) as address:
        yield address


@pytest.fixture(scope="module")
def desk(chromium: Any) -> Iterator[Any]:
    with watched(chromium, reduced_motion="reduce") as page:
        yield page


@pytest.fixture(scope="module")
def handheld(chromium: Any) -> Iterator[Any]:
    with watched(chromium, **PHONE) as page:
        yield page


@pytest.fixture
def page(desk: Any, standard: str) -> Iterator[Any]:
    with opened(desk, standard) as page:
        yield page


@pytest.fixture
def tiny(desk: Any, url: str) -> Iterator[Any]:
    """The page of the tiny model, which says 0 of what is drawn in TOP."""
    with opened(desk, url) as page:
        yield page


@pytest.fixture
def phone(handheld: Any, standard: str) -> Iterator[Any]:
    with opened(handheld, standard) as page:
        yield page
