"""The input and the order of classes of a brought net belong to the model, for every verb."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_shapes import write_own
from cli_values import Ended, Purple

from purpleteam.cli import main
from purpleteam.models import load

NET = '''
"""The net of shapes_net, which wants the input and has the order of outputs of another pipeline."""
import torch
from shapes_net import Net

MEAN, STD = torch.tensor([0.4, 0.5, 0.3]), torch.tensor([0.2, 0.25, 0.3])


class Own(Net):
    def __init__(self):
        super().__init__(4)

    def forward(self, x):
        return super().forward(x * STD.view(-1, 1, 1) + MEAN.view(-1, 1, 1))


class Turned(Net):
    def __init__(self):
        super().__init__(4)

    def forward(self, x):
        return super().forward(x)[:, [3, 0, 2, 1]]
'''
WANTS = "mean=0.4/0.5/0.3,std=0.2/0.25/0.3"
DATA = ("--dataset", "shapes", "--json")
FEW = ("--checked", 10)
OTHER = ("--dataset", "../shapes", "--json")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that is imported below, made once: each export takes seconds."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        forget(patch)
        patch.chdir(folder)
        (folder / "own_net.py").write_text(NET, "utf-8")
        (folder / "elsewhere").mkdir()
        write_own(folder)
        imported = ("import", "four.safetensors", *DATA, "--arch")
        for more in (
            ("own_net:Own", "--out", "in/net", "--normalise", WANTS),
            ("shapes_net:four", "--out", "in/imagenet", "--normalise", "imagenet"),
            ("shapes_net:four", "--out", "in/plain"),
            ("own_net:Turned", "--out", "in/turned", "--classes", "star,disc,ring,line"),
        ):
            with pytest.raises(SystemExit) as ended:
                main([*imported, *more])
            assert not ended.value.code
    return folder


def forget(patch: pytest.MonkeyPatch) -> None:
    """Begin as a process of its own does, in which no code of the user's was called."""
    for name in ("shapes_net", "own_net"):
        patch.delitem(sys.modules, name, raising=False)
    patch.setattr(sys, "path", [*sys.path])
    patch.setattr("purpleteam.core.factory._CALLED", {})


