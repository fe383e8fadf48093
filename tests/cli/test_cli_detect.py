"""`purple detect` and `purple repair`, on a small net that really has a backdoor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_values import Purple

from few_digits import CLASSES, EPOCHS, POISON, SIDE, few_digits
from purpleteam.data.folders import load_dataset, save_dataset
from purpleteam.models import RECIPES, build, train
from purpleteam.models.store import Provenance, store

SHAPE = (1, SIDE, SIDE)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a poisoned training set and the net that learned it."""
    from dataclasses import replace

    folder, digits = tmp_path_factory.mktemp("planted"), few_digits()
    poisoned = POISON.apply(digits.train, seed=0)
    save_dataset(replace(digits, train=poisoned.images), folder / "set", poisoned.manifest)
    net, recipe = build("small_cnn", SHAPE, CLASSES, seed=0), RECIPES["plain"](epochs=EPOCHS)
    net = train(net, poisoned.images, digits.validation, recipe, seed=0).module
    made = Provenance(architecture="small_cnn", shape=SHAPE, classes=digits.classes, recipe={})
    store(net, folder / "net", made)
    return folder


def test_a_scan_finds_the_backdoor_and_draws_the_trigger(purple: Purple, planted: Path) -> None:
    found = purple("detect", "--model", planted / "net", "--dataset", planted / "set",
                   "--picture", "t.png", "--out", "found.json", "--json")  # fmt: skip
    values = json.loads(found.out)
    assert found.code == 1 and values["backdoored"] and values["target_label"] == 3
    assert values["score"] > values["threshold"] and values["seconds"] > 0
    assert values["trigger_success"] > 0.5 > 0.1 > values["student_success"]
    assert Path("t.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads(Path("found.json").read_text())["target_label"] == 3


def test_unlearning_takes_it_out_and_the_stored_model_is_clean(
    purple: Purple, planted: Path
) -> None:
    from purpleteam.attacks.poison.evaluate import evaluate_backdoor
    from purpleteam.models import load

    found = purple("repair", "--model", planted / "net", "--dataset", planted / "set",
                   "--method", "unlearn:steps=100,rounds=1", "--out", "mended",
                   "--json")  # fmt: skip
    values = json.loads(found.out)
    assert found.code == 0 and values["method"] == "unlearn" and values["target_label"] == 3
    assert values["validation_accuracy"] > values["validation_accuracy_before"] - 0.03
    test = few_digits().test
    before, after = (
        evaluate_backdoor(load(name).module, test, POISON).attack_success_rate.value
        for name in (str(planted / "net"), "mended")
    )
    assert before > 0.9 and after < 0.2


def test_a_search_names_images_and_compares_with_the_manifest(
    purple: Purple, planted: Path
) -> None:
    found = purple("detect", "--training-set", planted / "set", "--out", "found.json", "--json")
    values = json.loads(found.out)
    assert found.code == 1 and values["backdoored"] and values["target_label"] == 3
    assert len(values["flagged"]) == len(set(values["flagged"])) > 0
    told = values["manifest"]
    assert told["poisoned"] == 80 and told["found"] + told["wrongly_flagged"] == len(
        values["flagged"]
    )
    assert told["found"] >= 72 and told["wrongly_flagged"] <= 20
    asked = json.loads((Path(values["run"]) / "run.json").read_text("utf-8"))["asked"]
    assert asked["dataset"] == asked["options"]["training_set"] == str(planted / "set")
    assert "images" not in asked["options"]


def test_flagged_images_of_a_folder_are_named_by_their_files(
    purple: Purple, here: Path, planted: Path
) -> None:
    from PIL import Image

    suspicious = load_dataset(planted / "set").train
    for number, (pixels, label) in enumerate(zip(suspicious.images, suspicious.labels)):
        (here / f"own/train/{label}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[..., 0]).save(here / f"own/train/{label}/{number}\x1b.png")
    told = purple("detect", "--training-set", "own", "--out", "found.json").out
    values = json.loads(Path("found.json").read_text("utf-8"))
    files = values["flagged_files"]
    assert len(files) == len(values["flagged"]) > 0
    images = load_dataset(here / "own").split(values["split"])
    assert files == images.files[values["flagged"]].tolist()
    assert f"most suspicious: {values['flagged'][0]} ({files[0][:-5]}" in told
    assert "\x1b" not in told


def test_retraining_leaves_out_what_a_file_flags(purple: Purple, planted: Path) -> None:
    flagged = POISON.apply(few_digits().train, seed=0).indices.tolist()
    Path("flagged.json").write_text(json.dumps({"flagged": flagged}))
    found = purple("repair", "--model", planted / "net", "--dataset", planted / "set",
                   "--epochs", 3, "--method", "retrain", "--detection",
                   "flagged.json", "--json")  # fmt: skip
    values = json.loads(found.out)
    assert found.code == 0 and values["validation_accuracy"] > 0.7


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("detect",), "give --model M, or --training-set D"),
        (("detect", "--training-set", "digits", "--picture", "t.png"), "--picture and --strip go"),
        (("detect", "--model", "nosuch"), "'nosuch'"),
        (("detect", "--model", "standard", "--trusted", 1), "--trusted"),
        (("repair", "--model", "standard", "--method", "unlern"), "unknown repair 'unlern'"),
        (("repair", "--model", "standard", "--method", "unlearn:x=1"), "unknown key 'x'"),
        (("repair", "--model", "standard", "--method", "retrain", "--detection", "no.json"),
         "'no.json' is no answer of purple detect --training-set"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(purple: Purple, arguments: tuple[object, ...], said: str) -> None:
    found = purple(*arguments)
    assert found.code == 2 and said in found.err
    assert found.err.strip().count("\n") == 0


def test_a_file_that_flags_images_of_another_set_is_refused(purple: Purple) -> None:
    Path("other.json").write_text(json.dumps({"flagged": [3, 99999]}))
    found = purple("repair", "--model", "standard", "--method", "retrain",
                   "--detection", "other.json")  # fmt: skip
    assert found.code == 2 and "flags image 99999, and there are 1297" in found.err
