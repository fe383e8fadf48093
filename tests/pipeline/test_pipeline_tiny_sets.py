"""Every stage on sets of 2 to 24 classes with 20 to 200 images, and on models good for nothing."""

from __future__ import annotations

import json
import re
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis.strategies as st
import pytest
from hypothesis import Phase, example, given, settings
from tiny_sets import KINDS, TinySet

from purpleteam.attacks.poison.asked import aimed_at
from purpleteam.cli import main
from purpleteam.core.ledger import Ledger
from purpleteam.core.records import CheckResult, Failure, Note, ThreatStatus
from purpleteam.core.runfolder import RunFolder

CONFIG = """
device = "cpu"
architecture = "small_cnn"
[models]
recipe = "plain"
epochs = 1
served = "standard"
redrawn = 3
[evasion]
attacks = ["fgsm", "pgd:steps=2"]
epsilon = 0.1
limit = 30
curve = [0.1]
curve_images = 10
[poison]
attacks = ["badnets"]
epochs = 1
trainings = 1
[certify]
changes = [1]
epsilons = [0.02, 0.1]
seconds = 0.5
limit = 10
[backdoors]
attacks = ["badnets:count=2"]
epochs = 1
repairs = ["retrain", "fine_tune:steps=3"]
plant_again = [1]
[defences]
recipes = ["pgd"]
epochs = 1
options = {{ pgd = {{ steps = 1, validation_images = 10 }} }}
[scan]
paths = ["{folder}/code"]
"""
STAGES = ("models", "attacks", "certify", "defences", "scan", "serve")
"""What one example goes through."""
FOREIGN = re.compile(r"(Error|Exception|Exit|Warning): .* in (a library|.*, line \d+ .*)$")
"""The reason of a failure that nobody foresaw."""

SETS = st.builds(
    TinySet,
    classes=st.sampled_from([2, 3, 10, 24]),
    images=st.integers(20, 200),
    kinds=st.tuples(*[st.sampled_from(KINDS)] * 3),
    side=st.sampled_from([8, 12]),
    channels=st.sampled_from([1, 3]),
)
MODELS = st.sampled_from([None, "right", "wrong", "same"])


def purple_run(
    folder: Path, tiny: TinySet, model: str | None, stages: tuple[str, ...], *more: str
) -> tuple[int, str, str]:
    """Go through the stages by the command line: the exit code, and what was printed where."""
    tiny.write(folder / "set")
    (folder / "code").mkdir(exist_ok=True)
    (folder / "code" / "fine.py").write_text("x = 1\n", "utf-8")
    (folder / "asked.toml").write_text(CONFIG.format(folder=folder.as_posix()), "utf-8")
    asked = ["--config", f"{folder}/asked.toml", "--dataset", f"{folder}/set", *more, "--json"]
    asked += ["--out", f"{folder}/run", "--set", f"stages={json.dumps(['data', *stages])}"]
    if model is not None:
        asked += ["--model", f"tiny_sets:{model}_{tiny.classes}"]
    printed = redirect_stdout(StringIO()), redirect_stderr(StringIO())
    with printed[0] as out, printed[1] as err, pytest.raises(SystemExit) as ended:
        main(["run", *asked])
    return int(ended.value.code or 0), out.getvalue(), err.getvalue()


def look_at(folder: Path, stages: tuple[str, ...], code: int, out: str, err: str) -> list[Failure]:
    """See that a run ended as it should, whatever failed in it; return what did."""
    assert "Traceback" not in err
    ledger, page = (folder / "records.jsonl"), (folder / "report.md").read_text("utf-8")
    closed = {one["facts"]["stage"] for one in Ledger(ledger).read() if one.get("name") == "cell"}
    assert closed >= {"data", *stages}
    failures = [one for one in RunFolder.open(folder).records() if isinstance(one, Failure)]
    for one in failures:
        assert "\n" not in one.reason and not FOREIGN.search(one.reason), one
        assert f"{one.stage}: {one.what}" in page.replace("\\", "")
    assert [one["what"] for one in json.loads(out)["failures"]] == [one.what for one in failures]
    assert code == (2 if failures else 0)
    assert RunFolder.open(folder).info["status"] == ("incomplete" if failures else "finished")
    return failures


@given(tiny=SETS, model=MODELS)
@example(tiny=TinySet(2, 20, ("a rare last", "one", "one")), model="wrong")
@example(tiny=TinySet(24, 30, ("without the last", "one", "a rare last")), model=None)
@example(tiny=TinySet(3, 40, ("none", "all", "all"), channels=3), model="right")
@example(tiny=TinySet(2, 20, ("one", "all", "all")), model=None)
@settings(max_examples=1, phases=[Phase.explicit, Phase.reuse, Phase.generate])
def test_every_stage_ends_in_records_or_in_a_plain_reason(tiny: TinySet, model: str | None) -> None:
    with TemporaryDirectory() as name:
        code, out, err = purple_run(Path(name), tiny, model, STAGES)
        if model is None and not tiny.teaches:
            assert (code, err.count("\n")) == (2, 1) and "training images" in err
            assert not (Path(name) / "run").exists()
            return
        look_at(Path(name) / "run", STAGES, code, out, err)


