from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HARMFUL = ("pickle.find_class", "os.system", "subprocess.Popen", "socket.connect")
_seen: list[str] | None = None


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if _seen is not None and event in HARMFUL:
        _seen.append(f"{event} {arguments!r}"[:200])


sys.addaudithook(_hook)


@pytest.fixture
def events() -> Iterator[list[str]]:
    """What the interpreter reports while the test runs: unpickling, commands, connections."""
    global _seen
    _seen = []
    yield _seen
    _seen = None


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """The file that a payload touches."""
    return tmp_path / "it-ran"
