"""How an error is told: a line, with --json one object too, and whose code it was."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from cli_values import Purple

from purpleteam.cli.build import FLOW


@pytest.mark.parametrize(
    ("command", "kind", "code"),
    [
        ("evaluate --model nosuch", "ModelError", 2),
        ("evaluate --dataset nosuch", "UsageError", 2),
        ("evaluate --limit ten", "UsageError", 2),
        ("attack --attack pgd:steps=0", "ConfigError", 2),
        ("attack --epsilon 8/", "UsageError", 2),
        ("report nosuch", "RunError", 2),
        ("replay runs/x", "UsageError", 2),
        ("data nosuch", "UsageError", 2),
        ("evaluate --model exchanged", "Refused", 1),
    ],
)
def test_with_json_an_error_is_an_object_beside_its_line(
    purple: Purple, command: str, kind: str, code: int
) -> None:
    if kind == "Refused":
        purple("export", "--out", "exchanged", "--json")
        Path("exchanged.safetensors").write_bytes(b"other")
    ended = purple(*shlex.split(command), "--json")
    error = ended.json["error"]
    assert (ended.code, error["kind"], error["exit_code"]) == (code, kind, code)
    assert ended.err == f"error: {error['message']}\n"
    assert purple(*shlex.split(command)).out == ""


@pytest.mark.parametrize("verb", [verb for verb in FLOW if verb not in ("data", "keys")])
def test_every_verb_tells_usage_errors_in_json(purple: Purple, verb: str) -> None:
    ended = purple(verb, "--frob", "--json")
    assert ended.code == 2 and "--frob" in ended.json["error"]["message"]


def test_an_answer_that_is_no_whole_one_is_not_followed_by_a_second_object(
    purple: Purple, here: Path
) -> None:
    (here / "empty").mkdir()
    ended = purple("scan", "empty", "--json")
    assert ended.code == 2 and "error" not in ended.json and ended.err.startswith("error: ")


MODULE = """
import json, sys
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(784, 10)

    def forward(self, x):
        if self.training:
            HOW
        return self.head(x.flatten(1))
"""


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("raise KeyError('lost')", "KeyError: 'lost' in their_net.py, line 13 (forward)"),
        ("json.loads('{')", "JSONDecodeError their_net.py, line 13 (forward)"),
        ("open('gone.txt')", "FileNotFoundError gone.txt their_net.py, line 13"),
        ("sys.exit(7)", "SystemExit: 7 in their_net.py, line 13 (forward)"),
        ("raise MemoryError", "MemoryError their_net.py, line 13 --batch-size"),
        ("self.head(x)", "RuntimeError shapes their_net.py, line 13 (forward)"),
    ],
    ids=["raises", "library", "file", "exit", "memory", "torch"],
)
def test_an_error_in_foreign_code_names_its_file_and_line(
    purple: Purple, here: Path, monkeypatch: pytest.MonkeyPatch, how: str, told: str
) -> None:
    import sys

    monkeypatch.delitem(sys.modules, "their_net", raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (here / "their_net.py").write_text(
        MODULE.replace("HOW", how) + "\n\ndef net():\n    return Net()\n"
    )
    ended = purple("train", "--arch", "their_net:net", "--epochs", 1, "--json", "--out", "x")
    error = ended.json["error"]
    assert (ended.code, ended.err.count("\n")) == (2, 1), ended.err
    assert [word for word in told.split() if word not in error["message"]] == []
    assert error["whose"] == "user" and "their_net.py, line 13" in error["place"]


def test_an_error_without_foreign_code_is_called_a_defect(
    purple: Purple, monkeypatch: pytest.MonkeyPatch
) -> None:
    from purpleteam.cli import doctor

    monkeypatch.setattr(doctor, "EXTRAS", None)
    ended = purple("doctor", "--json")
    error = json.loads(ended.out)["error"]
    assert (ended.code, error["whose"]) == (2, "purpleteam")
    assert "purpleteam/cli/doctor.py, line" in error["message"]
    assert "defect" in error["message"]
