"""A privacy budget is no radius: such a model is attacked within the run's own."""

from __future__ import annotations

from pathlib import Path

import torch

from purpleteam.core.runfolder import RunFolder
from purpleteam.data.sources.digits import load_digits
from purpleteam.pipeline.config import resolve
from purpleteam.pipeline.stages.defences import defence_of, radii_of
from purpleteam.pipeline.state import Run


def test_a_defence_is_attacked_within_its_own_radius_only_if_it_has_one(tmp_path: Path) -> None:
    config = resolve(
        None, None, ["evasion.epsilon=0.1", "defences.options={ pgd = { epsilon = 0.2 } }"]
    )
    folder = RunFolder.create(tmp_path / "run", {})
    run = Run(folder, config, load_digits(), torch.device("cpu"), 1)
    private, trades, pgd = (defence_of(run, name) for name in ("dp_sgd", "trades", "pgd"))
    assert [radii_of(run, one) for one in (private, trades, pgd)] == [[0.1], [0.1], [0.1, 0.2]]
    assert "epsilon=3.0" in repr(private)
