"""The first two minutes with a model of one's own, as the README shows them.

    python benchmarks/own_model.py      writes results/own.json

The README's own files are written, and its command and its lines of Python are run; what they
answer is kept word for word. The images are the embedded digits' test images, in folders of
classes without splits: all of them are used.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from purpleteam.core.machine import machine, versions

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "own.json"
START = [sys.executable, "-c", "from purpleteam.cli import main; main()"]


def main() -> None:
    """Make the files, attack from shell and Python, and keep both answers."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.split("\n## Your own model\n")[1].split("\n## ")[0]
    module, maker, lines = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (command,) = re.findall(r"^purple attack .*$", section, re.MULTILINE)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "my_module.py").write_text(module, encoding="utf-8")
        (folder / "make_files.py").write_text(maker, encoding="utf-8")
        answered(folder, sys.executable, "make_files.py")
        content = {
            "command": command,
            "answer": answered(folder, *START, *command.split()[1:]),
            "answer_in_python": answered(folder, sys.executable, "-c", lines),
            "versions": versions(),
            "machine": machine(),
        }
    RESULTS.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    sys.stdout.write(f"{content['answer']}\n\n{content['answer_in_python']}\n")


def answered(folder: Path, *command: str) -> str:
    """Return what a command prints in a folder."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


if __name__ == "__main__":
    main()
