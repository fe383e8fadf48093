"""Bring your own: a module:factory, its weights and a folder of pictures, through every verb."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from cli_shapes import MODULE, write_own
from cli_values import Purple, assert_rate
from safetensors.torch import save_file

OWN = ("--model", "shapes_net:four", "--weights", "four.safetensors", "--dataset", "shapes")


@pytest.fixture
def own(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder: shapes_net.py, four.safetensors (trained a little), shapes/."""
    import sys

    monkeypatch.delitem(sys.modules, "shapes_net", raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    write_own(here)
    return here


def test_it_is_evaluated_on_its_own_pictures(purple: Purple, own: Path) -> None:
    ended = purple("evaluate", *OWN, "--json")
    assert (ended.code, ended.err) == (0, "")
    assert_rate(ended.json["clean_accuracy"])
    assert ended.json["clean_accuracy"]["value"] > 0.9
    assert len(ended.json["confusion_matrix"]) == 4


def test_it_is_attacked_in_colour(purple: Purple, own: Path) -> None:
    ended = purple("attack", *OWN, "--attack", "pgd:steps=10", "--epsilon", 0.5, "--json")
    assert (ended.code, ended.err) == (0, "")
    found = ended.json
    assert found["robust_accuracy"]["value"] < found["clean_accuracy"]["value"]


def test_it_is_put_before_verifiers_and_their_verdicts_are_read(purple: Purple, own: Path) -> None:
    asked = ("--vnnlib", "asked", "--epsilon", "2/255", "--limit", 3)
    ended = purple("export", *OWN, *asked, "--json")
    assert (ended.code, ended.err, ended.json["properties"]) == (0, "", 3)
    (own / "answers").mkdir()
    (own / "answers" / "00000.txt").write_text("unsat")
    ended = purple("export", "--vnnlib", "asked", "--verdicts", "answers", "--json")
    assert (ended.code, ended.json["verdicts"]) == (0, {"unsat": 1, "missing": 2})
    (own / "answers" / "00001.txt").write_text("sat\n((X_0 2.0))")
    assert purple("export", "--vnnlib", "asked", "--verdicts", "answers").code == 1


def test_it_is_exported_and_the_copy_needs_its_module_and_nothing_else(
    purple: Purple, own: Path
) -> None:
    ended = purple("export", *OWN, "--out", "out/net", "--json")
    assert (ended.code, ended.err) == (0, "")
    before = purple("evaluate", *OWN, "--json").json
    after = purple("evaluate", "--model", "out/net", "--dataset", "shapes", "--json").json
    assert after["confusion_matrix"] == before["confusion_matrix"]


def test_its_architecture_is_trained_hardened_and_poisoned(purple: Purple, own: Path) -> None:
    asked = ("--arch", "shapes_net:four", "--dataset", "shapes", "--epochs", 1, "--json")
    assert purple("train", *asked, "--out", "a").code == 0
    assert purple("harden", *asked, "--recipe", "pgd:steps=1", "--out", "b").code == 0
    ended = purple("poison", *asked, "--train", "--count", 5, "--out", "c")
    assert ended.code == 0 and ended.json["target_label"] == 3
    assert set(ended.json["per_source"]) == {"0", "1", "2"}


@pytest.mark.parametrize("kind", ["float", "half", "bfloat16"])
def test_the_net_that_is_given_as_the_model_is_the_one_that_is_hardened(
    kind: str, purple: Purple, own: Path
) -> None:
    with (own / "shapes_net.py").open("a", encoding="utf-8") as module:
        module.write(f"\n\ndef cast():\n    return of_layers(4).{kind}()\n")
    asked = ("--model", "shapes_net:cast", *OWN[2:], "--epochs", 1, "--json")
    ended = purple("harden", *asked, "--recipe", "ibp", "--epsilon", "2/255", "--out", "b")
    assert (ended.code, ended.err) == (0, "")
    assert json.loads(Path("b.json").read_text("utf-8"))["architecture"] == "shapes_net:cast"


def test_its_own_checkpoint_is_imported(purple: Purple, own: Path) -> None:
    ended = purple(
        *("import", "four.safetensors", "--arch", "shapes_net:four", "--dataset", "shapes"),
        *("--out", "in/net", "--json"),
    )
    assert (ended.code, ended.json["verdict"]) == (0, "accepted")
    assert purple("evaluate", "--model", "in/net", "--dataset", "shapes", "--json").code == 0


@pytest.mark.parametrize(
    ("factory", "named"),
    [
        ("shapes_net:four", "--weights"),
        ("nowhere:four --weights four.safetensors", "'nowhere' cannot be imported"),
        ("shapes_net:five --weights four.safetensors", "has no 'five'"),
        ("shapes_net:number --weights four.safetensors", "int nn.Module"),
        ("shapes_net:wants --weights four.safetensors", "(classes) without arguments"),
        ("shapes_net:fails --weights four.safetensors", "no weights here"),
        ("shapes_net:two --weights four.safetensors", "'head.weight' (4, 392) (2, 392)"),
        ("shapes_net:four --weights missing.safetensors", "'missing.safetensors'"),
        ("broken_net:four --weights four.safetensors", "'broken_net' cannot be imported"),
        ("leaving_net:four --weights four.safetensors", "'leaving_net' cannot be imported"),
    ],
)
def test_what_is_wrong_with_a_factory_is_said_in_a_line(
    purple: Purple, own: Path, factory: str, named: str
) -> None:
    (own / "broken_net.py").write_text("def four(:\n", "utf-8")
    (own / "leaving_net.py").write_text("import sys\nsys.exit(7)\n", "utf-8")
    ended = purple("evaluate", "--model", *factory.split(), "--dataset", "shapes")
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert [word for word in named.split() if word not in ended.err] == []


@pytest.mark.parametrize("verb", ["evaluate", "attack", "export --out out/net"])
def test_a_factory_that_does_not_fit_the_dataset_is_refused(
    purple: Purple, own: Path, verb: str
) -> None:
    ended = purple(*verb.split(), *OWN[:4], "--dataset", "digits")
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1), ended.err
    assert "does not take" in ended.err and "Traceback" not in ended.err


