"""The verbs on the real MNIST, where it is."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from cli_values import Purple, assert_rate

pytestmark = pytest.mark.mnist


@pytest.fixture
def real() -> Path:
    """The folder of the four files."""
    asked = os.environ.get("PURPLETEAM_DATA")
    for folder in (Path(asked) / "mnist", Path(asked)) if asked else ():
        if (folder / "t10k-images-idx3-ubyte.gz").is_file():
            return folder
    pytest.skip("needs the real MNIST under PURPLETEAM_DATA")


def test_the_real_files_are_verified_and_one_bit_more_is_not(
    purple: Purple, real: Path, here: Path
) -> None:
    ended = purple("data", "verify", real, "--json")
    assert (ended.code, ended.json["verified"]) == (0, True)
    for file in real.iterdir():
        shutil.copyfile(file, here / file.name)
    labels = bytearray((here / "t10k-labels-idx1-ubyte.gz").read_bytes())
    labels[len(labels) // 2] ^= 1
    (here / "t10k-labels-idx1-ubyte.gz").write_bytes(labels)
    ended = purple("data", "verify", here, "--json")
    assert (ended.code, ended.json["verified"]) == (1, False)
    bad = [one["name"] for one in ended.json["files"] if one["verdict"] != "pass"]
    assert bad == ["t10k-labels-idx1-ubyte"]


def test_what_is_there_already_is_not_fetched_again(
    purple: Purple, real: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in real.iterdir():
        shutil.copyfile(file, here / file.name)
    ended = purple("data", "fetch", "mnist", "--out", here, "--json")
    assert (ended.code, ended.json["folder"]) == (0, str(here))


def test_the_standard_model_reads_it(purple: Purple, real: Path) -> None:
    found = purple("evaluate", "--dataset", "mnist", "--limit", 1000, "--json").json
    assert_rate(found["clean_accuracy"], 1000)
    assert found["clean_accuracy"]["value"] > 0.95
    test = purple("evaluate", "--dataset", str(real), "--limit", 1000, "--json").json
    assert test["confusion_matrix"] == found["confusion_matrix"]
