"""Who else can write data, models and records is seen by their permissions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from purpleteam.core import storage
from purpleteam.core.checks import Target, run_check
from purpleteam.core.records import CheckResult
from purpleteam.core.storage import ModelStorage, RunStorage

pytestmark = pytest.mark.skipif(os.name != "posix", reason="looks at POSIX permissions")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "above" / "run" / "models").mkdir(parents=True)
    (tmp_path / "above" / "run" / "models" / "m.onnx").touch(0o644)
    return tmp_path / "above" / "run"


def looked(run: Path) -> CheckResult:
    return run_check(RunStorage(), Target(run=run))


def test_files_of_ones_own_pass_below_a_folder_for_all_that_keeps_them_apart(run):
    assert looked(run).verdict == "pass"
    run.parent.chmod(0o1777)  # as /tmp is
    assert looked(run).verdict == "pass"


@pytest.mark.parametrize("name", ["above", "above/run", "above/run/models/m.onnx"])
def test_a_place_that_everybody_writes_is_named_with_what_helps(run, tmp_path, name):
    (tmp_path / name).chmod(0o777)
    found = looked(run)
    assert found.verdict == "fail"
    assert found.message == f"{Path(name).name}: everybody can write it; chmod o-w"


def test_a_group_counts_where_somebody_else_is_in_it():
    import grp
    import pwd

    members = {group.gr_gid: list(group.gr_mem) for group in grp.getgrall()}
    for account in pwd.getpwall():
        members.setdefault(account.pw_gid, ["?"]).append(account.pw_name)
    alone = [one for one in pwd.getpwall() if members[one.pw_gid] == [one.pw_name] and one.pw_uid]
    for one in alone[:1]:
        assert not storage._shared(one.pw_gid, one.pw_uid)
        assert storage._shared(one.pw_gid, one.pw_uid + 1)


def test_what_belongs_to_another_account_is_theirs_to_change(run, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: run.stat().st_uid + 1)
    monkeypatch.setattr(storage, "ROOT", -1)
    assert "belongs to another account" in looked(run).message


def test_the_stem_of_a_model_stands_for_its_files(run):
    model = run / "models" / "m"
    assert run_check(ModelStorage(), Target(model=model)).verdict == "pass"
    model.with_suffix(".onnx").chmod(0o666)
    assert run_check(ModelStorage(), Target(model=model)).verdict == "fail"
