"""A sweep's file is checked before any work: what can never work is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from purpleteam.core.errors import ConfigError
from purpleteam.core.runfolder import key_of
from purpleteam.pipeline.plan import read_plan

SWEEP = """
name: tiny
cells:
  - {verb: evaluate, model: [standard, robust-0.3], dataset: digits, limit: [20, 30], seed: [0, 1]}
  - {verb: attack, dataset: digits, attack: fgsm, epsilon: [0.1, 8/255], limit: 20, checked: 20}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP, encoding="utf-8")
    return path


def test_the_product_of_all_lists_is_planned_each_cell_once(file: Path) -> None:
    cells = list(read_plan(file).cells)
    assert len(cells) == 2 * 2 * 2 + 2
    assert cells[1].what == "evaluate model=standard limit=20 seed=1"
    assert cells[-1].options["epsilon"] == [8 / 255] and cells[-1].options["images"] == "digits"
    file.write_text(SWEEP.replace("[0, 1]", "[0, 1, 1]"), encoding="utf-8")
    assert [one.options for one in read_plan(file).cells] == [one.options for one in cells]
    file.write_text(SWEEP.replace("8/255], limit", "8/255], seed: 0, limit"), encoding="utf-8")
    assert {key_of("", one.options) for one in read_plan(file).cells} == {
        key_of("", one.options) for one in cells
    }


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("evaluate", "evalate", "unknown verb 'evalate'.*evaluate"),
        ("limit: [20, 30]", "limt: 20", "unknown option 'limt'.*limit"),
        ("[20, 30]", "[]", "limit is an empty list"),
        ("[20, 30]", "[20, many]", "limit = 'many': must be a whole number"),
        ("[0, 1]", "[-1]", "seed = -1: must be at least 0"),
        ("8/255", "far", "'far'"),
        ("name: tiny", "names: tiny", "unknown key 'names'.*name"),
        ("name: tiny", "name: ../tiny", "name = '../tiny': must be letters"),
        ("name: tiny", "name: 2020-01-01", "no text or number .*date.*in quotes"),
        ("limit: 20, checked", "checked: 20, checked", "'checked' stands twice"),
        ("fgsm", "fgms", "unknown attack 'fgms'.*fgsm"),
        ("0.1,", ".nan,", "epsilon: 'nan' is no finite number"),
        ("cells:", "cells: {", "cannot be read"),
        (
            "limit: 20,",
            f"limit: {'9' * 5000},",
            r"'9+\.\.\. in line 5 can be no number .* in quotes",
        ),
        ("limit: 20,", "limit: 2020-13-45,", "'2020-13-45' in line 5 can be .* no date"),
        ("8/255", f"0x{'f' * 5000}", "epsilon = a number of thousands of digits"),
        ("name: tiny", "threads: many", "threads = 'many': must be from 1 to 256"),
        ("name: tiny", "seconds: 1.0e+9", "seconds = 1000000000.0: must be .* at most 1000000"),
    ],
)
def test_what_no_verb_takes_is_refused_by_name(
    file: Path, before: str, after: str, said: str
) -> None:
    file.write_text(SWEEP.replace(before, after), encoding="utf-8")
    with pytest.raises(ConfigError, match=said):
        read_plan(file)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("attack, norm: [linf, l7]", "unknown norm 'l7'; known: l1, l2, linf"),
        ("attack, epsilon: -1", "epsilon must be at least 0 and finite, not -1.0"),
        ("attack, attack: [pgd, deepfool], norm: [linf, l1]", "attack deepfool: .* 'l1'; known"),
        ("evaluate, limit: 0", "limit = 0: must be at least 1"),
        ("evaluate, split: tset", "unknown split 'tset'.*; known: all, test"),
        ("evaluate, normalise: mnst", "unknown normalisation 'mnst'.*; known: bytes"),
        ("train, arch: nosuch", "unknown architecture 'nosuch'; known: .*small_cnn"),
        ("train, recipe: [plain, nosuch]", "unknown recipe 'nosuch'; known: accurate"),
        ("harden, recipe: pgd, epsilon: [0.1, -1]", "pgd: epsilon must be above 0 .*, not -1.0"),
        ("poison, rate: 5", "rate must be above 0 and at most 1, not 5.0"),
        ("repair, model: standard, method: nosuch", "unknown repair 'nosuch'; known: fine_prune"),
        ("repair, method: unlearn", "missing a required argument: 'model'"),
        ("detect, trusted: 20", "nothing to look into"),
        ("certify, model: standard, epsilon: 2", "epsilon must be from 0 to 1, not 2"),
        ("certify, method: crown, seconds: -1", "--seconds -1 is no number of seconds above 0"),
        ("certify, method: lipschitz, norm: l7", "unknown norm 'l7'; known: l2, linf"),
        ("certify, method: smoothing, sigma: -1", "sigma must be above 0 and finite, not -1.0"),
    ],
)
def test_a_value_that_can_never_work_is_refused_before_any_cell(
    file: Path, entry: str, said: str
) -> None:
    file.write_text(f"cells: [{{verb: evaluate}}, {{verb: {entry}}}]", encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"sweep.yaml: cells\[1\]: .*{said}"):
        read_plan(file)
