"""The chapter on scanning in docs/assignment.md shows what its fix fixed, and what it did not."""

from __future__ import annotations

from pathlib import Path

import pages

PAGE = (Path(__file__).parents[2] / "docs" / "assignment.md").read_text("utf-8")


def test_the_page_shows_what_a_fix_fixed_and_what_it_only_silenced(tmp_path: Path) -> None:
    chapter = PAGE[PAGE.index("## 5. ") : PAGE.index("## 6. ")]
    steps = pages.do(chapter, tmp_path)
    assert [step.code for step in steps] == [1, 1, 0, 1], [step.error for step in steps]
    (shown,) = pages.blocks(chapter, "text")
    printed = [line.rstrip() for line in steps[-1].out.splitlines()]
    assert [line for line in shown.splitlines() if line not in printed] == [], printed
