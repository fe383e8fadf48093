"""docs/api.md is what the docstrings say, and the public interface stays small."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

MOST_NAMES = 102


CHECK_TWICE = """
import runpy, sys
import purpleteam.verbs as verbs

sys.argv = ["make_api.py", "--check"]
for docstring in (verbs.attack.__doc__, "Something else."):
    verbs.attack.__doc__ = docstring
    try:
        runpy.run_path("docs/make_api.py", run_name="__main__")
        print("the same")
    except SystemExit as ended:
        print(ended)
"""


def test_the_page_is_what_the_docstrings_say_and_another_would_change_it(root: Path) -> None:
    # In a process of its own: what other tests have registered here is no part of the package.
    command = [sys.executable, "-c", CHECK_TWICE]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    told = ["the same", "api.md and the docstrings differ: make docs"]
    assert done.stdout.splitlines() == told, done.stdout + done.stderr


def test_the_public_interface_does_not_grow_by_accident(root: Path) -> None:
    page = (root / "docs" / "api.md").read_text(encoding="utf-8")
    count = re.search(r"^(\d+) names, and \d+ attacks", page, re.MULTILINE)
    assert count and int(count[1]) <= MOST_NAMES


def test_every_public_name_says_what_it_is(root: Path) -> None:
    page = (root / "docs" / "api.md").read_text(encoding="utf-8")
    for entry in page.split("\n### ")[1:]:
        name, _, rest = entry.partition("\n")
        told = re.sub(r"```.*?```", "", rest, flags=re.DOTALL).split("\n## ")[0].strip()
        assert told, f"{name} has no docstring"
