"""A run names the commit or wheel of the code that wrote it, and no configuration is run for it."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from purpleteam.core.checks import Target, run_check
from purpleteam.core.revision import Revision, revision, revision_of
from purpleteam.core.runfolder import RunFolder
from purpleteam.core.verification import RunCode

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
Git = Callable[..., str]


@pytest.fixture
def git(tmp_path: Path) -> Git:
    """Run git in a work tree with one commit, which holds the package `src/ours`."""
    tree = tmp_path / "tree"
    (tree / "src" / "ours" / "deep").mkdir(parents=True)
    (tree / "src" / "ours" / "a.py").write_text("a = 1\n", "utf-8")
    (tree / "src" / "ours" / "deep" / "é.py").write_text("b = 1\n", "utf-8")

    def run(*words: str) -> str:
        who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
        env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1"}
        asked = ["git", "-C", str(tree), *who, *words]
        return subprocess.run(asked, check=True, capture_output=True, text=True, env=env).stdout

    run("init", "-q")
    run("add", ".")
    run("commit", "-q", "-m", "one")
    return run


@pytest.fixture
def ours(git: Git, tmp_path: Path) -> Path:
    return tmp_path / "tree" / "src" / "ours"


@needs_git
@pytest.mark.parametrize("kept", ["branch", "packed", "detached"])
def test_a_checkout_is_named_by_its_commit_wherever_git_keeps_that(git, ours, kept):
    commit = git("rev-parse", "HEAD").strip()
    if kept == "packed":
        git("gc", "-q")
        git("pack-refs", "--all")
    if kept == "detached":
        git("checkout", "-q", "--detach")
    found = revision_of(ours)
    assert (found.commit, found.differ, found.changed) == (commit, 0, ())
    assert str(found) == f"commit {commit}, unchanged"


@needs_git
def test_a_work_tree_beside_others_has_its_own_commit(git, tmp_path):
    git("worktree", "add", "-q", "-b", "other", str(tmp_path / "other"))
    assert revision_of(tmp_path / "other" / "src" / "ours").differ == 0


@needs_git
def test_what_is_changed_added_or_lost_is_named_staged_or_not(git, ours):
    (ours / "a.py").write_text("a = 2\n", "utf-8")
    git("add", ".")
    (ours / "new.py").touch()
    (ours / "deep" / "é.py").unlink()
    (ours / "__pycache__").mkdir()
    (ours / "__pycache__" / "a.pyc").touch()
    assert revision_of(ours).changed == ("a.py", "deep/é.py", "new.py")


@needs_git
def test_nothing_that_a_repository_configures_is_run(git, ours, tmp_path):
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\ncat\n", "utf-8")
    program.chmod(0o755)
    (tmp_path / "tree" / ".gitattributes").write_text("* filter=evil diff=evil\n", "utf-8")
    for name in ("core.fsmonitor", "core.pager", "pager.ls-tree", "filter.evil.clean",
                 "diff.external", "core.sshCommand", "core.alternateRefsCommand"):  # fmt: skip
        git("config", name, str(program))
    git("config", "alias.ls-tree", f"!{program}")
    (ours / "a.py").write_text("a = 2\n", "utf-8")
    assert revision_of(ours).changed == ("a.py",)
    assert not (tmp_path / "ran").exists()
    git("status")
    assert (tmp_path / "ran").exists()  # as it is where somebody calls git there


@needs_git
@pytest.mark.parametrize("head", ["ref: ../../outside", "ref: refs/heads/../../x", "0" * 40, ""])
def test_a_head_that_means_no_commit_names_none_and_is_not_unchanged(git, ours, tmp_path, head):
    (tmp_path / "tree" / ".git" / "HEAD").write_text(head, "utf-8")
    (tmp_path / "outside").write_text("1" * 40, "utf-8")
    found = revision_of(ours)
    assert found.differ is None and found.commit in ("", "0" * 40)


@needs_git
def test_without_git_the_commit_is_named_and_its_files_are_not_compared(git, ours, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert "whether anything is changed is not known" in str(revision_of(ours))


def test_an_installed_package_is_that_of_its_wheel_to_the_byte(tmp_path, monkeypatch):
    package, told = tmp_path / "ours_installed", tmp_path / "ours_installed-1.dist-info"
    for folder in (package, told):
        folder.mkdir()
    (package / "a.py").write_text("a = 1\n", "utf-8")
    digest = base64.urlsafe_b64encode(hashlib.sha256(b"a = 1\n").digest()).decode().rstrip("=")
    (told / "METADATA").write_text("Name: ours_installed\nVersion: 1\n", "utf-8")
    (told / "RECORD").write_text(f"ours_installed/a.py,sha256={digest},6\n", "utf-8")
    pip = '{"url": "https://ada:pw@example.org/a", "vcs_info": {"commit_id": "c0ffee"}}'
    (told / "direct_url.json").write_text(pip, "utf-8")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    found = revision_of(package)
    assert found.wheel.startswith("sha256:") and (found.commit, found.differ) == ("c0ffee", 0)
    assert found.origin == "https://example.org/a"
    (package / "b.py").touch()
    (package / "a.py").write_text("a = 2\n", "utf-8")
    assert revision_of(package).changed == ("a.py", "b.py")


def test_code_that_came_from_nowhere_is_told_by_its_digest_alone(tmp_path):
    (tmp_path / "ours").mkdir()
    found = revision_of(tmp_path / "ours")
    assert str(found) == f"no known revision, files {found.digest}"


def test_a_run_names_each_code_that_wrote_it_and_passes_where_none_was_changed(tmp_path):
    run = RunFolder.create(tmp_path / "run", {"dataset": "digits"})
    assert run.info["code"] == [{**revision(), "changed": list(revision()["changed"])}]
    run._write({**run.info, "code": []})
    assert run_check(RunCode(), Target(run=run.path)).verdict == "fail"
    for commit in ("1" * 40, "1" * 40, "2" * 40):
        run.ran_by({"digest": "sha256:1", "commit": commit, "changed": (), "differ": 0})
    passed = run_check(RunCode(), Target(run=run.path))
    assert passed.verdict == "pass" and len(passed.measured) == 2
    run.ran_by({"digest": "sha256:2", "commit": "3" * 40})
    assert "is not known" in run_check(RunCode(), Target(run=run.path)).message


def test_a_revision_is_read_as_it_was_written():
    told = revision()
    assert Revision.all_of({"code": [{**told, "later": 1}]}) == [Revision(**told)]
    assert Revision.all_of({}) == Revision.all_of({"code": ["?"]}) == []
