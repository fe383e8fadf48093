"""`purple keygen`, `sign` and `verify`, as they are typed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cli_values import Purple

from purpleteam.core.cards import ZOO, find_stored
from purpleteam.core.records import Note
from purpleteam.core.runfolder import RunFolder
from purpleteam.report import render


@pytest.fixture
def home(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(here / "home"))
    return here / "home" / "purpleteam"


def write_run(path: Path) -> Path:
    run = RunFolder.create(path, {"dataset": "digits", "seed": 0})
    run.cell("data", {}, lambda: [Note(name="dataset", facts={"digest": "sha256:1"})])
    run.finish("finished")
    render(path)
    return path


def test_a_signed_run_says_by_whom_and_an_edited_page_shows(purple: Purple, home: Path) -> None:
    run = write_run(Path("runs/one"))
    assert purple("keygen").code == 0
    assert purple("sign", run, "--by", "Ada").code == 0
    ended = purple("verify", run, "--json")
    assert (ended.code, ended.json["verdict"]) == (0, "pass")
    assert ended.json["signed"]["signer"] == "Ada" and ended.json["signed"]["signed_at"]
    assert ended.json["not_covered"] and "vouched for these very bytes" in ended.json["proves"]
    assert purple("report", run).code == 0 and purple("verify", run).code == 0
    (run / "report.md").write_text("better", "utf-8")
    ended = purple("verify", run, "--key", home / "signing.pub")
    assert ended.code == 1 and "report.md was changed" in ended.out


def test_a_stranger_sees_that_it_is_whole_and_asks_whose_key_it_is(
    purple: Purple, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(Path("runs/one"))
    purple("keygen")
    purple("sign", run)
    monkeypatch.setenv("XDG_CONFIG_HOME", "nowhere")
    ended = purple("verify", run)
    assert ended.code == 2 and "whose key that is" in ended.out
    assert purple("verify", run, "--key", home / "signing.pub").code == 0
    (run / "run.sig").unlink()
    ended = purple("verify", run, "--key", home / "signing.pub")
    assert ended.code == 1 and "nobody signed it" in ended.out


def test_errors_are_one_line_that_says_what_to_do(purple: Purple, home: Path) -> None:
    shutil.copytree(write_run(Path("run")), "copy")
    for arguments, told in (
        (("sign", "run"), "make one: purple keygen"),
        (("sign", "nothing"), f"is no run, folder, file, or a model: {', '.join(sorted(ZOO))}"),
        (("verify", "nothing"), f"is no run, folder, file, or a model: {', '.join(sorted(ZOO))}"),
        (("keygen", "--kind", "rsa"), "known: ed25519, p256"),
        (("keygen", "--out", "copy/k"), "would travel with it"),
        (("sign", "run", "--form", "x", "--key", "k"), "no such file"),
        (("verify", "standard", "--replay", "1"), "is none"),
    ):
        ended = purple(*arguments)
        assert ended.code == 2 and told in ended.err and ended.err.count("\n") == 1, arguments


def test_the_app_starts_with_no_model_that_another_key_signed(purple: Purple, home: Path) -> None:
    pytest.importorskip("starlette")
    for end in (".json", ".onnx", ".safetensors"):
        shutil.copy(find_stored("standard").stem.with_suffix(end), f"m{end}")
    purple("keygen")
    purple("keygen", "--out", "other.key")
    required = ("serve", "--model", "m", "--port", 0, "--require-signature", home / "signing.pub")
    assert purple(*required).code == 1
    purple("sign", "m", "--key", "other.key")
    ended = purple(*required)
    assert ended.code == 1 and "is signed by the key" in ended.err


def test_threats_count_a_signature_by_the_key_that_is_named(purple: Purple, home: Path) -> None:
    run = write_run(Path("run"))
    Path("empty.py").write_text("", "utf-8")
    purple("keygen")
    purple("sign", run)
    asked = ("threats", "--run", run, "--code", "empty.py", "--json")
    checks = purple(*asked, "--signer", home / "signing.pub").json["checks"]
    assert [one["verdict"] for one in checks if one["check"] == "run.signature"] == ["pass"]


def test_a_bill_of_materials_is_written_and_signed(purple: Purple, home: Path) -> None:
    assert purple("bom", "standard", "--out", "it.bom.json").code == 0
    assert purple("bom", "standard", "--json").json["bomFormat"] == "CycloneDX"
    purple("keygen")
    assert purple("sign", "it.bom.json").code == purple("verify", "it.bom.json").code == 0
    Path("it.bom.json").write_text("{}", "utf-8")
    assert purple("verify", "it.bom.json").code == 1
    assert purple("bom", "standard", "--run", "nowhere").err.count("is not a run folder") == 1
