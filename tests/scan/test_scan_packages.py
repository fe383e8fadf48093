"""What a tree installs: read from every kind of file, judged offline, and never green unread."""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from purpleteam.core.checks import CHECKS, Target, run_check
from purpleteam.scan import scan
from purpleteam.scan.packages import advisories, checks, declared
from purpleteam.scan.packages.audit import audit
from purpleteam.scan.scanner import SEVERITIES
from purpleteam.scan.scanners import packages

PRINT = "sha256:" + 64 * "a"
COMMIT = 40 * "c"
ROOT = Path(__file__).parents[2]


def found(folder: Path, name: str, text: str) -> list[tuple[str, int]]:
    """Return the rules and lines of findings on one file."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    result = scan([file], ["packages"])
    assert not result.errors or not result.scanned  # a file that is broken is not scanned
    return [(row.rule, row.place["line"]) for row in result.findings]


def pins(folder: Path, name: str, text: str) -> dict[str, tuple[str | None, bool]]:
    (folder / name).write_text(text, encoding="utf-8")
    read = declared.read(folder / name)
    return {row.name: (row.pinned, row.hashed) for row in read.packages}


LOCKS = {
    "requirements.txt": f"Torch == 2.14.0 \\\n  # why\n  --hash={PRINT}\n",
    "poetry.lock": f'[[package]]\nname = "torch"\nversion = "2.14.0"\nfiles = [{{hash="{PRINT}"}}]',
    "uv.lock": f'[[package]]\nname = "torch"\nversion = "2.14.0"\nwheels = [{{hash="{PRINT}"}}]',
    "pylock.toml": 'lock-version = "1.0"\n[[packages]]\nname = "torch"\nversion = "2.14.0"\n'
    f'wheels = [{{hashes = {{sha256 = "{64 * "a"}"}}}}]',
    "Pipfile.lock": f'{{"default": {{"torch": {{"version": "==2.14.0", "hashes": ["{PRINT}"]}}}}}}',
}


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_with_hashes_is_read_whole_and_has_nothing_against_it(tmp_path, name):
    assert pins(tmp_path, name, LOCKS[name]) == {"torch": ("2.14.0", True)}
    assert found(tmp_path, name, LOCKS[name]) == []


PINNED = {
    "requirements-dev.txt": "torch==2.5.1+cu121 ; python_version > '3.9'",
    "environment.yml": "dependencies:\n- pytorch=2.5.1=py3_cpu\n",
    "pyproject.toml": "[tool.poetry.dependencies]\ntorch = '2.5.1'\n",
    "Pipfile": '[packages]\ntorch = "==2.5.1"\n',
    "poetry.lock": '[[package]]\nname = "torch"\nversion = "2.5.1"\n',
    "Dockerfile": f"FROM a@{PRINT}\nRUN cd x && pip3 --quiet install 'torch==2.5.1'\n",
    ".github/workflows/x.yml": "jobs: {a: {steps: [{run: python -m pip install torch==2.5.1}]}}",
}


@pytest.mark.parametrize("name", PINNED)
def test_a_version_with_a_published_hole_is_named_in_every_kind_of_file(tmp_path, name):
    rows = found(tmp_path, name, PINNED[name])
    (tell,) = [row for row in scan([tmp_path / name], ["packages"]).findings if row.rule == "PD001"]
    assert ("PD001", tell.place["line"]) in rows
    assert tell.severity == "critical"
    assert "torch 2.5.1" in tell.message
    assert "CVE-2025-32434" in tell.message
    assert "CVE-2026-24747 (2.10.0)" in tell.message


@pytest.mark.parametrize(
    ("wanted", "severity"),
    [
        ("torch==2.9.1", "high"),
        ("torch<2.6", "critical"),
        ("torch>=2.0", "low"),
        ("torch", "low"),
        ("torch==2.14.0", None),
        ("torch>=2.14", None),
        ("torch @ https://example.org/torch.whl#sha256=" + 64 * "a", None),
    ],
)
def test_a_range_is_as_bad_as_the_best_that_it_admits(tmp_path, wanted, severity):
    (tmp_path / "requirements.txt").write_text(wanted)
    result = scan([tmp_path], ["packages"])
    assert next((f.severity for f in result.findings if f.rule == "PD001"), None) == severity


FAULTS = {
    ("requirements.txt", "numpy>=2"): ["PD002"],
    ("requirements.txt", "scipy==1.15.0"): ["PD003"],
    ("requirements.txt", f"a @ git+https://github.com/a/a@{COMMIT}"): [],
    ("requirements.txt", "a @ git+https://github.com/a/a@main"): ["PD005"],
    ("requirements.txt", "https://example.org/a.whl"): ["PD005"],
    ("requirements.txt", "-i http://example.org/simple"): ["PD006"],
    ("requirements.txt", "--index-url=http://localhost:3141/simple"): [],
    ("requirements.txt", "--trusted-host example.org"): ["PD006"],
    ("requirements.txt", "--extra-index-url https://example.org/simple"): ["PD007"],
    ("requirements.txt", "-r gone.txt"): ["PD009"],
    ("requirements.txt", "a === == b"): ["PD009"],
    ("requirements.txt", "a === == b\nscipy>1"): ["PD009", "PD002"],
    ("poetry.lock", "[[package]\n"): ["PD009"],
    ("Pipfile.lock", "[1]"): ["PD009"],
    ("environment.yml", "dependencies: [\n"): ["PD009"],
    ("environment.yml", "dependencies: [{pip: [[a]]}]"): ["PD009"],
    ("environment.yml", "PORT: 80\n"): [],
    ("requirements.txt", "a===x"): ["PD009"],
    ("hardware-requirements.txt", "A big disk.\nA lot of time.\n"): ["PD009"],
    ("pyproject.toml", "[project]\nname = 'me'\ndependencies = ['scipy>=1']"): ["PD002"],
    ("Dockerfile", "FROM python"): ["PD004"],
    ("Containerfile", f"ARG B=python@{PRINT}\nFROM ${{B}} AS one\nFROM one\n"): [],
    ("Dockerfile", f"FROM a@{PRINT}\nCOPY --from=ghcr.io/b/c:1 /x /x"): ["PD004"],
    ("Dockerfile", f"FROM a@{PRINT}\nRUN a; curl -sL x.org | sudo bash -s"): ["PD008"],
    ("Dockerfile", f"FROM a@{PRINT}\nADD https://x.org/a.tgz /a"): ["PD005"],
    ("Dockerfile", f"FROM a@{PRINT}\nENV PIP_EXTRA_INDEX_URL=https://x.org"): ["PD007"],
    (".github/workflows/a.yaml", "jobs: {a: {steps: [{uses: a/b@v1}]}}"): ["PD004"],
    (".github/workflows/a.yaml", f"jobs: {{a: {{steps: [{{uses: a/b@{COMMIT}}}]}}}}"): [],
    (".github/workflows/a.yaml", "jobs: {a: {steps: [{uses: a/b@abcdef1}]}}"): ["PD004"],
    (".github/workflows/a.yaml", "a: [1\n"): ["PD009"],
    (".github/workflows/a.yaml", "jobs: {a: {services: {b: {image: b}}}}"): ["PD004"],
    (".github/workflows/a.yaml", "jobs: {a: {steps: [{with: {image: b}}]}}"): [],
    ("Dockerfile", f"FROM a@{PRINT}\nENV PIP_INDEX_URL http://x.org"): ["PD006"],
}


@pytest.mark.parametrize(("name", "text"), FAULTS)
def test_each_fault_is_one_finding_and_what_is_fixed_by_content_is_none(tmp_path, name, text):
    assert [rule for rule, _ in found(tmp_path, name, text)] == FAULTS[name, text]


def test_a_finding_stands_on_its_line(tmp_path):
    text = "# a\n\nnumpy==2.4.0 \\\n  --hash=x\nscipy>1\n-e .\n"
    assert found(tmp_path, "requirements/base.in", text) == [("PD002", 5)]
    text = f"FROM a@{PRINT}\nRUN a && \\\n  # why\n  pip install scipy\n"
    assert found(tmp_path, "Dockerfile", text) == [("PD002", 2)]
    text = (
        "on: push\njobs:\n  a:\n    steps:\n    - run: |\n        ls\n        pip install scipy\n"
    )
    assert found(tmp_path, ".github/workflows/b.yml", text) == [("PD002", 7)]


def test_a_range_beside_a_lock_decides_nothing(tmp_path):
    (tmp_path / "uv.lock").write_text(LOCKS["uv.lock"])
    assert found(tmp_path, "pyproject.toml", "[project]\ndependencies = ['scipy']") == []
    assert found(tmp_path, "requirements.txt", "scipy") == []


def test_a_file_that_requirements_name_is_read_whatever_it_is_called(tmp_path):
    (tmp_path / "more.list").write_text("torch==1.0\n-r requirements.txt")
    (tmp_path / "requirements.txt").write_text("-r more.list")
    result = scan([tmp_path / "requirements.txt"], ["packages"])
    assert [(f.rule, f.place["path"]) for f in result.findings][:1] == [
        ("PD001", f"{tmp_path.name}/more.list")
    ] or result.findings[0].place["path"].endswith("more.list")


def test_what_a_variable_names_is_said_and_not_scanned(tmp_path):
    text = "jobs: {a: {steps: [{run: 'pip install ${{ matrix.x }}'}]}}"
    assert found(tmp_path, ".github/workflows/c.yml", text) == []
    (skipped,) = scan([tmp_path], ["packages"]).skipped
    assert "named by a variable" in skipped[1]


def test_our_own_tree_has_no_finding_that_fails_a_scan():
    paths = ["pyproject.toml", "constraints.txt", "deploy/Containerfile", ".github"]
    result = scan([ROOT / path for path in paths], ["packages"])
    assert len(result.scanned) == len(paths)
    assert not result.errors
    assert not result.worst("medium")


def test_every_advisory_says_where_it_holds_and_where_no_more():
    known = advisories.snapshot()
    rows = [(name, row) for name, listed in known.packages.items() for row in listed]
    assert len(rows) > 100
    for name, row in rows:
        assert re.fullmatch(r"CVE-\d{4}-\d{4,}|GHSA(-\w{4}){3}|PYSEC-\d{4}-\d+", row.id), row.id
        assert row.severity in SEVERITIES
        assert row.fixed is None or not row.hits(row.fixed), (name, row.id)
        assert any(row.hits(version) for version in _edges(row.affected)), (name, row.id)


def _edges(affected: tuple[SpecifierSet, ...]) -> list[str]:
    versions = [Version(one.version) for each in affected for one in each]
    return [*map(str, versions), "0.0.1", *(f"{v.base_version}.dev0" for v in versions)]


def test_an_old_snapshot_proves_nothing(tmp_path, monkeypatch):
    today = datetime.now(UTC).date()
    old = advisories.Snapshot(day=today - timedelta(days=91), packages={})
    assert not advisories.Snapshot(day=today - timedelta(days=90), packages={}).stale
    assert advisories.Snapshot(day=today + timedelta(days=2), packages={}).stale
    assert advisories.snapshot().day > date(2026, 11, 1)
    monkeypatch.setattr(packages, "snapshot", lambda: old)
    (tmp_path / "requirements.txt").write_text("torch==2.14.0")
    (skipped,) = scan([tmp_path], ["packages"]).skipped
    assert skipped[1].startswith("unverified: the advisories are of")


def answering(folder: Path, *rows: dict, before: str = "") -> tuple[str, ...]:
    """Return a program that answers as pip-audit does, whatever it is asked."""
    program = folder / "answers.py"
    answer = json.dumps({"dependencies": rows, "fixes": []})
    program.write_text(f"{before}\nprint({answer!r})\n")
    return (sys.executable, str(program))


CLEAN = {"name": "torch", "version": "2.14.0", "vulns": []}
SKIPPED = {"name": "torch", "skip_reason": "Dependency not found on PyPI"}
HOLE = {"id": "CVE-2099-1", "fix_versions": ["3.0"], "aliases": [], "description": ""}


@pytest.mark.parametrize(
    ("wanted", "rows", "before", "error"),
    [
        ("torch==2.14.0+cpu", [CLEAN], "", None),
        ("torch==2.14.0", [SKIPPED], "", "torch 2.14.0: Dependency not found on PyPI"),
        ("torch==2.14.0", [SKIPPED | {"version": "2.14.0"}], "", "torch 2.14.0: Dependency not"),
        ("torch==2.14.0", [], "", "torch 2.14.0: it was left out"),
        ("torch==2.14.0", [CLEAN | {"version": "2.13.0"}], "", "torch 2.14.0: it was left out"),
        ("torch==2.14.0\nscipy", [CLEAN], "", "scipy: no one version"),
        ("torch==2.14.0", [CLEAN], "raise SystemExit('no network')", "it gave no answer"),
    ],
)
def test_an_audit_is_green_only_where_every_package_was_audited(
    tmp_path, wanted, rows, before, error
):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "requirements.txt").write_text(wanted)
    result = audit(tmp_path / "tree", answering(tmp_path, *rows, before=before))
    assert not result.findings
    assert len(result.errors) == (error is not None)
    assert not error or f"pip-audit: unverified: {error}" in result.errors[0]


def test_an_audit_names_the_hole_where_the_version_is_pinned(tmp_path):
    (tmp_path / "requirements.txt").write_text("\ntorch==2.14.0\n")
    result = audit(tmp_path, answering(tmp_path, CLEAN | {"vulns": [HOLE]}))
    (row,) = result.findings
    assert (row.rule, row.severity, row.place["line"]) == ("PD010", "high", 2)
    assert row.message == "torch 2.14.0: CVE-2099-1 (fixed in: 3.0)"


def installed(folder: Path, **versions: str) -> Target:
    needs = [f"Requires-Dist: {name}; extra == 'serve'" for name in versions]
    own = f"Name: purpleteam\nVersion: 0\nProvides-Extra: serve\n{chr(10).join(needs)}\n"
    rows = {name: f"Name: {name}\nVersion: {version}\n" for name, version in versions.items()}
    for name, text in {"purpleteam": own, **rows}.items():
        info = folder / f"{name}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\n{text}")
    return Target(packages=(str(folder),))


@pytest.mark.parametrize(
    ("versions", "verdict", "told"),
    [
        ({"h11": "0.16.0", "numpy": "2.4.6"}, "pass", ""),
        ({"h11": "0.14.0", "numpy": "2.4.6"}, "fail", "h11 0.14.0: CVE-2025-43859"),
        ({"h11": "0.16.0", "anyio": "4.0.0"}, "skipped", "unverified: no word on anyio"),
        ({"torch": "2.13.0"}, "pass", "not reached"),
        ({}, "skipped", "unverified: no word on any"),
    ],
)
@pytest.mark.parametrize("name", ["packages.served", "packages.advisories"])
def test_installed_packages_pass_only_where_all_are_known(tmp_path, name, versions, verdict, told):
    result = run_check(CHECKS[name](), installed(tmp_path, **versions))
    assert (result.verdict, result.negative_control["failed_as_required"]) == (verdict, True)
    assert told in result.message


def test_of_a_package_that_is_installed_twice_the_first_counts(tmp_path):
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder, version in zip(folders, ("0.16.0", "0.14.0"), strict=True):
        folder.mkdir()
        installed(folder, h11=version)
    found = checks.required([str(folder) for folder in folders])
    assert found == {"h11": "0.16.0"}


def test_no_installed_package_passes_by_an_old_snapshot(tmp_path, monkeypatch):
    old = advisories.Snapshot(day=date(2026, 1, 1), packages={"numpy": ()})
    monkeypatch.setattr(checks, "snapshot", lambda: old)
    with pytest.raises(checks.Absent, match="unverified: the advisories are of 2026-01-01"):
        CHECKS["packages.served"]().examine(installed(tmp_path, numpy="2.4.6"))
