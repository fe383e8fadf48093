"""The base install: what works with nothing but the ten packages that it asks for.

Each test runs in a Python in which every package beyond those (and what they need themselves)
cannot be imported, so that it means the same in a developer's environment and in a bare one.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from importlib import metadata, resources
from pathlib import Path

import pytest

from purpleteam.core.records import Measurement, Note
from purpleteam.core.runfolder import RunFolder
from purpleteam.core.statistics import Rate

MOST_DISTRIBUTIONS = 40
MOST_MEGABYTES = 250
OUTSIDE = ("torch", "scipy", "sklearn", "onnxruntime", "starlette", "PIL", "click")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def base() -> frozenset[str]:
    """Names of the distributions that `pip install purpleteam` brings, found by their metadata."""
    found: set[str] = set()
    waiting = ["purpleteam"]
    while waiting:
        name = canonical(waiting.pop())
        if name in found:
            continue
        try:
            wanted = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # for another platform or Python
        found.add(name)
        waiting += [
            match.group() for one in wanted if "extra ==" not in one
            if (match := re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", one))
        ]  # fmt: skip
    return frozenset(found)


@cache
def beyond_base() -> tuple[str, ...]:
    """Return every importable module that the base install does not bring."""
    owners = metadata.packages_distributions()
    foreign = {one for one, names in owners.items() if not base() & set(map(canonical, names))}
    return tuple(sorted(foreign.union(OUTSIDE)))


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    start = f"import sys; sys.modules.update(dict.fromkeys({beyond_base()!r})); "
    command = [sys.executable, "-c", start + code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def purple(*arguments: str) -> subprocess.CompletedProcess[str]:
    return python("from purpleteam.cli import main; main()", *arguments)


def test_the_guard_really_forbids() -> None:
    for module in OUTSIDE:
        assert "ModuleNotFoundError" in python(f"import {module}").stderr


@pytest.mark.parametrize("room", ["core", "data", "scan", "threats", "report", "cli"])
def test_a_room_imports_every_module_it_has(room: str) -> None:
    code = (
        f"import pkgutil, importlib, purpleteam.{room} as room; "
        "[importlib.import_module(one.name) for one in "
        "pkgutil.walk_packages(room.__path__, room.__name__ + '.')]"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr


def test_help_names_the_verbs() -> None:
    done = purple("--help")
    assert done.returncode == 0, done.stderr
    assert "demo" in done.stdout and "scan" in done.stdout


def test_scan_finds_an_unsafe_load(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("import pickle\n\npickle.load(open('model', 'rb'))\n")
    done = purple("scan", str(tmp_path), "--json")
    assert done.returncode == 1, done.stderr
    assert any(one["cwe"] == "CWE-502" for one in json.loads(done.stdout)["findings"])


def test_threats_are_derived_and_none_is_mitigated_by_absence() -> None:
    done = purple("threats", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["threats"]
    assert found and {"id", "element", "stride", "status", "mitigations"} <= set(found[0])


def test_a_report_is_rendered_from_a_folder(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", {"dataset": "digits"})
    seen = {"model": "sha256:0", "model_name": "baseline", "split": "test"}
    rate = Measurement(name="clean_accuracy", value=Rate.of(9, 10), subject=seen)
    run.cell("models", {}, lambda: [rate, Note(name="dataset", facts={"name": "digits"})])
    run.finish("finished")
    done = purple("report", str(run.path), "--json")
    assert done.returncode == 0, done.stderr
    assert rate.id in (run.path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("verb", ["ls", "doctor"])
def test_what_there_is_can_be_listed(verb: str) -> None:
    done = purple(verb, "--json")
    assert done.returncode == 0, done.stderr
    assert "purpleteam[lab]" in done.stdout


@pytest.mark.parametrize("arguments", [("train",), ("attack",), ("demo",), ("serve",)])
def test_what_needs_more_says_in_one_line_what_to_install(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    extra = () if arguments == ("serve",) else ("--out", str(tmp_path / "new"))
    done = purple(*arguments, *extra)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "pip install 'purpleteam[" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "name",
    [
        "py.typed",
        "pipeline/profiles/model.toml",
        "assignment/figures.toml",
        "assignment/profiles/demo.toml",
        "report/templates/report.html.j2",
        "serve/static/index.html",
        "threats/system.yaml",
        "zoo/standard.safetensors",
        "zoo/standard.onnx",
        "zoo/standard.json",
    ],
)
def test_the_package_brings_its_data(name: str) -> None:
    assert (Path(str(resources.files("purpleteam"))) / name).is_file()


def test_it_stays_small() -> None:
    def size(name: str) -> int:
        files = metadata.distribution(name).files or []
        return sum(one.size or 0 for one in files)

    assert len(base()) <= MOST_DISTRIBUTIONS, sorted(base())
    assert sum(map(size, base())) <= MOST_MEGABYTES * 1e6
