"""A run that is to be signed checks its signatures before its report, and is signed last."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from purpleteam.core.errors import PurpleError, Refused, UsageError
from purpleteam.core.provenance import find_subject, verify_subject
from purpleteam.core.records import CheckResult, ThreatStatus
from purpleteam.core.runfolder import RunFolder
from purpleteam.core.signing import make_key
from purpleteam.core.verification import verify
from purpleteam.pipeline.config import RunConfig
from purpleteam.pipeline.run import run

Contents = Callable[[Path], dict[str, bytes]]


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "k.key"
    make_key(path)
    return path


@pytest.fixture(scope="module")
def signed(
    asked: RunConfig, finished: Path, key: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The tiny run, gone on with and signed."""
    path = Path(shutil.copytree(finished, tmp_path_factory.mktemp("signed") / "tiny"))
    assert run(asked, path, resume=True, key=key).signed is not None
    return path


@pytest.fixture
def again(signed: Path, tmp_path: Path) -> Path:
    """A copy of it to change."""
    return Path(shutil.copytree(signed, tmp_path / "tiny"))


def test_its_report_has_the_checks_of_signatures_executed_and_true(signed: Path) -> None:
    records = RunFolder.open(signed).records()
    checks = {one.check: one for one in records if isinstance(one, CheckResult)}
    for name in ("model.signature", "run.signature"):
        assert checks[name].verdict == "pass", checks[name].message
        assert checks[name].negative_control["failed_as_required"] is True
    models = len(list((signed / "models").glob("*.safetensors")))
    assert checks["model.signature"].measured == {"models": 1, "not signed": 0}  # the served one
    assert models == len(list((signed / "models").glob("*.sig"))) >= 3
    status = {one.threat: one.status for one in records if isinstance(one, ThreatStatus)}
    signed_for = ("T-OPERATOR-R1", "T-WEIGHTS-R1", "T-WEIGHTS-T1", "T-RECORDS-T1")
    assert {status[name] for name in signed_for} == {"mitigated"}
    assert "run.signature" in (signed / "report.md").read_text("utf-8")


def test_the_signature_covers_every_file_but_signatures_which_are_named(signed, key):
    found = verify_subject(find_subject(signed), key.with_suffix(".pub"))
    assert found.statement is not None and [part.verdict for part in found.parts] == ["pass"] * 2
    files = {path.relative_to(signed).as_posix() for path in signed.rglob("*") if path.is_file()}
    others = files - found.statement.files.keys()
    assert {"report.html", "records.jsonl", "models/baseline.json"} <= found.statement.files.keys()
    assert others == {name for name in files if name.endswith(".sig")} <= {*found.not_covered}
    assert verify(signed).verdict == "pass"


def test_gone_on_with_by_the_same_key_it_is_the_same_and_signed_anew(asked, again, key, contents):
    before = contents(again)
    assert run(asked, again, resume=True, key=key).signed is not None
    after = contents(again)
    assert {name for name in after if after[name] != before[name]} <= {"run.sig", "run.json"}
    assert verify_subject(find_subject(again), key.with_suffix(".pub")).parts[1].verdict == "pass"


def test_a_signed_run_is_not_gone_on_with_by_others_or_where_it_was_changed(asked, again, key):
    make_key(again.parent / "other")
    with pytest.raises(Refused, match=r"is signed, .*; go on with --sign KEY"):
        run(asked, again, resume=True)
    with pytest.raises(Refused, match="is signed by the key"):
        run(asked, again, resume=True, key=again.parent / "other")
    (again / "report.md").write_text("better", "utf-8")
    with pytest.raises(Refused, match=r"report\.md was changed"):
        run(asked, again, resume=True, key=key)
    assert (again / "run.sig").exists()


@pytest.mark.parametrize("case", ["missing", "read by others", "in a git tree", "in the run"])
def test_a_key_that_cannot_be_used_stops_it_before_any_work(asked, tmp_path, case):
    path, out = tmp_path / "keys" / "k.key", tmp_path / "out"
    if case == "in the run":
        path = out / "k.key"
    if case != "missing":
        make_key(path)
    if case == "read by others":
        path.chmod(0o644)
    if case == "in a git tree":
        (tmp_path / "keys" / ".git").mkdir()
    with pytest.raises(UsageError) as told:
        run(asked, out, key=path)
    assert str(path) in str(told.value) and "\n" not in str(told.value)
    assert not (out / "run.json").exists()


def test_an_encrypted_key_is_refused_without_asking_for_its_passphrase(asked, tmp_path):
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    kept = form.BestAvailableEncryption(b"secret")
    pem = (form.Encoding.PEM, form.PrivateFormat.PKCS8, kept)
    (tmp_path / "k.key").write_bytes(Ed25519PrivateKey.generate().private_bytes(*pem))
    (tmp_path / "k.key").chmod(0o600)
    with pytest.raises(PurpleError, match="is encrypted, and nobody is asked here"):
        run(asked, tmp_path / "out", key=tmp_path / "k.key")
