"""What a run is asked: a profile, a file over it, settings over both."""

from __future__ import annotations

from pathlib import Path

import pytest

from purpleteam.core.errors import ConfigError, UsageError
from purpleteam.pipeline.config import RunConfig, profiles, resolve


@pytest.mark.parametrize("name", profiles())
def test_every_profile_is_a_request(name: str) -> None:
    assert isinstance(resolve(name, None, []), RunConfig)


def test_a_file_wins_over_the_profile_and_a_setting_over_both(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("seed = 5\n[evasion]\nepsilon = 0.05\ncurve_images = 7\n", "utf-8")
    found = resolve("demo", file, ["seed=6", "evasion.curve_images=8"])
    assert (found.seed, found.evasion.epsilon, found.evasion.curve_images) == (6, 0.05, 8)
    assert found.models == resolve("demo", None, []).models


def test_an_unknown_key_is_named_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[evasion]\nepsilom = 1\n", "utf-8")
    with pytest.raises(ConfigError, match=r"mine.toml: evasion: unknown key 'epsilom'.*'epsilon'"):
        resolve(None, tmp_path / "mine.toml", [])


def test_an_unknown_profile_is_named_with_the_others() -> None:
    with pytest.raises(
        UsageError, match=r"'demos' \(did you mean 'demo'\?\); known: assignment, backdoors"
    ):
        resolve("demos", None, [])


@pytest.mark.parametrize("name", ["demo", "quick"])
def test_a_profile_for_a_first_look_is_small(name: str) -> None:
    asked = resolve(name, None, [])
    assert asked.evasion.curve_images <= 300 and asked.poison.trainings <= 2
