"""docs/api.md is what the docstrings say, and the public interface stays small."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

MOST_NAMES = 102


def test_the_page_is_what_the_docstrings_say(root: Path) -> None:
    # In a process of its own: what other tests have registered here is no part of the package.
    command = [sys.executable, str(root / "docs" / "make_api.py"), "--check"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_another_docstring_would_change_it(root: Path) -> None:
    code = (
        "import runpy, sys; import purpleteam.verbs as verbs; "
        "verbs.attack.__doc__ = 'Something else.'; sys.argv = ['make_api.py', '--check']; "
        f"runpy.run_path({str(root / 'docs' / 'make_api.py')!r}, run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "api.md and the docstrings differ" in done.stderr


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
