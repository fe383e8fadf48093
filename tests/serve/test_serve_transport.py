"""The page that is served is the page of this release."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

import purpleteam.serve.checks
from purpleteam.core.checks import CHECKS, Target, run_check
from purpleteam.serve import app
from purpleteam.serve.engine import Engine
from purpleteam.serve.main import running_app

ASSETS = purpleteam.serve.checks and CHECKS["web.assets"]()


@pytest.mark.parametrize("path", ["/", "/static/app.js"])
def test_one_byte_of_a_file_is_seen(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    changed = {**app.read_assets(), path: app.read_assets()[path] + b" "}
    with ExitStack() as stack:
        with monkeypatch.context() as tampering:
            tampering.setattr(app, "read_assets", lambda: changed)
            url = stack.enter_context(running_app(engine))
        outcome = ASSETS.examine(Target(url=url))
    assert not outcome.passed and outcome.measured["other"] == [path]


def test_the_page_of_another_release_is_not_judged(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda _name: "9.9")
    result = run_check(ASSETS, Target(url=url))
    assert result.verdict == "skipped" and "whose page is not known to 9.9" in result.message
