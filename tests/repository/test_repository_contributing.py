"""CONTRIBUTING: short, and its example attack is a real one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

MOST_LINES = 60


def test_it_is_short(root: Path) -> None:
    text = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES


def test_its_attack_passes_every_contract_test_by_lying_in_the_folder(
    root: Path, tmp_path: Path
) -> None:
    text = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    place = re.search(r"`src/(purpleteam/attacks/evasion/(\w+)\.py)`", text)
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert place and code
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(root / "src" / "purpleteam", tmp_path / "purpleteam", ignore=ignored)
    (tmp_path / place[1]).write_text(code[1], encoding="utf-8")
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*pytest, "tests/contracts", "-k", place[2]],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"[1-9]\d* passed", done.stdout)
