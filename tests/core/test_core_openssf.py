"""Signatures go both ways between Purpleteam and the library of OpenSSF model signing."""

from __future__ import annotations

from pathlib import Path

import pytest

from purpleteam.core.provenance import find_subject, sign_subject, verify_subject
from purpleteam.core.signing import make_key

reason = "OpenSSF's model-signing is not installed (it needs pyopenssl, too)"
signing = pytest.importorskip("model_signing.signing", reason=reason)
verifying = pytest.importorskip("model_signing.verifying", reason=reason)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    for name in ("weights.onnx", "deep/card.json", "Z", "a b"):
        (folder / name).write_bytes(name.encode())
    make_key(tmp_path / "k.key", "p256")
    return folder


def test_the_library_verifies_a_bundle_that_is_signed_here(model: Path) -> None:
    sign_subject(model, model.parent / "k.key", form="bundle")
    library = verifying.Config().use_elliptic_key_verifier(public_key=model.parent / "k.pub")
    library.verify(model, model.parent / "model.sig")
    (model / "Z").write_bytes(b"z")
    with pytest.raises(ValueError, match="Hash mismatch for 'Z'"):
        library.verify(model, model.parent / "model.sig")


def test_a_bundle_of_the_library_is_verified_here(model: Path) -> None:
    library = signing.Config().use_elliptic_key_signer(private_key=model.parent / "k.key")
    library.sign(model, model.parent / "model.sig")
    found = verify_subject(find_subject(model), model.parent / "k.pub")
    assert [part.verdict for part in found.parts] == ["pass", "pass"]
    assert verify_subject(find_subject(model)).parts[0].verdict == "unknown"
    (model / "Z").write_bytes(b"z")
    found = verify_subject(find_subject(model), model.parent / "k.pub")
    assert found.parts[1].message == "Z was changed"
