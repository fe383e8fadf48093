"""Runs `purple` in this process, in a folder of its own, and hands back what a shell would see."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_values import Ended, Purple

from purpleteam.cli import main


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where evaluations under way are kept: not in the home of whoever runs the tests."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def purple(here: Path, cache: Path, capfd: pytest.CaptureFixture[str]) -> Purple:
    """Run `purple` with these arguments."""

    def run(*arguments: object) -> Ended:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(one) for one in arguments])
        found = capfd.readouterr()
        return Ended(int(ended.value.code or 0), found.out, found.err)

    return run
