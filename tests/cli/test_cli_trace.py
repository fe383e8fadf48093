"""`purple trace`: from an answer of the app back to its model, run, data, code and signer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cli_values import Purple

from purpleteam.core.cards import ModelCard, find_stored
from purpleteam.core.digest import sha256_file
from purpleteam.core.records import Note, Record
from purpleteam.core.runfolder import RunFolder
from purpleteam.report import render

RUN, LOG, DATA = Path("runs/one"), Path("audit.jsonl"), f"sha256:{'d' * 64}"
CODE = {"digest": "sha256:c", "commit": "c" * 40, "changed": [], "differ": 0}


@pytest.fixture
def answered(here: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of an answer in a signed log, by a model of a run that is signed by one's own key."""
    from purpleteam.core.provenance import sign_subject
    from purpleteam.core.signing import default_key, make_key
    from purpleteam.serve.audit.log import AuditLog, encoded

    monkeypatch.setenv("XDG_CONFIG_HOME", str(here / "home"))
    run = RunFolder.create(RUN, {"dataset": "digits", "seed": 0})
    run._write({**run.info, "code": [CODE]})

    def trained() -> list[Record]:
        stem = RUN / "models" / "m"
        for end in (".safetensors", ".onnx"):
            stem.with_suffix(end).write_bytes(end.encode())
        ModelCard(
            name="m",
            digest=sha256_file(stem.with_suffix(".safetensors")),
            onnx_digest=sha256_file(stem.with_suffix(".onnx")),
            architecture="linear",
            input={"channels": 1, "height": 2, "width": 2, "range": [0, 1]},
            classes=("0", "1"),
            data_digest=DATA,
        ).write(stem.with_suffix(".json"))
        note = Note(name="dataset", facts={"splits": {"train": {"n": 9, "digest": DATA}}})
        files = sorted((RUN / "models").iterdir())
        return [note, *(run.artefact(file, note.id) for file in files)]

    run.cell("models", {}, trained)
    run.finish("finished")
    render(RUN)
    make_key(default_key())
    sign_subject(RUN)
    log, identity = AuditLog(LOG), find_stored(str(RUN / "models" / "m")).card.identity
    log.write(encoded({"kind": "predict", "id": "a1b2", "label": 7, "model": identity[7:23]}))
    log.close()
    return "a1b2"


def test_an_answer_leads_to_model_run_data_commit_and_signer(purple: Purple, answered: str) -> None:
    ended = purple("trace", answered, "--log", LOG, "--run", RUN, "--json")
    assert (ended.code, ended.json["verdict"]) == (0, "pass")
    told = {part["name"]: part["message"] for part in ended.json["parts"]}
    assert list(told) == ["answer", "model", "run", "data", "code", "signature", "signed"]
    assert re.search(r": label 7, at 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\+00:00, model", told["answer"])
    assert "as it was left" in told["run"]
    assert told["data"] == f"images and labels {DATA}, 9 of the run's training split"
    assert told["code"] == f"commit {'c' * 40}, unchanged" and "by the key" in told["signature"]
    identity = find_stored(str(RUN / "models" / "m")).card.identity
    assert purple("trace", identity, "--run", RUN).code == 0


def test_each_broken_step_is_named(purple: Purple, answered: str) -> None:
    def failing() -> set[str]:
        ended = purple("trace", answered, "--log", LOG, "--run", RUN, "--json")
        assert ended.code == 1
        return {part["name"] for part in ended.json["parts"] if part["verdict"] == "fail"}

    for file, wrong in (
        (RUN / "models" / "m.onnx", {"model", "run", "signed"}),
        (RUN / "report.md", {"signed"}),
        (RUN / "run.sig", {"signature"}),
        (LOG, {"answer"}),
    ):
        before = file.read_bytes()
        file.write_bytes(before.replace(b"7", b"8", 1) if file == LOG else before[:-2] + b"??")
        assert failing() == wrong, file
        file.write_bytes(before)


def test_what_no_record_says_is_unknown_and_a_strange_answer_is_an_error(
    purple: Purple, answered: str
) -> None:
    ended = purple("trace", find_stored("standard").card.identity, "--run", RUN, "--json")
    verdicts = {part["name"]: part["verdict"] for part in ended.json["parts"]}
    assert (verdicts["run"], verdicts["data"]) == ("fail", "unknown")
    for arguments, told in (
        (("nobody", "--log", LOG, "--run", RUN), "no answer has the id 'nobody'"),
        (("0" * 16, "--run", RUN), "no model with the identity"),
        ((answered, "--log", "none", "--run", RUN), "cannot be read"),
        ((answered, "--run", "nowhere"), "no model with the identity"),
    ):
        ended = purple("trace", *arguments)
        assert ended.code == 2 and told in ended.err and ended.err.count("\n") == 1, arguments


def test_a_model_without_a_card_has_a_bill_with_blanks(purple: Purple, here: Path) -> None:
    Path("mine ü+1.onnx").write_bytes(b"onnx")
    bill = purple("bom", "mine ü+1.onnx", "--json").json
    model = bill["metadata"]["component"]
    assert model["name"] == "mine ü+1.onnx" and model["modelCard"]["modelParameters"] == {
        "task": "image classification"
    }
    assert model["modelCard"]["properties"][0]["value"].startswith("none: what it takes")
    assert bill["components"] == [] and len(model["components"]) == 1
