"""Other people's images, from the command line: what is used and said; what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cli_shapes import write_own, write_pictures
from cli_values import Purple

from purpleteam.data.folders import load_dataset

OWN = ("--model", "shapes_net:four", "--weights", "four.safetensors", "--dataset")


@pytest.fixture
def own(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder: shapes_net.py, four.safetensors, shapes/ of 4 x 30 images."""
    import sys

    monkeypatch.delitem(sys.modules, "shapes_net", raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    write_own(here)
    return here


@pytest.mark.parametrize("verb", ["evaluate", "attack --attack fgsm --epsilon 8/255 --checked 10"])
def test_all_images_of_a_folder_without_splits_are_used(
    purple: Purple, own: Path, verb: str
) -> None:
    found = purple(*verb.split(), *OWN, "shapes", "--json").json
    assert found["clean_accuracy"]["n"] == 120 and found["subject"]["split"] == "all"
    assert found["data"]["dealt"] and sum(found["data"]["images"].values()) == 120
    lines = purple(*verb.split(), *OWN, "shapes").out
    told = "note: shapes: 120 images of 4 classes (disc 30, line 30, ring 30, star 30), no splits"
    assert lines.count(told) == 1
    part = purple(*verb.split(), *OWN, "shapes", "--split", "test", "--json").json
    assert part["clean_accuracy"]["n"] == found["data"]["images"]["test"] < 40


def test_what_a_model_was_trained_on_here_does_not_measure_it(purple: Purple, own: Path) -> None:
    asked = ("--arch", "shapes_net:four", "--dataset", "shapes", "--epochs", 1)
    ended = purple("train", *asked, "--recipe", "plain", "--out", "mine")
    assert "no splits: dealt by content into train" in ended.out
    found = purple("evaluate", "--model", "mine", "--dataset", "shapes", "--json").json
    assert found["subject"]["split"] == "test"


def test_a_search_looks_at_all_images_of_a_folder_without_splits(purple: Purple, own: Path) -> None:
    ended = purple("detect", "--training-set", "shapes", "--out", "found.json", "--json")
    found = ended.json
    assert (found["images"], found["data"]["used"], found["split"]) == (120, "all", "all")
    lines = purple("detect", "--training-set", "shapes").out
    assert lines.count("120 images of 4 classes") == lines.count("120 images") == 1
    shapes = load_dataset("shapes")
    flagged = np.flatnonzero(shapes.split("all").labels == 1)[10:].tolist()
    Path("some.json").write_text(json.dumps({"flagged": flagged, "dataset": found["dataset"]}))
    retrain = ("repair", *OWN, "shapes", "--method", "retrain", "--epochs", 1, "--json")
    ended = purple(*retrain, "--detection", "some.json", "--out", "mended")
    first = {one.tobytes() for one in shapes.split("all").take(flagged).images}
    train, held = (
        sum(one.tobytes() in first for one in shapes.split(name).images)
        for name in ("train", "validation")
    )
    told = f"of 20 flagged images, {train} are left out of training and {held} of validation"
    assert ended.code == 0 and told in ended.json["notes"] and train and held
    Path("some.json").write_text(json.dumps({"flagged": flagged, "dataset": "sha256:0"}))
    ended = purple(*retrain, "--detection", "some.json")
    assert ended.code == 2 and "is about other images, sha256:0" in ended.json["error"]["message"]


def test_images_of_two_sizes_are_resized_where_that_is_asked(purple: Purple, own: Path) -> None:
    from PIL import Image

    Image.fromarray(np.zeros((20, 24, 3), np.uint8)).save("shapes/disc/big.png")
    Path("shapes/disc/cut.png").write_bytes(b"no image")
    ended = purple("evaluate", *OWN, "shapes")
    assert ended.code == 2 and "--skip-unreadable" in ended.err
    ended = purple("evaluate", *OWN, "shapes", "--skip-unreadable")
    assert ended.code == 2 and "disc/big.png: 24x20" in ended.err and "--resize 16x16" in ended.err
    ended = purple("evaluate", *OWN, "shapes", "--skip-unreadable", "--resize", 16, "--json")
    assert ended.json["clean_accuracy"]["n"] == 121
    assert [note[:12] for note in ended.json["notes"][:2]] == ["1 of 122 ima", "1 of 122 ima"]


def test_a_set_of_tests_alone_is_attacked_and_trains_nothing(purple: Purple, own: Path) -> None:
    write_pictures(own / "only" / "test", 5)
    found = purple("evaluate", *OWN, "only", "--json").json
    assert found["clean_accuracy"]["n"] == 20 and found["data"]["images"]["train"] == 0
    ended = purple("train", "--arch", "shapes_net:four", "--dataset", "only")
    assert (ended.code, ended.out) == (2, "") and "no training images" in ended.err


def test_verify_says_what_is_in_a_folder(purple: Purple, here: Path) -> None:
    write_pictures(here / "shapes", 3)
    ended = purple("data", "verify", "shapes", "--json")
    found = ended.json
    assert (ended.code, ended.err, found["verified"]) == (0, "", True)
    assert found["splits"][""] == {"disc": 3, "line": 3, "ring": 3, "star": 3}
    assert "sizes: 16x16 12" in purple("data", "verify", "shapes").out
    (here / "shapes" / "disc" / "cut.png").write_bytes(b"")
    ended = purple("data", "verify", "shapes", "--json")
    assert (ended.code, list(ended.json["unreadable"])) == (1, ["disc/cut.png"])
    (here / "bare" / "a").mkdir(parents=True)
    ended = purple("data", "verify", "bare", "--json")
    assert (ended.code, ended.json["verified"]) == (2, False)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("--target-label 0 --count 1 --train", "all 4 test images are of the target label 0"),
        ("--target-label 1 --sources 2 --count 1 --train", "none of the 4 test images is of the"),
        ("--target-label 1 --sources 2 --curve 1", "none of the 4 test images is of the sources"),
        ("--target-label 0 --count 9", "leaves only the target label 0 to learn"),
        ("--target-label 0", "count 100 is more than the 9 images to choose from"),
        ("--target-label 9", "target_label 9 is no label"),
        ("--count 1 --attack badnets:trigger.size=17", "a patch of 17 pixels does not fit 16x16"),
    ],
)
def test_a_poison_that_cannot_be_measured_is_refused_before_training(
    purple: Purple, here: Path, asked: str, told: str
) -> None:
    taught, asked_of = np.array([0, 1, 3] * 4 + [2]), np.zeros(4, int)
    arrays = {"y_train": taught, "y_val": taught, "y_test": asked_of}
    drawn = np.random.default_rng(0).integers(0, 256, (13, 16, 16)).astype(np.uint8)
    arrays |= {f"x{name[1:]}": drawn[: len(labels)] for name, labels in arrays.items()}
    np.savez("set.npz", **arrays)  # type: ignore[arg-type]
    ended = purple("poison", *asked.split(), "--dataset", "set.npz", "--out", "bad")
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert told in ended.err and not Path("bad/manifest.json").exists()


def test_names_of_files_that_are_no_text_are_told_as_escapes(purple: Purple, own: Path) -> None:
    import os

    for end in (b"png", b"txt"):
        Path(os.fsdecode(b"shapes/disc/\xff\x1b[2J." + end)).write_bytes(b"none")
    Path(os.fsdecode(b"shapes/\xfe")).mkdir()
    for more in ((), ("--json",)):
        ended = purple("evaluate", *OWN, "shapes", *more)
        assert ended.code == 2 and r"disc/\udcff\x1b[2J.png: no image" in ended.err
        ended = purple("evaluate", *OWN, "shapes", "--skip-unreadable", *more)
        assert ended.code == 2 and "\x1b" not in ended.err + ended.out
    Path(os.fsdecode(b"shapes/\xfe")).rmdir()
    ended = purple("evaluate", *OWN, "shapes", "--skip-unreadable")
    assert ended.code == 0 and r"\udcff\x1b[2J.txt" in ended.out
    found = purple("evaluate", *OWN, "shapes", "--skip-unreadable", "--json", "--out", "o.json")
    assert any("\udcff" in one for one in found.json["notes"])
