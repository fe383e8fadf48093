"""Another verifier on the same files never contradicts us: as measured, and asked anew."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from torch import nn

import purpleteam as pt
from purpleteam.data.images import ImageSet

ROOT = Path(__file__).resolve().parents[2]
VIBECHECK = Path(sys.prefix) / "tools" / "vibecheck" / "bin" / "vibecheck"  # make peers


def test_no_verdict_of_ours_was_contradicted() -> None:
    found = json.loads((ROOT / "results" / "judged.json").read_text(encoding="utf-8"))
    nets = found["nets"].values()
    assert found["contradictions"] == 0 and found["instances"] >= 60 and len(nets) == 3
    for net in nets:
        ours = list(net["ours"].values())
        assert net["contradictions"] == [] and set(ours) == {"verified", "falsified", "unknown"}
        assert sum(n for said in net["counts"].values() for n in said.values()) == len(ours)
        assert "sat" not in net["counts"]["verified"]
        assert "unsat" not in net["counts"]["falsified"]
        assert net["counterexamples_shown"] == ours.count("falsified")


@pytest.mark.skipif(not VIBECHECK.exists(), reason="vibecheck-nn comes with make peers")
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_it_reads_what_is_written_and_finds_what_is_there(tmp_path: Path, version: str) -> None:
    image = np.array([[[[128], [102]]]], np.uint8)  # scored by its two pixels, 0.502 and 0.4
    net = nn.Sequential(nn.Flatten(), nn.ReLU())
    pt.export(net, ImageSet(image, np.array([0])), vnnlib=tmp_path / "new", epsilon=0.1)
    command = [VIBECHECK, "verify", f"{version}/00000.vnnlib", "--network", "N=net.onnx"]
    safe = {"ORT_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    done = subprocess.run(
        command, cwd=tmp_path / "new", capture_output=True, env=os.environ | safe, check=False
    )
    (tmp_path / "00000.txt").write_bytes(done.stdout)
    found = pt.export(vnnlib=tmp_path / "new", verdicts=tmp_path)
    assert found.verdicts == {"sat": 1} and not found.false_witnesses
