"""picklescan and hayward are asked too; where they say worse than we do, that is a finding."""

from __future__ import annotations

import pickle
from uuid import UUID

import pytest
import scan_corpus as corpus

from purpleteam.core.errors import UsageError
from purpleteam.scan import scan, second_opinion


def test_where_all_agree_there_is_nothing_to_add(tmp_path, marker):
    pytest.importorskip("picklescan")
    pytest.importorskip("hayward")
    (tmp_path / "bad.pkl").write_bytes(corpus.pickles(marker)["os_system"])
    (tmp_path / "good.pkl").write_bytes(pickle.dumps({"w": [1.0]}))
    result = second_opinion.second_opinion()(tmp_path)
    assert (result.findings, result.errors) == ((), ())
    assert not marker.exists()


def test_what_one_calls_bad_and_we_do_not_is_a_finding(tmp_path):
    pytest.importorskip("picklescan")  # which calls a plain UUID dangerous
    (tmp_path / "run.pkl").write_bytes(pickle.dumps({"id": UUID(int=1), "w": [1.0]}))
    (found,) = second_opinion.second_opinion()(tmp_path).findings
    assert (found.rule, found.severity) == ("PM019", "medium")
    assert "picklescan" in found.message and "we say unsupported" in found.message


@pytest.mark.parametrize("tool", ["picklescan", "hayward"])
def test_each_names_what_a_payload_would_call(tmp_path, marker, tool):
    pytest.importorskip(tool)
    path = tmp_path / "bad.pkl"
    path.write_bytes(corpus.pickles(marker)["os_system"])
    ((file, why), *_) = second_opinion.said(tool, [str(path)])
    assert file == str(path) and "system" in why


def test_a_tool_that_fails_is_an_error_and_costs_the_others_nothing(tmp_path, monkeypatch):
    pytest.importorskip("picklescan")
    commands = {"picklescan": ("-c", "raise SystemExit(3)")}
    monkeypatch.setattr(second_opinion, "COMMANDS", commands)
    (tmp_path / "good.pkl").write_bytes(pickle.dumps([1]))
    result = scan([tmp_path], ["model-file", second_opinion.second_opinion()])
    assert result.errors == ("picklescan did not run: CalledProcessError",)
    assert len(result.scanned) == 1


def test_without_either_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr(second_opinion, "COMMANDS", {"no-such-scanner": ()})
    with pytest.raises(UsageError, match=r"purpleteam\[peers\]"):
        second_opinion.second_opinion()
