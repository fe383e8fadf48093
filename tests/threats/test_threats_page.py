"""docs/threats.md: its example is a system, and its words are those that there are."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

from purpleteam.threats import derive, load_system
from purpleteam.threats.loading import CONDITIONS
from purpleteam.threats.model import SUBJECTS
from threat_results import ran

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "threats.md").read_text("utf-8")


def test_the_example_is_a_system_whose_threat_a_check_answers(tmp_path: Path) -> None:
    example = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[0]
    (tmp_path / "mine.yaml").write_text(example, "utf-8")
    whole = load_system(tmp_path / "mine.yaml", model="owl")
    assert whole.name == "owl at the gate" and whole.names["weights"] == "Model files"
    (status, reason) = derive(whole, [ran("model.format", "pass")], date(2026, 11, 20))
    assert (status.inherent, status.residual, reason.threat) == ("high", "medium", "N-WEIGHTS-I")
    assert load_system(tmp_path / "mine.yaml", {"data", "model"}).not_applicable == ()
    assert "weights" not in load_system(tmp_path / "mine.yaml", {"data"}).names


def test_the_page_explains_every_word_that_a_system_may_use() -> None:
    first, second = (set(re.findall(r"^\| (.*?) \|", part, re.M)) for part in _tables())
    assert {word for cell in first for word in re.findall(r"`(.*?)`", cell)} == set(CONDITIONS)
    assert {word for cell in second for word in re.findall(r"`(.*?)`", cell)} - {"about"} == set(
        SUBJECTS
    )


def test_the_review_names_mitigations_and_threats_that_there_are() -> None:
    whole = load_system(None, CONDITIONS)
    review = PAGE.partition("## Review")[2]
    gone = {"M-BACKDOOR-SEARCH"}
    assert set(re.findall(r"M-[A-Z-]+[A-Z]", review)) - gone <= set(whole.mitigation)
    assert set(re.findall(r"T-[A-Z-]+\d", review)) <= {threat.id for threat in whole.threats}


def _tables() -> list[str]:
    parts = PAGE.split("## ")
    return [parts[1], parts[2]]
