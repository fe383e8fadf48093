"""What the base install weighs: distributions and megabytes in a fresh environment.

python benchmarks/install.py        writes results/install.json
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

from purpleteam import __version__
from purpleteam.core.machine import machine

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "install.json"
BROUGHT_BY_VENV = {"pip", "setuptools"}


def main() -> None:
    """Install the base into a throw-away environment, weigh it, and write what was found."""
    with tempfile.TemporaryDirectory(prefix="purple-install-") as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / "bin" / "python"
        before = megabytes(Path(folder))
        started = time.perf_counter()
        install = ("install", "--quiet", "-c", str(ROOT / "constraints.txt"), str(ROOT))
        subprocess.run([python, "-m", "pip", *install], check=True)
        seconds = time.perf_counter() - started
        listed = subprocess.run(
            [python, "-m", "pip", "list", "--format=json"], check=True, capture_output=True
        )
        names = {one["name"].lower() for one in json.loads(listed.stdout)} - BROUGHT_BY_VENV
        found = {
            "what": "pip install -c constraints.txt . in a fresh environment, pip itself left out",
            "distributions": len(names),
            "names": sorted(names),
            "megabytes": round(megabytes(Path(folder)) - before, 1),
            "seconds": round(seconds, 1),
            "machine": machine(),
            "versions": {"purpleteam": __version__, "python": sys.version.split()[0]},
            "command": "python benchmarks/install.py",
        }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{found['distributions']} distributions, {found['megabytes']} MB -> {RESULTS}")


def megabytes(folder: Path) -> float:
    """Return the size of all files under `folder` in units of a million bytes."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files) / 1e6


if __name__ == "__main__":
    main()