def test_fewer_outputs_than_classes_are_refused(purple: Purple, own: Path) -> None:
    scope: dict[str, object] = {}
    exec(MODULE, scope)  # noqa: S102  our own text above
    save_file(scope["two"]().state_dict(), own / "two.safetensors")  # type: ignore[operator]
    asked = ("--model", "shapes_net:two", "--weights", "two.safetensors", "--dataset", "shapes")
    for verb in ("evaluate", "attack"):
        ended = purple(verb, *asked)
        assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1), ended.err
        assert "2" in ended.err and "4" in ended.err


RUN = """
architecture = "shapes_net:four"
[models]
use = "shapes_net:four"
weights = "four.pt"
[evasion]
attacks = ["fgsm"]
epsilon = 0.1
curve = []
curve_images = 5
[poison]
epochs = 1
count = 5
trainings = 1
recipe = "plain"
[defences]
recipes = ["fast"]
epochs = 1
[scan]
paths = ["shapes_net.py"]
"""


def test_it_gets_a_whole_run_of_its_own(purple: Purple, own: Path) -> None:
    (own / "mine.toml").write_text(RUN, "utf-8")
    state = torch.load(own / "four.pt", weights_only=True)
    torch.save({name: value.half() for name, value in state.items()}, own / "four.pt")
    ended = purple("run", "--config", "mine.toml", "--dataset", "shapes", "--out", "run", "--json")
    assert (ended.code, ended.err) == (0, "")
    page = Path(ended.json["report"]).read_text("utf-8")
    assert "shapes" in page and "hardened-fast" in page
    assert "float16 converted to float32." in page
    records = Path("run/records.jsonl").read_text("utf-8")
    assert '"models/hardened-fast.onnx"' in records and "run/models" not in records
    lines = [json.loads(line) for line in records.splitlines()]
    verdicts = {one["check"]: one["verdict"] for one in lines if "check" in one}
    assert verdicts["data.digest"] == verdicts["data.schema"] == "pass"
    asked = ("threats", "--run", "run", "--code", "shapes_net.py", "--json")
    assert purple(*asked).json["summary"]
