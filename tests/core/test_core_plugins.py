"""A plug-in that fails is refused each time that it is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from purpleteam.core.errors import UsageError
from purpleteam.core.plugins import load_plugin


@pytest.mark.parametrize("error", ["ValueError('mine')", "UsageError('mine')"])
def test_a_plug_in_that_fails_is_refused_a_second_time_too(
    error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = f"from purpleteam.core.errors import UsageError\n\nraise {error}\n"
    (tmp_path / "failing_plugin.py").write_text(code, "utf-8")
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        with pytest.raises(UsageError, match="mine"):
            load_plugin("failing_plugin")
