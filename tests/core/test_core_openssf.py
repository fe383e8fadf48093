"""Signatures go both ways between Purpleteam and the library of OpenSSF model signing.

`openssf-1.1.1-bundle.json` is what `model_signing` 1.1.1 wrote of the folder that `model` makes, by
a key whose public half lies beside it: that their form is read is tried where it is not installed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from purpleteam.core.errors import Refused
from purpleteam.core.provenance import find_subject, sign_subject, verify_subject
from purpleteam.core.signing import make_key, opened, public_key

HERE = Path(__file__).parent
THEIRS = (HERE / "openssf-1.1.1-bundle.json").read_bytes()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    for name in ("weights.onnx", "deep/card.json", "Z", "a b"):
        (folder / name).write_bytes(name.encode())
    make_key(tmp_path / "k.key", "p256")
    return folder


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """Their public key, which others cannot write whatever the umask of a checkout was."""
    (tmp_path / "theirs.pub").write_bytes((HERE / "openssf-1.1.1-key.pub").read_bytes())
    (tmp_path / "theirs.pub").chmod(0o644)
    return tmp_path / "theirs.pub"


def test_what_their_library_wrote_is_verified_by_the_key_that_is_named(model, key):
    model.with_suffix(".sig").write_bytes(THEIRS)
    found = verify_subject(find_subject(model), key)
    assert [part.verdict for part in found.parts] == ["pass", "pass"]
    assert found.statement is not None and len(found.statement.files) == 4
    assert verify_subject(find_subject(model)).parts[0].verdict == "unknown"
    (model / "Z").write_bytes(b"z")
    (model / "new").touch()
    changed = verify_subject(find_subject(model), key).parts[1]
    assert changed.message == "Z was changed; new is not signed"


def test_any_changed_character_of_what_they_signed_is_refused(key):
    whole, by = json.loads(THEIRS), public_key(key)
    for field, part in (("payload", None), ("sig", 0)):
        envelope: dict[str, Any] = json.loads(THEIRS)["dsseEnvelope"]
        holder = envelope if part is None else envelope["signatures"][part]
        text = holder[field]
        for place in range(0, len(text) - 4, 7):
            other = "B" if text[place] != "B" else "C"
            holder[field] = text[:place] + other + text[place + 1 :]
            with pytest.raises(Refused):
                opened(json.dumps(whole | {"dsseEnvelope": envelope}).encode(), by)


def test_what_they_do_not_sign_may_be_spelled_otherwise_and_counts_for_nothing(key):
    said = opened(json.dumps(json.loads(THEIRS), indent=1).replace("\n", "\r\n").encode())
    assert said.key == ""
    assert opened(THEIRS, public_key(key)).files == said.files


@pytest.fixture
def library() -> Any:
    reason = "OpenSSF's model-signing is not installed (it needs pyopenssl, too)"
    pytest.importorskip("model_signing.verifying", reason=reason)
    return pytest.importorskip("model_signing", reason=reason)


def test_the_library_verifies_a_bundle_that_is_signed_here(model: Path, library: Any) -> None:
    sign_subject(model, model.parent / "k.key", form="bundle")
    known = library.verifying.Config().use_elliptic_key_verifier(public_key=model.parent / "k.pub")
    known.verify(model, model.parent / "model.sig")
    (model / "Z").write_bytes(b"z")
    with pytest.raises(ValueError, match="Hash mismatch for 'Z'"):
        known.verify(model, model.parent / "model.sig")


def test_a_bundle_of_the_library_is_verified_here(model: Path, library: Any) -> None:
    by = library.signing.Config().use_elliptic_key_signer(private_key=model.parent / "k.key")
    by.sign(model, model.parent / "model.sig")
    found = verify_subject(find_subject(model), model.parent / "k.pub")
    assert [part.verdict for part in found.parts] == ["pass", "pass"]
