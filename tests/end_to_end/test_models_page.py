"""What docs/models.md says: each of its lines does its work."""

from __future__ import annotations

from pathlib import Path

import pages

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text("utf-8")


def test_every_line_of_the_page_works(tmp_path: Path) -> None:
    steps = pages.do(PAGE, tmp_path)
    assert len(steps) == 7
    assert [step.code for step in steps] == [0] * 7, [step.error for step in steps if step.code]
    rates = [line for step in steps for line in step.out.splitlines() if "clean acc" in line]
    assert len(rates) == 5 and rates[0] == rates[1] == rates[2]  # one net, as three things
    verdicts = [line for step in steps for line in step.out.splitlines() if "soundness" in line]
    assert [line.split()[1] for line in verdicts[3:]] == ["weak", "weak"]
