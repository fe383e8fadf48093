"""purple privacy on the embedded digits: members, copies, rebuilt images, and their records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from purpleteam import verbs
from purpleteam.core.errors import PurpleError, UsageError
from purpleteam.core.records import Measurement
from purpleteam.core.runfolder import RunFolder
from purpleteam.data.images import Dataset
from purpleteam.data.sources.digits import load_digits
from purpleteam.verbs.privacy import USUAL

DIGITS = load_digits()
FEW = Dataset(
    "few",
    DIGITS.train.part(0, 400),
    DIGITS.validation.part(0, 60),
    DIGITS.test.part(0, 100),
    DIGITS.classes,
)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> str:
    stem = tmp_path_factory.mktemp("models") / "half"
    verbs.train(FEW, arch="small_cnn", recipe="plain", epochs=2, share=0.5, seed=4, out=stem)
    return f"{stem}.safetensors"


def test_attacks_leave_their_records_in_a_run_and_a_page(stored: str, tmp_path: Path) -> None:
    run, asked = tmp_path / "run", ["loss", "rmia", "inversion_gradient:steps=5"]
    found = verbs.privacy(stored, FEW, attack=asked, shadows=2, run=run)
    assert [row.attack.name for row in found.membership] == ["loss", "rmia"]
    verbs.privacy(stored, FEW, attack="extraction_random", queries=30, run=run)
    names = {row.name for row in RunFolder.open(run).records() if isinstance(row, Measurement)}
    assert names == {
        *("membership_auroc", "membership_advantage", "membership_rate"),
        *("copy_agreement", "copy_accuracy", "rebuilt_recognised"),
    }
    page = (run / "report.html").read_text("utf-8")
    assert "Membership inference, half" in page and "Copies from answers" in page
    assert "rebuilt by inversion_gradient:steps=5" in page


def test_members_are_what_the_card_says_was_learned(stored: str) -> None:
    found = verbs.privacy(stored, FEW, attack="loss")
    assert found.members == 200
    half = FEW.train.share(0.5, 4)
    assert found.values["subject"]["training_set"] == half.digest
    assert not any("no card says so" in note for note in found.notes)


def test_what_the_model_learned_is_guessed_aloud_where_no_card_says_it() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).eval()
    found = verbs.privacy(net, FEW, attack=["lira"], shadows=2, epochs=1, arch="small_cnn")
    assert "taken as learned: the training split of few; no card says so" in found.notes
    assert any("shadow models learn by plain" in note for note in found.notes)
    assert found.values["shadow_models"]["arch"] == "small_cnn"


def test_shadow_models_are_trained_as_the_model_was_and_leave_no_file(
    stored: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    told = verbs.privacy(stored, FEW, attack="lira", shadows=2).values["shadow_models"]
    assert (told["arch"], told["recipe"]["name"], told["recipe"]["epochs"]) == (
        *("small_cnn", "plain"),
        2,
    )
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


class LabelsOnly(nn.Module):
    """A model that says a label and nothing else."""

    gives, differentiable = "labels", False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.eye(10)[(x.sum((1, 2, 3)) % 10).long()]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"attack": "nosuch"}, "unknown attack 'nosuch'; known: audit, bavaria"),
        ({"attack": "lira:shift=2"}, "attack lira: unknown key 'shift'"),
        ({"shadows": 5}, "shadow models must be an even number from 2, not 5"),
        (
            {"attack": "label_only", "queries": 10},
            "label_only: it asks 25 questions about each image, so 10",
        ),
    ],
)
def test_what_cannot_work_is_refused_in_a_line(
    stored: str, options: dict[str, Any], why: str
) -> None:
    with pytest.raises(PurpleError, match=why):
        verbs.privacy(stored, FEW, **options)


def test_what_cannot_be_tried_is_refused_by_name_and_else_left_out_aloud() -> None:
    with pytest.raises(UsageError, match="lira: model 'LabelsOnly' gives labels only"):
        verbs.privacy(LabelsOnly(), FEW, attack="lira")
    found = verbs.privacy(LabelsOnly(), FEW, queries=30, arch="small_cnn")
    told = [note.partition(" is not tried: ")[0] for note in found.notes if "not tried" in note]
    assert told == [*USUAL[:6], "inversion_gradient"]
    assert [row.answers for row in found.copies] == ["labels"]


def test_a_set_without_images_that_were_not_learned_is_refused(stored: str) -> None:
    alone = Dataset("alone", FEW.train, FEW.validation, FEW.test.part(0, 0), FEW.classes)
    with pytest.raises(UsageError, match="'alone' has no test images: put images that the model"):
        verbs.privacy("standard", alone, attack="loss")


def test_too_few_images_are_refused(stored: str) -> None:
    tiny = Dataset("tiny", FEW.train, FEW.validation, FEW.test.part(0, 9), FEW.classes)
    with pytest.raises(UsageError, match="membership needs 20 images of each kind, not"):
        verbs.privacy("standard", tiny, attack="loss")


def test_an_audit_is_of_a_private_training_and_of_no_other(stored: str) -> None:
    with pytest.raises(UsageError, match="audit is of a training with differential privacy"):
        verbs.privacy(stored, FEW, attack="audit")
    private = "dp_sgd:epochs=1,batch_size=100"
    asked = {"attack": "audit:canaries=200", "recipe": private, "arch": "small_cnn"}
    found = verbs.privacy(stored, FEW, **asked)
    assert found.audit is not None and found.exit_code == 0
    (record,) = (row for row in found.records if isinstance(row, Measurement))
    assert record.value.low == found.audit.epsilon_lower <= found.audit.epsilon_upper
