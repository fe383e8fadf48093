"""Keys that only their owner reads, and signatures of which every byte counts."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from purpleteam.core.errors import Refused, UsageError
from purpleteam.core.signing import (
    FORMS,
    Statement,
    fingerprint,
    make_key,
    new_key,
    opened,
    private_key,
    public_key,
    sign,
    signer_of,
)

FILES = Statement(files={"a": f"sha256:{'0' * 64}", "b/c": f"sha256:{'1' * 64}"}, name="m")
PRIVATE, PUBLIC = new_key()
SIGNED = {form: sign(FILES, signer_of(PRIVATE), form) for form in FORMS}


def test_only_its_owner_can_read_a_key_and_its_name_is_the_digest_of_its_public_half(tmp_path):
    old = os.umask(0)
    try:
        name = make_key(tmp_path / "new" / "k.key")
    finally:
        os.umask(old)
    assert (tmp_path / "new" / "k.key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "new" / "k.pub").stat().st_mode & 0o777 == 0o644
    assert fingerprint((tmp_path / "new" / "k.pub").read_bytes()) == name
    assert public_key(tmp_path / "new" / "k.pub").keyid == name


@pytest.mark.parametrize("mark", [".git", "run.json"])
def test_no_key_is_written_where_it_would_travel(tmp_path, mark):
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / mark).write_text("{}", "utf-8")
    (tmp_path / "link").symlink_to(tree / "deep")
    for path in (tree / "k.key", tree / "deep" / "k.key", tmp_path / "link" / "k.key"):
        with pytest.raises(UsageError, match="would travel with it"):
            make_key(path)
    assert not list(tmp_path.rglob("k.*"))


def test_a_key_is_never_written_over(tmp_path):
    make_key(tmp_path / "k.key")
    before = (tmp_path / "k.key").read_bytes()
    with pytest.raises(UsageError, match="is there already"):
        make_key(tmp_path / "k.key")
    assert (tmp_path / "k.key").read_bytes() == before


def test_a_key_that_others_read_or_exchange_is_refused(tmp_path):
    make_key(tmp_path / "k.key")
    (tmp_path / "k.key").chmod(0o640)
    (tmp_path / "k.pub").chmod(0o664)
    with pytest.raises(UsageError, match="others can read it; take that away: chmod 600"):
        private_key(tmp_path / "k.key")
    with pytest.raises(UsageError, match="others can write it"):
        public_key(tmp_path / "k.pub")


@pytest.mark.parametrize(
    "content",
    [b"", b"secret words", PUBLIC, PRIVATE[:-40]],
    ids=["empty", "words", "a public key", "half a key"],
)
def test_what_is_no_key_is_refused_without_a_word_of_it(tmp_path, content):
    (tmp_path / "k").write_bytes(content)
    (tmp_path / "k").chmod(0o600)
    with pytest.raises(UsageError, match="is no private key") as told:
        private_key(tmp_path / "k")
    assert "secret words" not in str(told.value) and str(told.value).count("\n") == 0


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["ed25519", "p256"])
def test_a_signature_says_who_signed_which_files_and_when(form, kind, tmp_path):
    name = make_key(tmp_path / "k", kind)
    content = sign(
        Statement(files=FILES.files, name="m", signer="Ada"), private_key(tmp_path / "k"), form
    )
    for key in (None, public_key(tmp_path / "k.pub")):
        found = opened(content, key)
        assert (found.files, found.signer, found.name, found.key) == (FILES.files, "Ada", "m", name)
        assert found.signed_at.endswith("+00:00")


@pytest.mark.parametrize("form", FORMS)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_any_changed_byte_of_a_signature_is_caught(form, data):
    content = bytearray(SIGNED[form])
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Refused):
        opened(bytes(content))


@given(st.recursive(st.none() | st.text() | st.integers(), lambda x: st.lists(x) | st.dictionaries(
    st.sampled_from(["payload", "payloadType", "signatures", "sig", "dsseEnvelope", "subject"]), x
)))  # fmt: skip
@settings(max_examples=30, deadline=None)
def test_whatever_lies_there_is_refused_in_one_line(value):
    for content in (json.dumps(value).encode(), repr(value).encode("utf-8", "replace")):
        with pytest.raises(Refused, match="it is no signature"):
            opened(content)


@pytest.mark.parametrize("form", FORMS)
def test_another_key_did_not_sign_it(form, tmp_path):
    make_key(tmp_path / "other")
    with pytest.raises(Refused, match="is signed by the key"):
        opened(SIGNED[form], public_key(tmp_path / "other.pub"))


def test_a_statement_of_others_counts_only_beside_a_key(tmp_path):
    from securesystemslib.dsse import Envelope

    name = make_key(tmp_path / "k")
    statement = {"_type": "https://in-toto.io/Statement/v1", "predicate": {}}
    statement |= {"predicateType": "https://purpleteam/provenance/v1"}
    statement |= {"subject": [{"name": "a", "digest": {"sha256": "0" * 64}}]}
    envelope = Envelope(json.dumps(statement).encode(), "application/vnd.in-toto+json", {})
    envelope.sign(private_key(tmp_path / "k"))
    content = json.dumps(envelope.to_dict(), indent=2).encode()
    assert opened(content).key == ""
    assert opened(content, public_key(tmp_path / "k.pub")).key == name
    with pytest.raises(Refused, match="is not of the key"):
        opened(content, signer_of(PRIVATE).public_key)


def test_a_bundle_whose_root_is_not_that_of_its_files_is_refused():
    from securesystemslib.dsse import Envelope

    payload = base64.b64decode(json.loads(SIGNED["bundle"])["dsseEnvelope"]["payload"])
    statement = json.loads(payload)
    statement["subject"][0]["digest"]["sha256"] = "0" * 64
    envelope = Envelope(json.dumps(statement).encode(), "application/vnd.in-toto+json", {})
    envelope.sign(signer_of(PRIVATE))
    with pytest.raises(Refused, match="its digest is not that of its files"):
        opened(json.dumps({"dsseEnvelope": envelope.to_dict()}).encode())


def test_securesystemslib_verifies_what_is_signed_here():
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import VerificationError
    from securesystemslib.signer import SSlibKey

    key, told = signer_of(PRIVATE).public_key, json.loads(SIGNED["dsse"])
    known = SSlibKey(told["signatures"][0]["keyid"], key.keytype, key.scheme, key.keyval)
    envelope = Envelope.from_dict(told)
    assert envelope.verify([known], 1)
    envelope.payload += b" "
    with pytest.raises(VerificationError):
        envelope.verify([known], 1)


def test_the_statement_names_each_file_as_a_subject_or_their_root(tmp_path: Path) -> None:
    payloads = {
        form: json.loads(base64.b64decode((told.get("dsseEnvelope", told))["payload"]))
        for form, told in ((form, json.loads(content)) for form, content in SIGNED.items())
    }
    assert [one["name"] for one in payloads["dsse"]["subject"]] == ["a", "b/c"]
    (root,) = payloads["bundle"]["subject"]
    assert root["digest"]["sha256"] == fingerprint(bytes(32) + b"\x11" * 32)[7:]
