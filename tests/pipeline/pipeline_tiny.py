"""A run so small that it takes seconds: few digits, a small net, two epochs."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

from purpleteam.data.folders import load_dataset, save_dataset

CONFIG = """
dataset = "{folder}/few"
architecture = "small_cnn"
threads = 1
device = "cpu"

[models]
recipe = "plain"
epochs = 2
redrawn = 10
served = "standard"

[evasion]
attacks = ["fgsm", "pgd:steps=3"]
epsilon = 0.1
limit = 40
curve = [0.05, 0.1]
curve_images = 20

[poison]
attacks = ["badnets"]
epochs = 2
count = 10
trainings = 2

[certify]
changes = [1, 2]
parts = 8
epsilons = [0.1]
limit = 20
seconds = 0.5

[backdoors]
own = false
served = false

[defences]
recipes = ["pgd"]
epochs = 2
options = {{ pgd = {{ steps = 2, validation_images = 20 }} }}

[privacy]
attacks = ["loss"]

[scan]
paths = ["{folder}/code"]
"""


def write_request(folder: Path) -> Path:
    """Write the dataset, the code under scan and the configuration; return the last."""
    whole = load_dataset("digits")
    few = replace(
        whole,
        name="few",
        train=whole.train.part(0, 240),
        validation=whole.validation.part(0, 40),
        test=whole.test.part(0, 60),
    )
    save_dataset(few, folder / "few")
    (folder / "code").mkdir()
    (folder / "code" / "bad.py").write_text("import pickle\npickle.load(open('x', 'rb'))\n")
    (folder / "tiny.toml").write_text(CONFIG.format(folder=folder.as_posix()), "utf-8")
    return folder / "tiny.toml"


def resume(config: Path, out: Path) -> None:
    """Start or continue the run by the command line, as a process that can be killed."""
    from purpleteam.cli import main

    with redirect_stdout(io.StringIO()) as printed:
        try:
            main(["run", "--config", str(config), "--out", str(out), "--resume", "--json"])
        except SystemExit as ended:
            out.with_suffix(".answer").write_text(printed.getvalue(), "utf-8")
            sys.exit(ended.code)