def test_the_threats_are_judged_of_a_set_that_teaches_nothing(tmp_path: Path) -> None:
    tiny = TinySet(3, 40, ("none", "all", "one"), channels=3)
    ended = purple_run(tmp_path, tiny, "right", ("threats",))
    assert look_at(tmp_path / "run", ("threats",), *ended) == []
    found = RunFolder.open(tmp_path / "run").records()
    checks = {one.check: one for one in found if isinstance(one, CheckResult)}
    assert {one.verdict for one in checks.values()} <= {"pass", "fail", "skipped"}
    assert checks["data.digest"].verdict == "pass"
    assert checks["data.schema"].message == "no training image of class class 0, class 1, class 2"
    assert checks["model.format"].message == "needs model"
    assert not [name for name in checks if name.startswith("web.")]  # there is no app


def test_the_threats_are_those_of_the_model_that_was_brought(tmp_path: Path) -> None:
    tiny = TinySet(3, 60, ("all", "all", "all"), channels=3)
    ended = purple_run(tmp_path, tiny, "right", ("models", "threats"))
    assert look_at(tmp_path / "run", ("models", "threats"), *ended) == []
    records = RunFolder.open(tmp_path / "run").records()
    (note,) = [one for one in records if isinstance(one, Note) and one.name == "system-model"]
    assert note.facts["name"] == "tiny_sets:right_3 on tiny"
    parts = {part["id"] for part in (*note.facts["elements"], *note.facts["flows"])}
    assert {"weights", "supplier", "dataset"} <= parts and not {"app", "trainer"} & parts
    threats = {one.threat: one for one in records if isinstance(one, ThreatStatus)}
    of_ours = re.compile(r"mnist|digit|draw|course|app\b", re.IGNORECASE)
    said = [note.facts, *((one.title, dict(one.mitigations)) for one in threats.values())]
    assert not of_ours.findall(json.dumps(said))
    proved = {name for one in threats.values() for name, facts in one.mitigations.items()
              if facts["status"] == "verified"}  # fmt: skip
    of_run = {f"M-{name}" for name in ("DATA-SCHEMA", "DATA-UNCHANGED", "LEDGER", "LINEAGE",
                                       "NO-SECRETS", "RECORD-HYGIENE")}  # fmt: skip
    of_machine = {"M-DATA-STORAGE", "M-RUN-STORAGE", "M-VERSION-CONTROL"}  # who can write, and git
    assert of_run <= proved <= of_run | of_machine
    digests = threats["T-DATASET-T1"].mitigations["M-DATA-DIGEST"]
    assert digests["checks"] == {"data.digest": "pass"} and digests["status"] == "unverified"


def test_black_digits_are_drawn_and_not_read(tmp_path: Path) -> None:
    tiny = TinySet(10, 20, ("all", "all", "all"), side=28, blank=True)
    stages = ("models", "serve")
    assert look_at(tmp_path / "run", stages, *purple_run(tmp_path, tiny, "wrong", stages)) == []
    found = RunFolder.open(tmp_path / "run").records()
    served = [one for one in found if isinstance(one, Note) and one.name == "served"]
    assert served[0].facts["unread"] > 0


def test_an_app_that_is_not_installed_is_listed_as_not_tested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    for part in ("server", "wire"):  # another test may have imported them with it
        monkeypatch.delitem(sys.modules, f"purpleteam.serve.{part}", raising=False)
    tiny = TinySet(10, 20, ("all", "all", "all"), side=28)
    assert purple_run(tmp_path, tiny, "same", ("models", "serve"))[0] == 0
    page = (tmp_path / "run" / "report.md").read_text("utf-8").split("## What was not tested")[1]
    assert "The app" in page and "uvicorn with httptools" in page


def test_what_does_not_fit_the_images_is_listed_as_not_tested(tmp_path: Path) -> None:
    tiny = TinySet(3, 20, ("all", "all", "all"))
    assert purple_run(tmp_path, tiny, "same", ("models", "serve"))[0] == 0
    page = (tmp_path / "run" / "report.md").read_text("utf-8").split("## What was not tested")[1]
    assert "The served model on these images" in page and "The app on these images" in page
    assert "dataset 'tiny' has 3 classes of 8x8x1" in page


def test_a_model_that_answers_with_no_number_is_refused_before_the_work(tmp_path: Path) -> None:
    tiny = TinySet(2, 20, ("all", "all", "all"))
    code, _, err = purple_run(tmp_path, tiny, "nan", ("models",))
    assert (code, err.count("\n")) == (2, 1) and "NaN" in err and not (tmp_path / "run").exists()


def test_a_poison_that_nothing_can_show_is_refused_before_a_training(tmp_path: Path) -> None:
    tiny = TinySet(2, 60, ("all", "all", "one"))
    only = tiny.made().test.labels[0]
    attacks = f'backdoors.attacks=["badnets:count=2,target_label={only}"]'
    more = ("--set", attacks, "--set", "defences.recipes=[]", "--set", "backdoors.own=false")
    ended = purple_run(tmp_path, tiny, "right", ("defences",), *more)
    (failure,) = look_at(tmp_path / "run", ("defences",), *ended)
    assert f"all 12 test images are of the target label {only}: nothing shows" in failure.reason
    assert [one.stem for one in (tmp_path / "run/models").glob("*.json")] == ["backdoors-clean-0"]


@given(tiny=SETS, label=st.integers(0, 60))
@settings(max_examples=50)
def test_what_is_aimed_at_has_images_and_leaves_some_to_change(tiny: TinySet, label: int) -> None:
    made = tiny.made()
    found = aimed_at(label, made)
    if tiny.teaches:
        assert found in made.train.labels and (made.train.labels != found).any()
        assert (made.test.labels != found).any()
        assert found == label or label not in made.train.labels or (made.test.labels == label).all()
