"""One finished run for all tests of this folder; whoever changes it takes a copy."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from pipeline_tiny import write_request

from purpleteam.pipeline.config import RunConfig, resolve
from purpleteam.pipeline.run import RunResult, run


@pytest.fixture(scope="session")
def request_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration file of the tiny run."""
    return write_request(tmp_path_factory.mktemp("asked"))


@pytest.fixture(scope="session")
def asked(request_file: Path) -> RunConfig:
    """The tiny run's configuration."""
    return resolve(None, request_file, [])


@pytest.fixture(scope="session")
def result(asked: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """What the tiny run returned."""
    return run(asked, tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="session")
def finished(result: RunResult) -> Path:
    """The folder of the tiny run."""
    return result.run


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of it to change."""
    return Path(shutil.copytree(finished, tmp_path / "tiny"))


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], dict[str, bytes]]:
    """Return every file of a folder with its bytes."""

    def read(folder: Path) -> dict[str, bytes]:
        files = (path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

    return read