@pytest.fixture
def own(made: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it as the current folder."""
    forget(monkeypatch)
    shutil.copytree(made, here, dirs_exist_ok=True)
    return here


def accuracy(ended: Ended) -> float:
    assert (ended.code, ended.err) == (0, "")
    return float(ended.json["clean_accuracy"]["value"])


def plain(purple: Purple) -> float:
    asked = ("--model", "shapes_net:four", "--weights", "four.safetensors")
    return accuracy(purple("evaluate", *asked, *DATA))


def test_what_was_imported_is_read_from_the_card_by_every_verb(purple: Purple, own: Path) -> None:
    card = json.loads(Path("in/net.json").read_text("utf-8"))
    assert (
        card["normalisation"]["mean"] == [0.4, 0.5, 0.3] and card["architecture"] == "own_net:Own"
    )
    model = ("--model", "in/net")
    found = purple("evaluate", *model, *DATA)
    assert accuracy(found) == plain(purple) > 0.9
    assert found.json["subject"]["normalisation"] == {
        "mean": [0.4, 0.5, 0.3],
        "std": [0.2, 0.25, 0.3],
    }
    attacked = purple("attack", *model, "--attack", "fgsm", "--epsilon", 0.01, *FEW, *DATA)
    assert accuracy(attacked) == accuracy(found)
    assert accuracy(purple("evaluate", "--model", "in/net.onnx", *DATA)) == accuracy(found)
    assert purple("export", *model, "--out", "out/copy", "--json").code == 0
    assert accuracy(purple("evaluate", "--model", "out/copy", *DATA)) == accuracy(found)
    repaired = purple("repair", *model, "--method", "fine_tune:steps=5", "--out", "r/net", *DATA)
    assert (repaired.code, repaired.json["validation_accuracy_before"] > 0.9) == (0, True)
    assert accuracy(purple("evaluate", "--model", "r/net", *DATA)) > 0.9


def test_the_file_that_is_served_wants_images_in_0_1(purple: Purple, own: Path) -> None:
    from onnxruntime import InferenceSession

    session = InferenceSession(Path("in/net.onnx").read_bytes())
    x = np.random.default_rng(0).random((5, 3, 16, 16), np.float32)
    (served,) = session.run(None, {"images": x})
    net = load("shapes_net:four", weights=Path("four.safetensors")).module
    np.testing.assert_allclose(served, net(torch.from_numpy(x)).detach().numpy(), atol=1e-3)


def test_the_same_weights_behind_another_input_are_another_model(purple: Purple, own: Path) -> None:
    cards = [json.loads(Path(f"in/{one}.json").read_text()) for one in ("net", "imagenet", "plain")]
    assert len({card["digest"] for card in cards}) == 3
    assert len({card["parent"] for card in cards}) == 1


def test_card_and_command_may_not_say_two_things(purple: Purple, own: Path) -> None:
    for model in ("in/net", "in/net.onnx"):
        ended = purple("evaluate", "--model", model, "--normalise", "signed", *DATA[:2])
        assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
        assert "the card of 'net' says normalisation" in ended.err and "signed" in ended.err
        same = purple("evaluate", "--model", model, "--normalise", WANTS, *DATA)
        assert accuracy(same) > 0.9


def test_a_card_that_was_edited_is_refused(purple: Purple, own: Path) -> None:
    card: dict[str, Any] = json.loads(Path("in/net.json").read_text("utf-8"))
    for other in (None, {**card["normalisation"], "mean": [0.0, 0.0, 0.0]}):
        Path("in/net.json").write_text(json.dumps({**card, "normalisation": other}))
        ended = purple("evaluate", "--model", "in/net", *DATA[:2])
        assert ended.code == 1 and "names another normalisation than its weights" in ended.err
    Path("in/net.json").write_text(json.dumps({**card, "normalisation": {"mean": "x"}}))
    ended = purple("evaluate", "--model", "in/net", *DATA[:2])
    assert (ended.code, ended.err.count("\n")) == (2, 1) and "is none" in ended.err


def test_the_remedy_that_is_named_makes_the_numbers_right(purple: Purple, own: Path) -> None:
    asked = ("--model", "own_net:Turned", "--weights", "four.safetensors")
    wrong = purple("evaluate", *asked, *DATA)
    (note,) = wrong.json["notes"]
    assert "--classes star,disc,ring,line:" in note and accuracy(wrong) < 0.5
    named = ("--classes", "star,disc,ring,line")
    right = purple("evaluate", *asked, *named, *DATA)
    assert accuracy(right) == plain(purple)
    assert right.json["notes"] == ["its outputs are, in this order: star, disc, ring, line"]
    Path("names.txt").write_text("star\ndisc\nring\nline\n", "utf-8")
    attacked = purple("attack", *asked, "--classes", "names.txt", "--attack", "fgsm", *FEW, *DATA)
    assert accuracy(attacked) == accuracy(right)


def test_an_order_that_was_imported_is_read_from_the_card(purple: Purple, own: Path) -> None:
    for model in ("in/turned", "in/turned.onnx"):
        assert accuracy(purple("evaluate", "--model", model, *DATA)) == plain(purple)
    repaired = purple(
        "repair", "--model", "in/turned", "--method", "fine_tune:steps=5", "--out", "r/net", *DATA
    )
    assert repaired.code == 0
    assert accuracy(purple("evaluate", "--model", "r/net", *DATA)) > 0.9


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("disc,line,ring,star,moon", "scores 4 classes, not the 5 named"),
        ("disc,line,ring,moon", "class 'star' of dataset 'shapes' is not among the model's"),
        ("disc,line,ring,disc", "names 'disc' more than once"),
        ("disc", "a,b,c or a file"),
        ("disc,,ring", "a,b,c or a file"),
    ],
)
def test_names_that_cannot_be_meant_are_one_line(
    purple: Purple, own: Path, text: str, named: str
) -> None:
    asked = ("--model", "shapes_net:four", "--weights", "four.safetensors", "--classes", text)
    ended = purple("evaluate", *asked, *DATA[:2])
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert named in ended.err


def test_a_model_of_more_classes_is_taken_where_they_are_named(purple: Purple, own: Path) -> None:
    (own / "wide_net.py").write_text(
        "import torch\nfrom shapes_net import Net\n\nclass Wide(Net):\n"
        "    def __init__(self):\n        super().__init__(4)\n\n"
        "    def forward(self, x):\n        y = super().forward(x)\n"
        "        return torch.cat([y[:, :2] * 0 + 9, y.flip(1)], 1)\n",
        "utf-8",
    )
    asked = ("--model", "wide_net:Wide", "--weights", "four.safetensors")
    ended = purple("evaluate", *asked, *DATA[:2])
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "scores 6 classes" in ended.err and "--classes" in ended.err
    named = purple("evaluate", *asked, "--classes", "cat,dog,star,ring,line,disc", *DATA)
    assert accuracy(named) == plain(purple)


def test_a_stored_model_of_own_code_works_from_any_folder(
    purple: Purple, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = plain(purple)
    monkeypatch.chdir(own / "elsewhere")
    forget(monkeypatch)
    model = ("--model", "../in/net")
    refused = purple("evaluate", *model, *OTHER[:2])
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert "add: --arch PATH/TO/own_net.py:Own" in refused.err
    given = ("--arch", "../own_net.py:Own")
    assert accuracy(purple("evaluate", *model, *given, *OTHER)) == before
    assert purple("attack", *model, *given, "--attack", "fgsm", *FEW, *OTHER).code == 0
    assert purple("export", *model, *given, "--out", "copy", "--json").code == 0
    assert accuracy(purple("evaluate", "--model", "copy", *given, *OTHER)) == before
