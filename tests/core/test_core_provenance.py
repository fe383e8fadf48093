"""A signed model, run or folder is as it was signed, to the byte, or it is said what is not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from purpleteam.core.cards import ModelCard, find_stored
from purpleteam.core.digest import sha256_file
from purpleteam.core.errors import Refused, UsageError
from purpleteam.core.ledger import Ledger
from purpleteam.core.provenance import (
    find_subject,
    require_signature,
    sign_subject,
    verify_signed,
    verify_subject,
)
from purpleteam.core.records import Note
from purpleteam.core.runfolder import RunFolder
from purpleteam.core.signing import FORMS, make_key, public_key


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A key of one's own, where one's own key lies."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        patch.setenv("XDG_CONFIG_HOME", str(home))
        make_key(home / "purpleteam" / "signing.key")
        yield home / "purpleteam" / "signing.pub"


def write_model(folder: Path, content: bytes = b"weights") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "m.safetensors").write_bytes(content)
    (folder / "m.onnx").write_bytes(content * 2)
    ModelCard(
        name="m",
        digest=sha256_file(folder / "m.safetensors"),
        onnx_digest=sha256_file(folder / "m.onnx"),
        architecture="linear",
        input={"channels": 1, "height": 2, "width": 2, "range": [0, 1]},
        classes=("0", "1"),
    ).write(folder / "m.json")
    return folder / "m"


def write_run(path: Path, value: int = 1, status: str = "finished") -> Path:
    run = RunFolder.create(path, {"dataset": "digits", "seed": 0})
    run.cell("data", {}, lambda: [Note(name="one", facts={"value": value})])
    if status != "running":
        run.finish(status)
    return path


def write_images(path: Path) -> Path:
    for name in ("train/cat/1.png", "train/dog/2.png", "labels.csv"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(name.encode())
    return path


WRITERS: dict[str, Callable[[Path], Path]] = {
    "model": write_model,
    "run": write_run,
    "folder": write_images,
}


@pytest.fixture(scope="module", params=[f"{kind} {form}" for kind in WRITERS for form in FORMS])
def signed(
    request: pytest.FixtureRequest, key: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    kind, form = request.param.split()
    path = WRITERS[kind](tmp_path_factory.mktemp("signed") / "it")
    sign_subject(path, form=form)
    return path


@contextmanager
def changed(path: Path, content: bytes) -> Iterator[None]:
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)


def verdicts(path: Path, key: Path | None = None) -> dict[str, str]:
    return {part.name: part.verdict for part in verify_signed(path, key)[0].parts}


def test_what_was_signed_names_who_since_when_and_what_is_not_covered(signed, key):
    found = verify_subject(find_subject(signed), key)
    assert [part.verdict for part in found.parts] == ["pass", "pass"]
    assert found.statement is not None and found.statement.key == public_key(key).keyid
    assert found.statement.signer and found.statement.signed_at.startswith("20")
    assert len(found.not_covered) >= 3


@given(data=st.data())
def test_any_changed_byte_is_caught(signed, data):
    subject = find_subject(signed)
    files = [*(subject.root / name for name in subject.files), subject.signature]
    file = data.draw(st.sampled_from(files))
    content = bytearray(file.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    with changed(file, bytes(content)):
        assert "fail" in verdicts(signed).values()


@given(data=st.data())
def test_a_cut_or_lengthened_file_is_caught(signed, data):
    subject = find_subject(signed)
    files = [*(subject.root / name for name in subject.files), subject.signature]
    file = data.draw(st.sampled_from(files))
    content = file.read_bytes()
    cut = content[: data.draw(st.integers(0, len(content) - 1))]
    with changed(file, data.draw(st.sampled_from([cut, content + b"\n", content + content]))):
        assert "fail" in verdicts(signed).values()


@pytest.mark.parametrize(
    "respell",
    [
        lambda text: json.dumps(json.loads(text), indent=1),
        lambda text: json.dumps(json.loads(text))[::1],
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.rstrip("\n"),
        lambda text: "\ufeff" + text,
        lambda text: text.replace("a", "\\u0061", 1),
        lambda text: text.replace('{"', '{"payload":"","', 1),
    ],
    ids=["indented", "spaced", "crlf", "no end of line", "a mark", "escaped", "a key twice"],
)
def test_a_signature_has_one_spelling(signed, respell):
    file = find_subject(signed).signature
    with changed(file, respell(file.read_text("utf-8")).encode()):
        assert verdicts(signed)["signature"] == "fail"


def test_two_signed_files_are_not_exchanged_unseen(signed):
    subject = find_subject(signed)
    one, other = (subject.root / name for name in subject.files[:2])
    content = one.read_bytes()
    with changed(one, other.read_bytes()), changed(other, content):
        assert "fail" in verdicts(signed).values()
    assert verdicts(signed)["signed"] == "pass"


def test_a_file_is_not_replaced_by_a_link_or_a_folder_unseen(signed, tmp_path):
    subject = find_subject(signed)
    file = subject.root / subject.files[0]
    kept = file.rename(tmp_path / "kept")
    file.mkdir()
    assert "fail" in verdicts(signed).values()
    file.rmdir()
    file.symlink_to(kept)
    if subject.kind != "model":
        assert verdicts(signed)["signed"] == "fail"
    kept.write_bytes(kept.read_bytes() + b" ")
    assert "fail" in verdicts(signed).values()
    kept.write_bytes(kept.read_bytes()[:-1])
    file.unlink()
    kept.rename(file)


@pytest.mark.parametrize("form", FORMS)
def test_neither_the_signature_nor_the_files_of_an_older_run_pass_for_the_new_ones(
    tmp_path, key, form
):
    older, newer = write_run(tmp_path / "older"), write_run(tmp_path / "newer", value=2)
    for run in (older, newer):
        sign_subject(run, form=form)
    with changed(newer / "run.sig", (older / "run.sig").read_bytes()):
        found = verify_subject(find_subject(newer), key)
        assert "records.jsonl was changed" in found.parts[1].message
    with changed(newer / "records.jsonl", (older / "records.jsonl").read_bytes()):
        assert verify_subject(find_subject(newer), key).parts[1].verdict == "fail"


def test_a_file_that_is_lost_or_added_is_caught(signed, key):
    subject = find_subject(signed)
    lost = subject.root / subject.files[0]
    kept = lost.rename(lost.with_suffix(".kept"))
    assert "is missing" in verify_subject(find_subject(signed), key).parts[1].message
    kept.rename(lost)
    if subject.kind != "model":  # other files in its folder are none of its business
        added = subject.root / "added"
        added.symlink_to(lost)
        assert verdicts(signed)["signed"] == "fail"
        added.unlink()
        added.write_bytes(b"")
        assert verdicts(signed)["signed"] == "fail"
        added.unlink()
    assert verdicts(signed)["signed"] == "pass"


def test_somebody_elses_signature_is_not_taken_for_the_one_that_is_asked_for(signed, key, tmp_path):
    make_key(tmp_path / "other")
    own = find_subject(signed).signature.read_bytes()
    sign_subject(signed, tmp_path / "other")
    assert verdicts(signed)["signature"] == "unknown"
    assert verdicts(signed, key)["signature"] == "fail"
    assert verdicts(signed, tmp_path / "other.pub")["signature"] == "pass"
    find_subject(signed).signature.write_bytes(own)


def test_what_nobody_signed_is_not_green(tmp_path, key):
    model = write_model(tmp_path / "model")
    assert verdicts(model) == {"card": "pass", "signature": "unknown"}
    assert verdicts(model, key)["signature"] == "fail"


def test_a_run_that_is_written_anew_is_not_the_one_that_was_signed(tmp_path, key):
    run = write_run(tmp_path / "run")
    sign_subject(run)
    lines = Ledger(run / "records.jsonl").read()
    (run / "records.jsonl").unlink()
    lines[0]["facts"] = {"value": 2}
    Ledger(run / "records.jsonl").append(lines)
    assert "records.jsonl was changed" in verify_subject(find_subject(run), key).parts[1].message


@pytest.mark.parametrize(
    ("status", "told"), [("running", "has not ended"), ("stopped", "was stopped before its end")]
)
def test_a_run_that_has_not_ended_is_not_signed(tmp_path, key, status, told):
    run = write_run(tmp_path / "run", status=status)
    with pytest.raises(Refused, match=told):
        sign_subject(run)


def test_a_run_that_is_not_as_it_was_left_is_not_signed(tmp_path, key):
    run = write_run(tmp_path / "run")
    (run / "records.jsonl").write_bytes((run / "records.jsonl").read_bytes()[:-40])
    with pytest.raises(Refused, match="is not signed: chain"):
        sign_subject(run)
    assert not (run / "run.sig").exists()


def test_a_model_that_is_not_that_of_its_card_is_not_signed(tmp_path, key):
    model = write_model(tmp_path)
    model.with_suffix(".onnx").write_bytes(b"other")
    with pytest.raises(Refused, match="is not the file of its card"):
        sign_subject(model)
    assert not model.with_suffix(".sig").exists()


def test_neither_a_link_nor_a_key_is_signed(tmp_path, key):
    folder = write_images(tmp_path / "images")
    make_key(folder / "k.key")
    with pytest.raises(UsageError, match="is among the files to sign"):
        sign_subject(folder, folder / "k.key")
    (folder / "link").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="'link' is no plain file"):
        sign_subject(folder)


def test_a_model_is_required_to_be_signed_by_that_key_as_it_was_read(tmp_path, key):
    model, pinned = write_model(tmp_path), public_key(key)
    with pytest.raises(Refused, match=r"no m\.sig lies beside it; sign it: purple sign"):
        require_signature(find_stored(str(model)), pinned)
    make_key(tmp_path / "other")
    sign_subject(model, tmp_path / "other")
    with pytest.raises(Refused, match="it is signed by the key"):
        require_signature(find_stored(str(model)), pinned)
    sign_subject(model)
    read = find_stored(str(model))
    assert require_signature(read, pinned).name == "m"
    replace(read.card, classes=("1", "0")).write(model.with_suffix(".json"))
    with pytest.raises(Refused, match=r"m\.json is not as it was signed"):
        require_signature(find_stored(str(model)), pinned)
    assert require_signature(read, pinned).name == "m"  # it is the card in memory that counts
    write_model(tmp_path, b"others")
    with pytest.raises(Refused, match=r"m\.safetensors is not as it was signed"):
        require_signature(find_stored(str(model)), pinned)


def test_a_signature_of_a_trusted_key_leads_to_no_file_elsewhere(tmp_path, key):
    from purpleteam.core.signing import Statement, default_key, private_key, sign

    (tmp_path / "it").write_bytes(b"")
    files = {"../it": sha256_file(tmp_path / "it"), str(tmp_path / "it"): "sha256:"}
    content = sign(Statement(files=files, name="it"), private_key(default_key()))
    (tmp_path / "it.sig").write_bytes(content)
    message = verify_subject(find_subject(tmp_path / "it"), key).parts[1].message
    assert message.count("leads elsewhere") == 2 and "it is not signed" in message
