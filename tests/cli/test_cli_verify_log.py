"""`purple verify --log`: an audit log, its proofs, and what was kept elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_values import Purple

from purpleteam.serve.audit.log import AuditLog, beside, encoded
from purpleteam.serve.audit.verify import proved, public_key

LOG = Path("audit.jsonl")


@pytest.fixture
def log(here: Path) -> Path:
    """A log of three records, signed."""
    opened = AuditLog(LOG)
    for label in range(3):
        opened.write(encoded({"kind": "predict", "label": label}))
    opened.close()
    return LOG


def test_a_whole_log_is_told_as_one(purple: Purple, log: Path) -> None:
    ended = purple("verify", "--log", log, "--json")
    assert (ended.code, ended.err, ended.json["verdict"]) == (0, "", "pass")
    assert (ended.json["lines"], ended.json["signed"]) == (5, 4)
    said = purple("verify", "--log", log).out
    assert "lines 1 to 4 fit 2 checkpoints" in said and "can be cut off unseen" in said


def test_an_edited_log_is_told_and_ends_with_one(purple: Purple, log: Path) -> None:
    log.write_bytes(log.read_bytes().replace(b'"label":1', b'"label":7'))
    ended = purple("verify", "--log", log)
    assert ended.code == 1 and "something in lines 1 to 4 is not as it was signed" in ended.out


def test_a_log_that_nothing_signs_ends_with_two(purple: Purple, log: Path) -> None:
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:3]))
    beside(log, "checkpoints").unlink()
    ended = purple("verify", "--log", log)
    assert ended.code == 2 and "3 lines, no checkpoint signs them" in ended.out


def test_what_was_kept_elsewhere_is_held_against_the_log(purple: Purple, log: Path) -> None:
    Path("kept").write_text(purple("verify", "--log", log, "--json").json["checkpoint"], "utf-8")
    key = beside(log, "pub").read_text("utf-8").strip()
    given = ("verify", "--log", log, "--checkpoint", "kept", "--log-key", key)
    assert purple(*given).code == 0
    for file in Path().glob("audit.jsonl*"):
        file.unlink()
    AuditLog(LOG).close()
    assert purple("verify", "--log", log).code == 0 and purple(*given).code == 1


def test_a_line_is_proved(purple: Purple, log: Path) -> None:
    proof = purple("verify", "--log", log, "--prove", 3, "--json").json["proof"]
    line = log.read_bytes().splitlines()[2]
    assert proved(line, proof, public_key(beside(log, "pub")))
    assert proof in purple("verify", "--log", log, "--prove", 3).out


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "verify takes a run folder or --log FILE, one of them"),
        ("run --log audit.jsonl", "verify takes a run folder or --log FILE, one of them"),
        ("--log nosuch", "audit log 'nosuch' does not exist"),
        ("--log audit.jsonl --checkpoint audit.jsonl.pub", "'audit.jsonl.pub' holds no checkpoint"),
        ("--log audit.jsonl --log-key a+b+c", "'a+b+c' is no public key of the form name+id+key"),
        ("--log audit.jsonl --prove 5", "line 5 is not among the 4 lines that were signed"),
    ],
)
def test_what_cannot_be_looked_at_is_named(
    purple: Purple, log: Path, given: str, said: str
) -> None:
    ended = purple("verify", *given.split())
    assert ended.code == 2 and said in ended.err
