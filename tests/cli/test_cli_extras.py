"""Without the extras: what works, and in one line what to install for the rest.

`tests/base` does the same for all that an extra brings; here it is one package at a time.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BLOCKED = """
import sys
class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Forbid())
from purpleteam.cli import main
main()
"""
EXTRAS = ("torch", "sklearn", "scipy", "onnx", "onnxruntime", "starlette", "uvicorn", "PIL")


def purple_without(names: tuple[str, ...], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BLOCKED.format(names=names), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_a_folder_is_verified_in_the_base_install(tmp_path: Path) -> None:
    ended = purple_without(EXTRAS, "data", "verify", str(tmp_path), "--json")
    assert ended.returncode == 1 and json.loads(ended.stdout)["verified"] is False


def test_doctor_names_the_extra_of_each_missing_package() -> None:
    ended = purple_without(EXTRAS, "doctor", "--json")
    found = {one["what"]: one for one in json.loads(ended.stdout)["checks"]}
    assert "purpleteam[lab]" in found["torch"]["detail"] and not found["torch"]["ok"]
    assert "purpleteam[serve]" in found["starlette"]["detail"]


@pytest.mark.parametrize(
    ("missing", "arguments", "extra"),
    [
        (("torch",), ("train",), "lab"),
        (("torch",), ("run",), "lab"),
        (("torch",), ("import", "x.pt"), "lab"),
        (("torch",), ("replay", "runs/x", "m-1"), "lab"),
        (("sklearn",), ("train", "--dataset", "digits"), "lab"),
        (("starlette",), ("serve",), "serve"),
        (("httptools",), ("serve",), "serve"),
        (("onnxruntime",), ("serve",), "serve"),
        (("uvicorn",), ("serve", "--port", "0"), "serve"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    missing: tuple[str, ...], arguments: tuple[str, ...], extra: str
) -> None:
    ended = purple_without(missing, *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"pip install 'purpleteam[{extra}]'" in ended.stderr
    assert ended.stderr.count("\n") == 1
