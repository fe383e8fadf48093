"""What a folder's docstring lists is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src" / "purpleteam"
LISTED = re.compile(r"(?:^- |; +|^- `\w+`, )`(\w+)/?`", re.MULTILINE)
FOLDERS = [
    path for path in sorted(SRC.rglob("__init__.py")) if LISTED.search(path.read_text("utf-8"))
]


@pytest.mark.parametrize("path", FOLDERS, ids=lambda path: str(path.parent.relative_to(SRC)))
def test_what_a_folder_lists_is_in_it(path: Path) -> None:
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    inside = [*path.parent.rglob("*")]
    code = "\n".join(file.read_text("utf-8") for file in inside if file.suffix == ".py")
    names = {file.stem for file in inside}
    for name in LISTED.findall(text):
        assert name in names or re.search(rf"^(def|class) {name}\b|^{name}\b", code, re.MULTILINE)
