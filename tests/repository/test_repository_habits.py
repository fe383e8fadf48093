"""What every file keeps to: no hosts, no machine's paths, small modules that say what they are."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest
import yaml

import purpleteam

MOST_LINES = 400
LONGER: set[str] = set()
"""Modules that may be longer, each with a reason; there is none."""
HOSTS = ("pypi" + r"\.org", "python" + "hosted", "download" + r"\.pytorch", "PIP_FIND" + "_LINKS=")
PLACES = tuple(
    rf"(?<![\w.~$}}/*]){re.escape(f'/{name}/')}" for name in ("work", "root", "tmp", "opt")
)
ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "src" / "purpleteam").rglob("*.py"))


def found_in(paths: list[Path], patterns: tuple[str, ...]) -> list[str]:
    wanted = re.compile("|".join(patterns))
    found = []
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in wanted.finditer(text)]
    return found


def names(tree: ast.Module) -> list[str]:
    assigned = [one for node in tree.body if isinstance(node, ast.Assign) for one in node.targets]
    return [one.id for one in assigned if isinstance(one, ast.Name)]


def offers(path: Path, tree: ast.Module) -> bool:
    """Say whether others take names from a module: not if private, or a folder's mere map."""
    if path.name != "__init__.py":
        return not path.stem.startswith("_")
    folder = ".".join(path.parent.relative_to(ROOT / "src").parts)
    imported = [node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom)]
    made = any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in tree.body)
    return made or any(module.startswith(folder) for module in imported)


def test_no_file_names_a_package_host(tracked: list[Path]) -> None:
    assert found_in(tracked, HOSTS) == []


def test_no_file_names_a_place_on_somebodys_machine(tracked: list[Path]) -> None:
    assert found_in(tracked, PLACES) == []


def test_these_two_would_see_one(tmp_path: Path) -> None:
    bad = ROOT / "pyproject.toml"
    assert found_in([bad], ("build-system",)) == ["pyproject.toml: build-system"]
    for form in ("see {}/main", 'open("{}/y")', "DATA={}/x"):
        assert re.search("|".join(PLACES), form.format("/work")), form


def test_the_constraints_are_plain_names_and_versions(root: Path) -> None:
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    form = re.compile(r"[a-z0-9-]+==[0-9][0-9a-z.]*(  # purple: allow .+)?")
    assert [line for line in lines if not form.fullmatch(line)] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_module_is_small_and_says_what_it_is_and_offers(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert ast.get_docstring(tree)
    assert len(text.splitlines()) <= MOST_LINES or path.name in LONGER
    assert path.name != "__init__.py" or "__all__" in names(tree) or not offers(path, tree)


def imports_of(path: Path) -> list[str]:
    """Return the packages that a file imports, in the order of its lines."""
    nodes = [
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    nodes.sort(key=lambda node: node.lineno)
    found = []
    for node in nodes:
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [one.name for one in node.names] if isinstance(node, ast.Import) else []
        found += [name.partition(".")[0] for name in names]
    return found


def test_onnx_runtime_is_imported_only_where_its_telemetry_is_off(tracked: list[Path]) -> None:
    first = (ROOT / "src" / "purpleteam" / "__init__.py").read_text(encoding="utf-8")
    switch = 'os.environ["ORT_DISABLE_TELEMETRY"] = "1"'
    assert first.count(switch) == 1 and "purpleteam." not in first.partition(switch)[0]
    for path in tracked:
        if path.suffix == ".py" and not path.is_relative_to(ROOT / "src"):
            found = imports_of(path)
            if "onnxruntime" in found:
                assert "purpleteam" in found[: found.index("onnxruntime")], path


def test_the_version_is_one(root: Path) -> None:
    version = purpleteam.__version__
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    assert project["version"] == citation["version"] == version
    assert f"## [{version}]" in (root / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_citation_has_what_the_format_asks_for(root: Path) -> None:
    citation = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= citation.keys()
    assert all(one.keys() <= {"name", "family-names", "given-names"} for one in citation["authors"])


def test_the_workflow_grants_nothing_and_runs_no_foreign_action(root: Path) -> None:
    workflow = yaml.safe_load((root / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    assert workflow["permissions"] == {}
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert steps and not any("uses" in step for step in steps)
