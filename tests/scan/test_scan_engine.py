"""Findings of all scanners together, and everything that was not looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import scan_corpus as corpus

from purpleteam.core.errors import UsageError
from purpleteam.scan import SCANNERS, ScanResult, engine, scan, scanner, severity_at_least, to_sarif
from purpleteam.scan.scanner import walk
from purpleteam.scan.scanners import bandit_code

KEY = "AKIA" + "Z3" * 8


@pytest.fixture(scope="module")
def scanned(tmp_path_factory) -> ScanResult:
    """What all scanners say of a project that has one of everything."""
    folder = tmp_path_factory.mktemp("a") / "project"
    (folder / ".venv").mkdir(parents=True)
    (folder / ".venv" / "pyvenv.cfg").write_text("")
    (folder / ".venv" / "bad.py").write_text("eval(x)\n")
    (folder / "__pycache__").mkdir()
    (folder / "load.py").write_text("import torch\nnet = torch.load('m.pt')\n")
    (folder / "broken.py").write_text("def f(:\n")
    (folder / "settings.yaml").write_text(f"key: {KEY}\n")
    (folder / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00")
    corpus.archive(folder / "net.pt", corpus.benign_pickle())
    return scan([folder])


def test_all_scanners_report_with_tool_rule_severity_cwe_and_place(scanned):
    found = {(one.tool.split()[0], one.rule, one.severity, one.cwe) for one in scanned.findings}
    assert "B614" not in {rule for _, rule, _, _ in found}  # the same fault as PT001
    assert ("purpleteam", "PT001", "medium", "CWE-502") in found
    assert ("purpleteam", "PT020", "high", "CWE-798") in found
    assert ("purpleteam", "PM002", "low", "CWE-502") in found
    assert {one.place["path"] for one in scanned.findings} == {
        "project/broken.py",
        "project/load.py",
        "project/settings.yaml",
        "project/net.pt",
    }
    assert all(one.fix for one in scanned.findings)


def test_what_was_not_looked_at_is_said_with_the_reason(scanned):
    skipped = scanned.skipped
    assert ("project/.venv", "a virtual environment") in skipped
    assert ("project", "caches left out: 1 __pycache__") in skipped
    assert ("project", "no scanner knows these files: 1 .png") in skipped
    assert any(path == "project/broken.py" and "bandit" in why for path, why in skipped)
    assert any(path == "project/broken.py" and "rules" in why for path, why in skipped)


def test_a_secret_is_never_repeated_in_its_finding(scanned):
    assert KEY not in str(scanned.to_json())


def test_a_scan_of_nothing_is_an_error_and_never_clean(tmp_path):
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00")
    result = scan([tmp_path])
    assert "nothing was scanned" in result.errors[0]
    assert scan([tmp_path / "picture.png"]).skipped[0][1] == "no scanner knows this kind of file"


def test_a_path_that_does_not_exist_is_a_clear_error(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        scan([tmp_path / "no"])
    with pytest.raises(UsageError, match=r"unknown scanner 'bandid'.*bandit"):
        scan([tmp_path], ["bandid"])


def test_links_are_not_followed_and_said(tmp_path):
    (tmp_path / "link.py").symlink_to("/etc/hostname")
    (tmp_path / "folder").symlink_to("/etc")
    assert [reason for _, reason in walk(tmp_path).skipped] == [
        "a link, not followed",
        "a link or no plain file",
    ]


def test_a_folder_cannot_switch_bandit_off(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".bandit").write_text("[bandit]\nskips: B307\nexclude: /\n")
    (tmp_path / "a.py").write_text("eval(input())\n")
    (tmp_path / "bandit.py").write_text("raise SystemExit(0)\n")
    assert "B307" in {one.rule for one in scan([tmp_path], ["bandit"]).findings}


def test_a_bandit_that_fails_is_an_error_and_never_clean(tmp_path, monkeypatch):
    (tmp_path / "a.py").write_text("x = 1\n")
    monkeypatch.setattr(bandit_code.sys, "executable", "/bin/false")
    result = scan([tmp_path], ["bandit"])
    assert "bandit ended with 1" in result.errors[0]
    assert result.scanned == ()


def test_a_bandit_that_cannot_begin_costs_no_other_scanner(tmp_path, monkeypatch):
    (tmp_path / "a.py").write_text("import torch\ntorch.load(x)\n")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "no"))
    result = scan([tmp_path])
    assert "bandit failed: FileNotFoundError" in result.errors[0]
    assert "PT001" in {one.rule for one in result.findings}


def test_nosec_gives_neither_reason_nor_end_and_silences_nothing(tmp_path):
    (tmp_path / "a.py").write_text("import os\nos.system(x)  # nosec B605\n")
    result = scan([tmp_path], ["bandit"])
    assert [(one.rule, one.place["comment"]) for one in result.findings] == [("B605", "nosec")]


def test_severities_are_ordered_and_unknown_ones_refused():
    assert severity_at_least("critical", "medium")
    assert not severity_at_least("low", "medium")
    with pytest.raises(UsageError, match="unknown severity 'hihg'"):
        severity_at_least("high", "hihg")


def test_the_scanners_are_known_by_name_and_start_at_once():
    assert list(SCANNERS) == ["bandit", "ml-code", "model-file", "packages", "secrets"]
    code = (
        "import sys, purpleteam.scan; sys.exit('numpy' in sys.modules or 'bandit' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_result_is_json_with_the_four_promised_fields():
    assert {"findings", "scanned", "skipped", "errors"} <= ScanResult().to_json().keys()


@pytest.fixture
def calls(monkeypatch):
    """The paths at which a scanner `counted` was called; it fails on a file named `fails.py`."""
    made: list[Path] = []

    def counted(path: Path) -> ScanResult:
        made.append(path)
        files = tuple(file.name for file in walk(path).files)
        return ScanResult(scanned=files, errors=("failed",) if "fails.py" in files else ())

    monkeypatch.setitem(SCANNERS._items, "counted", counted)
    monkeypatch.setattr(engine, "_results", {})
    return made


def test_the_same_content_is_scanned_once_and_changed_content_again(tmp_path, calls):
    (tmp_path / "a.py").write_text("x = 1\n")
    first = scan([tmp_path], ["counted"])
    assert scan([tmp_path], ["counted"]) == first and len(calls) == 1
    (tmp_path / "a.py").write_text("x = 2\n")
    scan([tmp_path], ["counted"])
    (tmp_path / "b.py").write_text("x = 2\n")
    assert scan([tmp_path], ["counted"]).scanned == ("a.py", "b.py") and len(calls) == 3


def test_a_scanner_that_failed_is_asked_again(tmp_path, calls):
    (tmp_path / "fails.py").write_text("x = 1\n")
    assert scan([tmp_path], ["counted"]).errors == scan([tmp_path], ["counted"]).errors
    assert len(calls) == 2


def test_only_so_many_results_of_small_trees_are_kept(tmp_path, calls, monkeypatch):
    for number in range(engine.KEPT_RESULTS + 1):
        (tmp_path / f"{number}.py").write_text("x = 1\n")
        scan([tmp_path / f"{number}.py"], ["counted"])
    assert len(engine._results) == engine.KEPT_RESULTS
    monkeypatch.setattr(engine, "KEPT_BYTES", 5)
    scan([tmp_path], ["counted"])
    scan([tmp_path], ["counted"])
    assert len(calls) == engine.KEPT_RESULTS + 3


def raises(file: Path, name: str) -> ScanResult:
    """A look at a file that fails on `bad` in three ways, and takes no end on `slow`."""
    text = file.read_text()
    if text == "slow":
        while True:
            pass
    if text == "deep":
        return raises(file, name)
    if text == "bad":
        raise ValueError("what nobody thought of")
    return ScanResult(scanned=(name,))


def test_a_file_on_which_a_scanner_fails_costs_no_other_file(tmp_path, monkeypatch):
    for text in ("bad", "deep", "good", "slow"):
        (tmp_path / f"{text}.txt").write_text(text)
    monkeypatch.setattr(scanner, "SECONDS", 1.0)
    try:
        scanner.file_scanner("raises")(raises)
        result = scan([tmp_path], ["raises", "model-file"])
    finally:
        del SCANNERS._items["raises"]
    whole = [path for path in result.scanned if path.endswith("good.txt")]
    assert len(whole) == 1 and len(result.scanned) == 1
    told = [error.split(": ", 1)[1] for error in result.errors]
    assert told[0] == "raises failed: ValueError: what nobody thought of"
    assert told[1].startswith("raises failed: RecursionError")
    assert told[2].startswith("raises failed: TooSlow: it took more than")
    json.dumps(to_sarif(result))


def test_a_scanner_that_fails_at_all_costs_no_other_scanner(tmp_path, monkeypatch):
    def broken(path: Path) -> ScanResult:
        raise ZeroDivisionError("no files")

    (tmp_path / "a.py").write_text("import torch\nnet = torch.load('m.pt')\n")
    monkeypatch.setitem(SCANNERS._items, "broken", broken)
    result = scan([tmp_path], ["broken", "ml-code"])
    assert [one.rule for one in result.findings] == ["PT001"]
    assert "broken failed: ZeroDivisionError: no files" in result.errors[0]


def test_a_name_that_is_no_text_is_shown_and_sarif_is_written(tmp_path):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.env")).write_text(f"key: {KEY}\n")
    (finding,) = scan([tmp_path], ["secrets"]).findings
    assert finding.place["path"].endswith("\\xff.env")
    json.dumps(to_sarif(scan([tmp_path], ["secrets"])))


def test_a_file_that_cannot_be_opened_is_an_error_and_never_clean(tmp_path):
    def locked(file: Path, name: str) -> ScanResult:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.pt").write_bytes(b"1")
    try:
        scanner.file_scanner("locked")(locked)
        result = scan([tmp_path], ["locked", "secrets"])
    finally:
        del SCANNERS._items["locked"]
    assert any(error.endswith("a.pt: cannot be read: Permission denied") for error in result.errors)
